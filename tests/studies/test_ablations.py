"""The ablations: each changes its one setting in the stages that have it, and nothing else."""

import json

import numpy as np
import pytest

from ilm_jax.cli import fit_cf
from ilm_jax.metrics.values import MetricValues
from ilm_jax.runs import gin_config
from ilm_jax.runs.run import Run


@pytest.fixture
def study(script):
    return script("ablations")


def fit_of(command):
    """The methods that a command of `ilm fit_cf` fits."""
    values, bindings = fit_cf._flags(), []
    words = [word for word in command[1:] if not word.startswith("--gin.")]
    bindings = [w.removeprefix("--gin.") for w in command[1:] if w.startswith("--gin.")]
    values(["fit_cf", *words])
    make = fit_cf._from_recipe if values.gin_file else fit_cf._from_flags
    return make(values, bindings).methods


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
        pairs = [(made.stage_one(name), made.stage_one("base"), one.stage_one)]
        for row in made.rows(["trained", "fresh"], [name]):
            base = study.Row(row.reader, "base")
            pairs.append((made.stage_two(row), made.stage_two(base), one.stage_two))
        for command, base, bound in pairs:
            more, less = shared(command) - shared(base), shared(base) - shared(command)
            tables = {f"--gin.CF_TABLE='{made.table_of(name)}'"} if one.vectors else set()
            own_words = {f"--gin.{key}={value!r}" for key, value in bound.items()} | tables
            assert more <= own_words <= shared(command)
            names = {word.partition("=")[0] for word in more}
            assert {word.partition("=")[0] for word in less} <= names
            run_of(command)  # the recipe can be built
    for queries in (1, 2, 4, 16):
        run = run_of(made.stage_two(study.Row("fresh", f"queries-{queries}")))
        assert run.objective.configs["qformer"].num_queries == queries
        # Five texts share a row of the base; so they do with other numbers of soft tokens.
        assert run.dataset.pack_room * 136 - 1.8 * 136 == pytest.approx(5 * (queries - 8), abs=0.1)
    assert run_of(made.stage_one("item-tokens-4")).objective.configs["qformer"].num_item_tokens == 4


def test_rates_are_those_that_were_chosen_with_few_texts(study):
    chosen = json.loads((study.receipts.FOLDER / "few_texts/toy_seed0_rates.json").read_text())
    names = {"trained": "ilm", "fresh": "ilm-rand", "frozen": "ilm-frozen"}
    names["fresh-frozen"] = "ilm-rand-frozen"
    for reader, row in names.items():
        assert study.Ablations.rates[reader] == chosen[f"all_{row}"]["rate"]


def test_steps_are_asked_where_rows_cost_the_same(study, tmp_path):
    made = study.Ablations("toy", 0, tmp_path)
    rows = made.rows()
    assert len(rows) == len(set(rows)) == 2 * len(study.SETTINGS) + 2 + 1 + 2 + 4 * len(study.CUT)
    assert made.rows(["frozen"], study.SETTINGS) == [study.Row("frozen", "base")]
    assert {row for pair in study.EQUAL for row in pair} <= set(rows)
    for one, longer in study.EQUAL:
        run, shorter = run_of(made.stage_two(longer)), run_of(made.stage_two(one))
        assert run.trainer.total_steps == study.LONGER > shorter.trainer.total_steps == 120
        assert run.trainer.trainable == shorter.trainer.trainable
        assert not any("QFORMER_FROM" in word for word in made.stage_two(longer))


def test_short_texts_are_asked_of_every_reader_in_steps_of_as_many(study, tmp_path):
    made = study.Ablations("toy", 0, tmp_path)
    assert {row for pair in study.SHORT for row in pair} == set(made.rows(names=study.CUT))
    for row in made.rows(names=study.CUT):
        dataset, tokens = run_of(made.stage_two(row)).dataset, int(row.variation.split("-")[1])
        assert dataset.truncate_targets
        # Five texts share a row, each shorter by what is cut.
        room = dataset.pack_room * (100 + tokens)
        assert room == pytest.approx(1.8 * 136 - 5 * (27 - tokens), abs=0.1)
    steps = [name for name, *_ in made.steps_of(made.rows(["frozen"]))]
    assert [name for name in steps if name.startswith("stage1")] == ["stage1-base"]
    assert steps.index("stage1-base") < steps.index("frozen-base")


def test_a_variations_vectors_are_fitted_before_what_reads_them(study, tmp_path):
    made = study.Ablations("toy", 0, tmp_path)
    rows = made.rows(["trained", "fresh"], ["vectors-64"])
    assert [name for name, *_ in made.steps_of(rows)] == [
        *("cf", "stage0", "cf-vectors-64", "stage1-vectors-64", "trained-vectors-64"),
        *("evaluate trained-vectors-64", "fresh-vectors-64", "evaluate fresh-vectors-64"),
    ]
    digests = set()
    for name, one in study.VARIATIONS.items():
        if one.vectors:
            method = fit_of(made.fit(name))[0]
            assert method.dim == {"vectors-16": 16, "vectors-64": 64}.get(name, 32)
            digests.add(made.made_from(study.Row("fresh", name))["vectors"])
    assert len(digests) == 3 and "stage 1" not in made.made_from(study.Row("fresh", "base"))


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
        study.Row("fresh", "longer-.01"): cells(1.65),
    }
    found |= {
        study.Row("frozen", "text-8"): cells(1.2),
        study.Row("fresh-frozen", "text-8"): cells(1.3),
    }
    told = study.report(found)
    assert "frozen-text-8 below fresh-frozen-text-8: frozen-text-8 - fresh-" in told
    assert "base below queries-1: queries-1 - base = 0.2000 [" in told
    assert "base           1.6940  1.7040   1.6990" in told and told.count(" - base = ") == 2
    assert "fresh-longer-.01 below trained-base: trained-base - fresh-longer-.01 = 0.0500 [" in told
