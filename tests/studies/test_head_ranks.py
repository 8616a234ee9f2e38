"""Ranking losses of an item head: each cell trains what its name says, and is compared by user."""

import numpy as np
import pytest

from ilm_jax.runs import gin_config
from ilm_jax.runs.run import Run


@pytest.fixture
def study(script):
    return script("head_ranks")


def heads(study, folder, drawn):
    """Of every cell, by its name, the head that its command trains."""
    made = study.HeadRanks("toy", 0, folder, steps=7)
    found = {}
    for name, words, _ in made.steps_of(study.cells(drawn)):
        if words[0] == "train" and name != "stage0":
            files = [word.removeprefix("--gin_file=") for word in words if "--gin_file=" in word]
            bound = [word.removeprefix("--gin.") for word in words if word.startswith("--gin.")]
            run = gin_config.build(Run, files, bound)
            assert run.trainer.total_steps == 7
            found[name] = run.objective.heads[0]
    return found


def test_each_cell_trains_its_own_loss(study, tmp_path):
    found = heads(study, tmp_path, [10])
    assert list(found) == [
        "softmax",
        *("warp-uncorrected-10", "warp-corrected-10"),
        *("lambdarank-uncorrected-10", "lambdarank-corrected-10"),
        *("warp-full", "lambdarank-full"),
    ]
    assert found["softmax"].loss is None
    plain, corrected = found["warp-uncorrected-10"], found["warp-corrected-10"]
    assert (plain.loss.name, plain.loss.rank, corrected.loss.rank) == (
        *("warp", "sampled"),
        "corrected",
    )
    assert (plain.sampler.kind, plain.sampler.drawn) == ("uniform", 10)
    assert found["lambdarank-full"].sampler.kind == "all"
    assert found["lambdarank-full"].loss.cutoff == 10 and corrected.loss.cutoff is None
    assert {head.vectors for head in found.values()} == {"row"}


def test_ranks_are_compared_by_user_over_the_mean_of_the_seeds(study):
    rng = np.random.default_rng(0)
    values = rng.uniform(0, 0.2, 200)
    found = {cell: [values, values + 0.002] for cell in study.cells([10])}
    better = study.Cell("warp", "corrected", 10)
    found[better] = [found[better][0] + 0.01, found[better][1] + rng.normal(0.01, 0.01, 200)]
    told = study.report(found)
    assert "200 users" in told and told.count("; finds 0.") == 8
    line = next(line for line in told.splitlines() if " warp-uncorrected-10 below warp-cor" in line)
    assert "warp-corrected-10 - warp-uncorrected-10 = 0.0" in line


@pytest.mark.parametrize("words", [["--drawn", "0"], ["--steps", "-3"]])
def test_numbers_that_mean_nothing_are_refused_before_anything_is_trained(study, words, capsys):
    with pytest.raises(SystemExit):
        study.main(words)
    assert f"argument {words[0]}: invalid positive value: '{words[1]}'" in capsys.readouterr().err
