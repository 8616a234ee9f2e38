"""Any number of processes write the same caches, and go on where others stopped."""

import dataclasses
import pathlib

import pytest

from ilm_jax.cli import cache_tasks
from ilm_jax.data.sources import toy
from ilm_jax.data.sources.prepare import catalogue_dir
from ilm_jax.data.streams import task_cache
from ilm_jax.errors import UserError
from ilm_jax.tasks.caching import Caching, run_pool, write_part
from tests.data.small_catalogue import small_catalogue
from tests.tasks.planned import contents, planned

KILLING = pathlib.Path(__file__).with_name("killing_module.py")


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(task_cache, "RECORDS_PER_PART", 40)


def whole(folder):
    """What one process writes."""
    plan = planned(folder)
    plan.open().finish(plan.jobs())
    return contents(folder)


def test_parts_in_any_order_are_the_same_bytes(tmp_path, monkeypatch):
    wanted = whole(tmp_path / "one")
    plan = planned(tmp_path / "many")
    caching, jobs = plan.open(), plan.jobs()
    parts = caching.missing(jobs)
    assert len(parts) >= 8
    for part in reversed(parts):
        write_part(plan, part)
    assert not caching.missing(jobs)
    monkeypatch.setattr(Caching, "write", None)  # nothing is left for whoever finishes
    caching.finish(jobs)
    assert contents(tmp_path / "many") == wanted


def test_what_was_left_undone_is_finished_and_nothing_else(tmp_path, monkeypatch):
    wanted = whole(tmp_path / "one")
    plan = planned(tmp_path / "broken")
    caching, jobs = plan.open(), plan.jobs()
    parts = caching.missing(jobs)
    for part in parts[1::3]:
        write_part(plan, part)
    assert set(caching.missing(jobs)) == set(parts) - set(parts[1::3])
    written = []
    write = task_cache.write_part
    monkeypatch.setattr(
        task_cache, "write_part", lambda path, *rest: [written.append(path), write(path, *rest)]
    )
    caching.finish(jobs)
    assert contents(tmp_path / "broken") == wanted
    assert len(written) == len(parts) - len(parts[1::3])


def test_a_process_without_the_catalogue_says_so(tmp_path):
    plan = planned(tmp_path / "one")
    part = plan.open().missing(plan.jobs())[0]
    elsewhere = dataclasses.replace(plan, cache_dir=str(tmp_path / "none"))
    with pytest.raises(UserError, match="no catalogue of toy: whoever writes its caches sees"):
        write_part(elsewhere, part)


@pytest.mark.slow
def test_a_pool_writes_the_same_bytes_a_killed_process_notwithstanding(tmp_path, monkeypatch):
    wanted = whole(tmp_path / "one")
    mark = tmp_path / "mark"
    mark.touch()
    monkeypatch.setenv("ILM_TEST_KILL", str(mark))
    plan = planned(tmp_path / "pool", [str(KILLING)])
    caching, jobs = plan.open(), plan.jobs()
    with pytest.raises(UserError, match="was killed .* run this again"):
        run_pool(plan, caching.missing(jobs), 2)
    assert not mark.exists() and caching.missing(jobs)
    run_pool(plan, caching.missing(jobs), 2)
    assert not caching.missing(jobs)
    caching.finish(jobs)
    assert contents(tmp_path / "pool") == wanted


@pytest.mark.slow
def test_the_verb_runs_processes_and_finishes(tmp_path, capsys):
    small_catalogue().save(catalogue_dir("toy", tmp_path), {"builder": toy.VERSION})
    words = [f"--cache_dir={tmp_path}", "--tasks=bpr,item_item", "--nowith_text_only"]
    cache_tasks.main([*words, "--workers", "2"])
    printed = capsys.readouterr()
    assert "knowledge_toy_bpr" in printed.out and "cache: toy/2 processes: " in printed.err


def test_processes_and_a_beam_runner_are_not_mixed(tmp_path):
    for words, message in (
        (["--workers=2", "--beam_runner=DirectRunner"], "a Beam runner has its own"),
        (["--beam_options=--x"], "name one"),
    ):
        with pytest.raises(UserError, match=message):
            cache_tasks.main([f"--cache_dir={tmp_path}", *words])
