"""The studies of collaborative filtering keep what they measured, and never mix it up."""

import itertools
import pathlib
import subprocess
import sys
import types

import numpy as np
import pytest

STUDIES = pathlib.Path(__file__).parents[2] / "studies"


def study(script, folder, *words, users=40):
    lines = [f"u{n} " + " ".join(f"i{(n + 3 * k) % 17}" for k in range(8)) for n in range(users)]
    file = folder / f"sequences{users}.txt"
    file.write_text("\n".join(lines) + "\n")
    begin = [sys.executable, str(STUDIES / script), f"--sequences={file}"]
    command = [*begin, f"--folder={folder / 'kept'}", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_a_sweep_goes_on_where_it_was_and_refuses_results_of_other_data(tmp_path):
    words = ("--dims", "4", "--alphas", ".1", ".3", "--ridges", ".01", "--epochs", "2")
    first = study("cf_sweep.py", tmp_path, *words)
    assert first.returncode == 0, first.stderr
    assert "best of those with 1 seeds: dim 4" in first.stdout
    assert "test NDCG@10 (iALS: mean of seeds 0, 1, 2)" in first.stdout
    again = study("cf_sweep.py", tmp_path, *words)
    # Nothing is measured again: the lines of progress are gone.
    assert again.stdout == (tmp_path / "kept" / "table.txt").read_text()
    longer = study("cf_sweep.py", tmp_path, *words[:-1], "3")
    assert (longer.returncode, longer.stderr.count("\n")) == (2, 1)
    assert "holds results of another epochs" in longer.stderr
    other = study("cf_checks.py", tmp_path, "--only", "devices", users=30)
    assert other.returncode == 2
    assert "holds results of another" in other.stderr
    assert "split" in other.stderr


@pytest.mark.slow
def test_a_ladder_trains_and_measures_once_and_refuses_other_settings(tmp_path):
    words = ("--recipes", "runs/sasrec.gin", "--bind", "sasrec.SASRecConfig.embed_dim=8")
    small = "sequential.SequentialConfig.epochs=2"
    first = study("cf_ladder.py", tmp_path, *words, small)
    assert first.returncode == 0, first.stderr
    for row in ("popularity", "item-kNN, up to date", "sasrec", "seen items kept in"):
        assert row in first.stdout
    again = study("cf_ladder.py", tmp_path, *words, small)
    assert again.stdout == (tmp_path / "kept" / "table.txt").read_text()
    other = study("cf_ladder.py", tmp_path, *words)
    assert (other.returncode, other.stderr.count("\n")) == (2, 1)
    assert "holds results of another bound" in other.stderr


@pytest.mark.slow
def test_ranks_are_corrected_in_sequential_models_too(tmp_path):
    words = ("--recipe", "tiny/sasrec.gin", "--epochs", "2", "--rates", ".003", "--drawn", "4")
    first = study("cf_ranks.py", tmp_path, *words, "--seeds", "0")
    assert first.returncode == 0, first.stderr
    lines = first.stdout.splitlines()
    assert sum(" m=4: " in line and ", finds 0." in line for line in lines) == 6
    assert "twice" not in first.stdout  # with one rate nothing is chosen
    files = {path.name.partition("_rate")[0]: path for path in (tmp_path / "kept").glob("*.npz")}
    kinds = [
        f"{loss}_{rank}" for loss in ("warp", "lambdarank") for rank in ("sampled", "corrected")
    ]
    assert set(files) == {
        *(f"{kind}_m4" for kind in kinds),
        "warp_corrected_m0",
        "lambdarank_corrected_m0",
    }
    ranks = {name: np.load(path)["ranks"] for name, path in files.items()}
    pairs = list(itertools.combinations(ranks.values(), 2))
    assert all(not np.array_equal(one, other) for one, other in pairs)  # each is its own training
    again = study("cf_ranks.py", tmp_path, *words, "--seeds", "0")
    assert again.stdout == first.stdout[first.stdout.index("test NDCG@10") :]
    other = study("cf_ranks.py", tmp_path, *words[2:], "--seeds", "0")
    assert "holds results of another recipe" in other.stderr


def test_what_a_test_can_find_follows_from_its_standard_error(script):
    ranks = script("cf_ranks")
    one, other = np.zeros(100), np.tile([0.0, 0.2], 50)
    # The standard deviation of differences of 0 and -.2 is .1005, its error a tenth of that.
    assert ranks.findable(one, other) == pytest.approx(2.8 * 0.01005, rel=1e-3)
    assert ranks.findable(one, one) == 0


def test_each_target_is_ranked_by_what_came_before_it(script, monkeypatch, tmp_path):
    ranks = script("cf_ranks")
    asked, bound = [], []

    class Fit(ranks.SequentialFit):
        def __init__(self):
            pass

        def fit(self):
            return types.SimpleNamespace(item=np.eye(3))

        def user_vectors(self, sequences):
            asked.append(sequences)
            return np.eye(3)

    def build(kind, files, words):
        bound.append(dict(word.split("=", 1) for word in words))
        return types.SimpleNamespace(trained=lambda splits: Fit())

    monkeypatch.setattr(ranks.gin_config, "build", build)
    monkeypatch.setattr(ranks.Sequences, "before", lambda splits, fold: fold)
    monkeypatch.setattr(ranks.evaluation, "vector_scorer", lambda user, item: asked[-1])
    bench = ranks.Bench(None, None, tmp_path, [0], 2, [0.1], [4], recipe="tiny/sasrec.gin")
    bench._sequential("lambdarank", "sampled", 4, 0.1, 2, 1)
    assert asked == [ranks.VALID, ranks.TEST]
    assert bound[0]["sequential.SequentialConfig.rank"] == "'sampled'" and bound[0]["SEED"] == "1"
    assert bound[0]["sequential.SequentialConfig.cutoff"] == "10"
    bench._sequential("warp", "corrected", ranks.FULL, 0.1, 2, 1)
    assert bound[1]["negatives.SamplerConfig.kind"] == "'all'"
    assert "negatives.SamplerConfig.drawn" not in bound[1]
