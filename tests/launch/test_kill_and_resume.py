"""SIGKILL at any step, also while a checkpoint is being written, changes no bit of a run."""

import pathlib
import sys

import pytest

from ilm_jax.data.sources import toy
from ilm_jax.data.sources.prepare import catalogue_dir
from tests.data.small_catalogue import small_catalogue

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "launch"))
import kill_and_resume  # noqa: E402 - a script, in no package


@pytest.mark.slow
def test_two_kills_in_stages_1_and_2_leave_the_bits_of_undisturbed_runs(
    tmp_path, capsys, monkeypatch
):
    # Quick to compile; the runs that are compared share it.
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
    monkeypatch.setenv("XLA_FLAGS", "")
    cache_dir = tmp_path / "cache"
    small_catalogue(items=80, users=60).save(
        catalogue_dir("toy", cache_dir), {"builder": toy.VERSION}
    )
    # Without item_text, whose three losses take most of the time to compile.
    schedule = {"item_item": 1, "user_item": 1}
    same = kill_and_resume.check(
        tmp_path, steps=14, kills=2, seed=1, cache_dir=cache_dir, schedule=schedule
    )
    printed = capsys.readouterr().out
    assert same, printed
    assert printed.count("equal to the bit") == 2 and printed.count("killed at step") == 4
