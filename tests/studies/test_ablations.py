"""The ablations: each changes its one setting in the stages that have it, and nothing else."""

import numpy as np
import pytest

from ilm_jax.metrics.values import MetricValues
from ilm_jax.runs import gin_config
from ilm_jax.runs.run import Run


@pytest.fixture
def study(script):
    return script("ablations")


def run_of(command):
    files = [word.removeprefix("--gin_file=") for word in command if word.startswith("--gin_file=")]
    bindings = [word.removeprefix("--gin.") for word in command if word.startswith("--gin.")]
    return gin_config.build(Run, files, bindings)


def test_each_variation_changes_its_own_setting_alone(study, tmp_path):
    made = study.Ablations("toy", 0, tmp_path)
    own = ("MODEL_DIR", "QFORMER_FROM")

    def shared(words):
        return {word for word in words if not any(f"{name}=" in word for name in own)}

    for name, one in study.VARIATIONS.items():
        for command, base, bound in (
            (made.stage_one(name), made.stage_one("base"), one.stage_one),
            *(
                (made.stage_two(row), made.stage_two(study.Row(row.reader, "base")), one.stage_two)
                for row in study.rows_of(["trained", "fresh"], [name])
            ),
        ):
            more = shared(command) - shared(base)
            tables = {f"--gin.CF_TABLE='{made.table_of(name)}'"} if one.vectors else set()
            assert more == {f"--gin.{key}={value!r}" for key, value in bound.items()} | tables
    for queries in (1, 2, 4, 16):
        run = run_of(made.stage_two(study.Row("fresh", f"queries-{queries}")))
        assert run.objective.configs["qformer"].num_queries == queries
    assert run_of(made.stage_one("item-tokens-4")).objective.configs["qformer"].num_item_tokens == 4


def test_steps_are_asked_of_frozen_readers_alone(study, tmp_path):
    rows = study.rows_of(study.READERS)
    assert len(rows) == len(set(rows)) == 2 * len(study.VARIATIONS) + 2 * 2
    assert {row.variation for row in rows if "frozen" in row.reader} == {"base", "longer"}
    made = study.Ablations("toy", 0, tmp_path)
    for _, longer in study.EQUAL:
        run = run_of(made.stage_two(longer))
        assert run.trainer.total_steps == study.LONGER > 120
        assert (run.trainer.trainable == ("^adaptor/",)) == (longer.reader == "fresh-frozen")
        assert not any("QFORMER_FROM" in word for word in made.stage_two(longer))


def test_a_variations_vectors_are_fitted_before_what_reads_them(study, tmp_path):
    made = study.Ablations("toy", 0, tmp_path)
    steps = [
        name for name, *_ in made.steps_of(study.rows_of(["trained", "fresh"], ["vectors-64"]))
    ]
    assert steps == [
        *("cf", "stage0", "cf-vectors-64", "stage1-vectors-64", "trained-vectors-64"),
        *("evaluate trained-vectors-64", "fresh-vectors-64", "evaluate fresh-vectors-64"),
    ]
    assert "--dim=64" in made.fit("vectors-64")
    made_from = made.made_from(study.Row("fresh", "vectors-64"))
    assert made_from["vectors"] == "--dim=64" and "stage 1" not in made_from


def test_rows_are_compared_with_the_base_of_their_reader(study):
    rng = np.random.default_rng(0)
    noise, tokens = rng.normal(0, 0.1, 40), np.full(40, 6.0)

    def cells(mean):
        found = [
            MetricValues(
                "nll_content", "items", np.arange(40), tokens * (value + noise), tokens, False
            )
            for value in (mean, mean + 0.01)
        ]
        return [study.receipts.Receipt("row", {}, "", 1.0, [], {"nll_content": f}) for f in found]

    found = {
        study.Row("trained", "base"): cells(1.7),
        study.Row("trained", "queries-1"): cells(1.9),
        study.Row("fresh", "base"): cells(1.6),
        study.Row("fresh", "longer"): cells(1.65),
    }
    told = study.report(found)
    assert "base below queries-1: queries-1 - base = 0.2000 [" in told
    assert "base           1.6940  1.7040   1.6990" in told and told.count(" - base = ") == 2
    assert "fresh-longer below trained-base: trained-base - fresh-longer = 0.0500 [" in told
