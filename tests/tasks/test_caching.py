"""Any number of workers write the same caches, and go on where others stopped."""

import subprocess
import sys

import pytest

from ilm_jax.cli import cache_tasks
from ilm_jax.data.catalogue.splits import make_splits
from ilm_jax.data.examples.task_families import spec_named
from ilm_jax.data.examples.task_settings import TaskSettings
from ilm_jax.data.sources import toy
from ilm_jax.data.sources.prepare import catalogue_dir
from ilm_jax.data.streams import task_cache
from ilm_jax.data.streams.task_tokenizer import train_tokenizer
from ilm_jax.errors import UserError
from ilm_jax.tasks.caching import Caching, share
from tests.data.small_catalogue import small_catalogue

SPLITS = make_splits(small_catalogue())
SETTINGS = TaskSettings()
TOKENIZER = train_tokenizer(SPLITS, SETTINGS)
JOBS = [(spec_named(name), SETTINGS) for name in ("sequential_random", "item_item")]


def caching(folder):
    return Caching("toy", SPLITS, TOKENIZER, folder)


def contents(folder):
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_1_3_and_8_workers_write_the_same_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(task_cache, "RECORDS_PER_PART", 40)
    found = []
    for workers in (1, 3, 8):
        shared = caching(tmp_path / str(workers))
        for worker in reversed(range(workers)):
            shared.write_parts(JOBS, worker, workers)
        if workers == 8:  # nothing is left for whoever finishes
            monkeypatch.setattr(Caching, "_write_parts", lambda *_: None)
        shared.finish(JOBS)
        found.append(contents(tmp_path / str(workers)))
    assert found[0] == found[1] == found[2]
    assert sum("array_record" in name for name in found[0]) >= 8


def test_what_a_worker_left_undone_is_finished(tmp_path, monkeypatch):
    monkeypatch.setattr(task_cache, "RECORDS_PER_PART", 40)
    whole, broken = caching(tmp_path / "a"), caching(tmp_path / "b")
    whole.finish(JOBS)
    broken.write_parts(JOBS, 1, 3)
    before = {n: c for n, c in contents(tmp_path / "b").items() if n.endswith("array_record")}
    assert before and broken.missing(JOBS)
    broken.finish(JOBS)
    assert contents(tmp_path / "a") == contents(tmp_path / "b") and not broken.missing(JOBS)


@pytest.mark.slow
def test_the_verb_runs_workers_and_finishes(tmp_path, capfd):
    small_catalogue().save(catalogue_dir("toy", tmp_path), {"builder": toy.VERSION})
    words = [f"--cache_dir={tmp_path}", "--tasks=bpr,item_item", "--nowith_text_only"]
    cache_tasks.main([*words, "--workers", "2"])
    assert "knowledge_toy_bpr" in capfd.readouterr().out
    before = contents(tmp_path / "tasks")
    done = subprocess.run([sys.executable, "-m", "ilm_jax", "cache_tasks", *words, "--worker=0/2"])
    assert not done.returncode and contents(tmp_path / "tasks") == before


@pytest.mark.parametrize("worker", ["1", "2/2", "a/b", "-1/2"])
def test_a_share_is_two_numbers(worker):
    with pytest.raises(UserError, match="give K/N"):
        share(worker)
