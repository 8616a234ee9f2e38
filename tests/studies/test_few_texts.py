"""The study of few texts: receipts stand for rows, rates are chosen on validation items."""

import dataclasses
import json
import pathlib
import sys

import numpy as np
import pytest

from ilm_jax.data.sources.prepare import load_catalogue
from ilm_jax.errors import UserError
from ilm_jax.evaluation.reports import results
from ilm_jax.files import atomic_write
from ilm_jax.metrics.values import Evaluation, MetricValues
from ilm_jax.training import finished

ROOT = pathlib.Path(__file__).parents[2]
WORDS = (
    "chosen_rates",
    "live",
    "few_texts_report",
    "few_texts_check",
    "few_texts",
    "receipts",
    "study",
    "steps",
    "scheduling",
)
# Of a row at a rate; the second rate is the better one.
LOSS = {"ilm": 1.0, "ilm-rand": 1.2, "ilm-frozen": 1.4, "ilm-rand-frozen": 1.4}


def evaluation(mean, texts=40):
    rng = np.random.default_rng(0)
    values, tokens = mean + rng.normal(0, 0.1, texts), rng.integers(5, 9, texts).astype(float)
    found = [
        MetricValues(name, "items", np.arange(texts), values * tokens, tokens, False)
        for name in ("nll_content", "nll")
    ]
    return Evaluation(found)


@pytest.fixture
def study(monkeypatch, tmp_path):
    """The module, one study, and the names of the steps that ran."""
    monkeypatch.syspath_prepend(str(ROOT / "studies"))
    import few_texts
    import steps

    ran = []

    def verb(command, name, folder, prefix=""):
        del folder, prefix
        ran.append(name)
        at = dict(word.lstrip("-").partition("=")[::2] for word in command[1:])
        if command[0] == "fit_cf":
            with atomic_write(at["output"]) as stream:
                stream.write("table")
        elif command[0] == "evaluate":
            row = name.split("_")[2]
            results.write(at["output"], evaluation(LOSS[row]))
        else:
            made = pathlib.Path(at["gin.MODEL_DIR"].strip("'"))
            loss = 2 + float(at.get("gin.LEARNING_RATE", 0))
            with atomic_write(made / "metrics.jsonl") as stream:
                for step, more in ((20, 0.0), (40, -0.1), (60, 0.3)):
                    stream.write(json.dumps({"step": step, "validation/loss": loss + more}) + "\n")
            finished.write(made, seconds=1, step=1, validation={}, recipe={}, inputs={})

    monkeypatch.setattr(steps, "run_verb", verb)
    monkeypatch.setattr(sys.modules["study"].Study, "data", "catalogue")
    kept = tmp_path / "receipts"
    found = few_texts.FewTexts("toy", 0, tmp_path / "study", receipts=kept)
    yield few_texts, found, ran
    for name in WORDS:
        sys.modules.pop(name, None)


def test_a_row_with_a_receipt_is_not_run_again_and_another_recipes_is_refused(study, tmp_path):
    module, one, ran = study
    grid = (2e-3, 1e-3)
    found = module.measure([one], [50], grid)
    assert {name for _, name in found} == set(module.ROWS)
    trained = [name for name in ran if name.startswith("few_texts/")]
    assert len(trained) == len(module.ROWS) * len(grid)
    assert sorted(p.name for p in one.receipts.glob("toy_seed0_50_*.json")) == sorted(
        f"toy_seed0_50_{row}.json" for row in module.ROWS
    )
    (receipt,) = found[50, "ilm"]
    assert receipt.made_from["learning rate"] == "0.001" and receipt.curve[1] == (40, 1.901)
    wanted = evaluation(LOSS["ilm"]).metrics[0]
    assert receipt.mean("nll_content") == pytest.approx(wanted.mean, abs=1e-6)

    import few_texts_check as checking

    # Another machine: the receipts alone are there, and nothing is run.
    ran.clear()
    elsewhere = dataclasses.replace(one, folder=tmp_path / "elsewhere")
    again = module.measure([elsewhere], [50], grid)
    assert not ran and again.keys() == found.keys()
    assert "0.0 core hours" in checking.budget([elsewhere], [50], grid)
    # Another recipe: neither receipts nor rates are taken for it.
    with pytest.raises(
        UserError, match=r"_rates\.json: the rate of 50_.* for another row, stage 0"
    ):
        module.measure([dataclasses.replace(elsewhere, most_steps=3)], [50], grid)
    (one.receipts / "toy_seed0_rates.json").unlink()
    with pytest.raises(UserError, match="made from another row, stage 0"):
        module.measure([dataclasses.replace(elsewhere, most_steps=3)], [50], grid)


def test_rows_are_paired_text_by_text_over_all_worlds(study, tmp_path, monkeypatch):
    module, one, _ = study
    monkeypatch.setattr(module.FewTexts, "data", property(lambda own: f"world {own.seed}"))
    two = dataclasses.replace(one, seed=1, folder=tmp_path / "two")
    found = module.measure([one, two], [0], (1e-3,))
    import few_texts_report as report

    tested = list(report.tests(found))
    assert [(texts, t.first, t.second) for texts, t in tested] == [
        (0, "ilm", "ilm-rand"),
        (0, "ilm-frozen", "ilm-rand-frozen"),
    ]
    assert tested[0][1].difference.units == 80
    assert tested[0][1].verdict == "ilm below ilm-rand"
    assert tested[0][1].difference.mean == pytest.approx(-0.2)
    assert tested[1][1].verdict == "undecided"
    lines = report.table(found, 1600).splitlines()
    assert lines[0].count("|") == lines[2].count("|") and lines[2].startswith("| 1600 | 1.1")
    assert "| 1600 | -0.200 [-0.200, -0.200], p = 0 | +0.000" in lines[-1]
    report.draw(found, tmp_path / "few.png", 1600)
    assert (tmp_path / "few.png").read_bytes().startswith(b"\x89PNG")
    shifted = dataclasses.replace(found[0, "ilm"][0].metrics["nll_content"], index=np.arange(1, 41))
    other = dataclasses.replace(found[0, "ilm"][0], metrics={"nll_content": shifted})
    with pytest.raises(UserError, match="different items"):
        list(report.tests({**found, (0, "ilm"): [other, found[0, "ilm"][1]]}))


