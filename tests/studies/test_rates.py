"""Rows compete at rates of one committed grid, each at its own choice, which the recipes hold."""

import json
import pathlib
import sys

import pytest

from ilm_jax.runs import gin_config
from ilm_jax.runs.run import Run
from ilm_jax.training import finished

ROOT = pathlib.Path(__file__).parents[2]
PLACES = ["MODEL_DIR=m", "LM_FROM=lm"]


@pytest.fixture
def rates(script):
    return script("rates")


def test_the_recipes_hold_what_the_committed_search_found(rates):
    record = rates.committed()
    assert record["metric"] == "nll_content" and record["grid"] == rates.grid()
    trained = {row: recipe for row, recipe in rates.RECIPES.items() if recipe is not None}
    assert list(record["rows"]) == list(trained)
    for row, recipe in trained.items():
        found = record["rows"][row]
        assert {float(rate) for rate in found["values"]} <= set(rates.grid()), row
        assert len(found["values"]) >= 3, row
        assert found["values"][f"{found['rate']:g}"] == min(found["values"].values()), row
        table = [] if row == "text-full" else ["CF_TABLE=t"]
        source = ["QFORMER_FROM=q"] if row == "ilm" else []
        run = gin_config.build(Run, [recipe], [*PLACES, *table, *source])
        assert run.optimizer.learning_rate == found["rate"], row


def test_a_search_trains_every_row_at_every_rate_and_takes_the_best(rates, monkeypatch, tmp_path):
    ran = []

    def verb(command, name, folder, prefix=""):
        ran.append(name)
        if command[0] == "fit_cf":
            (tmp_path / "cf.safetensors").write_text("table")
        if command[0] != "train":
            return
        at = dict(word.lstrip("-").partition("=")[::2] for word in command[1:])
        rate = float(at.get("gin.LEARNING_RATE", 0))
        loss = abs(rate - (2e-3 if "mlp" in name else 5e-3))
        folder = at["gin.MODEL_DIR"].strip("'")
        values = {"nll_content": loss}
        finished.write(folder, seconds=1, step=1, validation=values, recipe={}, inputs={})

    monkeypatch.setattr(sys.modules["steps"], "run_verb", verb)
    monkeypatch.setattr(sys.modules["study"].Study, "data", "catalogue")
    study = rates.Study("toy", 0, tmp_path)
    record = rates.search(study, ["text-zero", "prompt", "mlp"])
    assert {row: found["rate"] for row, found in record["rows"].items()} == {
        "prompt": 5e-3,
        "mlp": 2e-3,
    }
    assert ran[:2] == ["cf", "stage0"] and len(ran) == 2 + 2 * len(rates.grid())
    assert json.loads((tmp_path / "rates.json").read_text()) == record
    text = rates.table(record)
    assert text.count("*") == 2 and "at the end" not in text
    again = len(ran)
    assert rates.search(study, ["text-zero", "prompt", "mlp"]) == record and len(ran) == again
    trained = {row: rates.stage_of(row, f["rate"]) for row, f in record["rows"].items()}
    steps = sys.modules["study"].plan(study, ["mlp"], True, trained=trained)
    assert [name for name, *_ in steps] == ["cf", "stage0", "evaluate mlp"]
    assert f"--model_dir={tmp_path}/rates/mlp_0.002" in steps[-1][1]
