"""The studies of collaborative filtering keep what they measured, and never mix it up."""

import pathlib
import subprocess
import sys

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
    names = {path.name for path in (tmp_path / "kept").glob("*.npz")}
    assert len(names) == 6 and "warp_corrected_m0_rate0.003_epochs2_seed0.npz" in names
    again = study("cf_ranks.py", tmp_path, *words, "--seeds", "0")
    assert again.stdout == first.stdout[first.stdout.index("test NDCG@10") :]
    other = study("cf_ranks.py", tmp_path, *words[2:], "--seeds", "0")
    assert "holds results of another recipe" in other.stderr