def test_a_check_runs_a_row_again_and_says_whether_it_matches(study, monkeypatch):
    module, one, ran = study
    import few_texts_check as checking

    module.measure([one], [50], (1e-3,))
    ran.clear()
    assert checking.check_rows([one], ["50_ilm"]).startswith("50_ilm matches:")
    # From the vectors on, although the study's own runs are all there; and again, each time.
    assert ran[:3] == ["cf", "stage0", "stage1"] and "few_texts/50_ilm_0.001" in ran
    assert len(list(one.receipts.iterdir())) == 5
    first = list(ran)
    checking.check_rows([one], ["50_ilm"])
    assert ran == 2 * first
    monkeypatch.setitem(LOSS, "ilm", 1.2)
    with pytest.raises(UserError, match=r"does not match: nll_content: 0\.99.* kept, 1\.19.* now"):
        checking.check_rows([one], ["50_ilm"])
    for wrong in ("ilm", "50_other", "some_ilm"):
        with pytest.raises(UserError, match="no row"):
            checking.check_rows([one], [wrong])
    with pytest.raises(UserError, match="no receipt"):
        checking.check_rows([one], ["200_ilm"])


def test_seed_0_chooses_rates_for_all(study, tmp_path):
    module, one, ran = study
    other = dataclasses.replace(one, seed=3, dataset="toy/world3", folder=tmp_path / "three")
    with pytest.raises(
        UserError, match=r"toy_seed0_rates\.json has no rate for 50_ilm-rand: seed 0"
    ):
        module.measure([other], [50], (2e-3, 1e-3))
    assert not ran
    module.measure([one], [50], (2e-3, 1e-3))
    ran.clear()
    found = module.measure([other], [50], (2e-3, 1e-3))
    assert {rows[0].made_from["learning rate"] for rows in found.values()} == {"0.001"}
    assert len([name for name in ran if name.startswith("few_texts/")]) == len(module.ROWS)
    ran.clear()
    module.measure([one], [50], (1e-3, 5e-3))  # a rate that was not tried
    assert len([name for name in ran if name.endswith("_0.005")]) >= len(module.ROWS)
    path = one.receipts / "toy_seed0_rates.json"
    for damaged in ("{", '{"50_ilm": {}}', '{"50_ilm": {"rate": "high"}}', "[]"):
        path.write_text(damaged)
        with pytest.raises(UserError, match=r"_rates\.json holds no rates"):
            module.measure([one], [50], (1e-3,))


def test_a_damaged_receipt_is_named(study):
    module, one, _ = study
    module.measure([one], [50], (1e-3,))
    path = one.receipts / "toy_seed0_50_ilm.json"
    record = json.loads(path.read_text())
    for change in ({"format": "other"}, {"metrics": {"nll_content": {}}}, {"curve": None}):
        path.write_text(json.dumps(record | change))
        with pytest.raises(UserError, match=r"50_ilm\.json is no receipt"):
            module.measure([one], [50], (1e-3,))


def test_the_committed_receipts_are_of_todays_recipes_and_world(study, tmp_path):
    """Delete those whose recipe was changed on purpose: their rows are run again."""
    module, one, _ = study
    import receipts

    world = load_catalogue("toy", cache_dir=tmp_path).fingerprint
    found = sorted(module.FOLDER.glob("toy_seed0_*_*.json"))
    assert len(found) >= len(module.ROWS)
    committed = dataclasses.replace(one, receipts=module.FOLDER)
    for path in found:
        count, row = path.stem.removeprefix("toy_seed0_").split("_")
        receipt = receipts.read(module.FOLDER, path.stem)
        cell = module.Cell(0 if count == "all" else int(count), row)
        now = committed.made_from(cell, float(receipt.made_from["learning rate"]))
        assert receipts.changed(receipt, {**now, "data": world}) == []
        assert receipt.metrics["nll_content"].weights.min() > 0


def test_seeds_of_one_catalogue_are_one_sample_of_items(study):
    """Their mean is taken item by item: a second seed measures no other items."""
    del study
    import receipts

    rng, tokens = np.random.default_rng(0), np.full(40, 6.0)

    def row(name, mean, data, first=0):
        values = tokens * (mean + rng.normal(0, 0.1, 40))
        found = MetricValues("nll", "items", np.arange(40) + first, values, tokens, False)
        return receipts.Receipt(name, {"data": data}, "", 1.0, [], {"nll": found})

    def compared(data):
        ours, theirs = ([row(n, mean, d) for d in data] for n, mean in (("a", 1.7), ("b", 1.8)))
        return receipts.compare_rows("a", ours, "b", theirs, "nll").difference

    assert compared(("one", "one")).units == 40 and compared(("one", "two")).units == 80
    seeds = [row("a", 1.7, "one"), row("a", 1.9, "one")]
    values, weights = receipts.joined(seeds, "nll")
    both = [receipt.metrics["nll"].values for receipt in seeds]
    np.testing.assert_allclose(values, (both[0] + both[1]) / 2)
    np.testing.assert_array_equal(weights, tokens)
    with pytest.raises(UserError, match="a and other were measured on different items"):
        receipts.joined([seeds[0], row("other", 1.0, "one", first=1)], "nll")
