"""A task family of one file from outside the package is cached, and named by a recipe."""

import importlib
import json
import os
import pathlib
import subprocess
import sys
import textwrap

import pytest

from ilm_jax import user_modules
from ilm_jax.data.examples.settings_json import settings_from
from ilm_jax.data.examples.task_families import TASK_FAMILIES, find_spec, register_task_family
from ilm_jax.data.examples.task_keys import reads, slots_at_most
from ilm_jax.data.sources import toy
from ilm_jax.data.sources.prepare import catalogue_dir
from ilm_jax.data.sources.registry import DATASETS
from ilm_jax.errors import UserError
from ilm_jax.runs import gin_config
from ilm_jax.runs.run import Run
from ilm_jax.tasks.corpus import CorpusSettings
from tests.data.small_catalogue import small_catalogue

EXAMPLES = pathlib.Path(__file__).parents[2] / "examples"
FILE = EXAMPLES / "own_task.py"

# A dataset of ten users in a format that nobody else has, and a task in one line.
OWN_MODULE = """
    import dataclasses
    import own_task
    from ilm_jax.data.examples.task_families import TaskFamily, register_task_family
    from ilm_jax.data.sources.assemble import from_sequences
    from ilm_jax.data.sources.dataset_source import DatasetSource
    from ilm_jax.data.sources.registry import register_dataset


    def read(folder, dataset):
        lines = open(f"{folder}/baskets.txt").read().split("\\n")
        rows = [line.split(": ") for line in lines if line]
        return from_sequences(dataset, "1.0.0", {user: items.split("+") for user, items in rows})


    register_dataset(DatasetSource("orchard", "1.0.0", read, pattern="[a-z]*"))
    task = dataclasses.replace(own_task.FIRST, family="second")
    register_task_family(TaskFamily("second", (task,), own_task.MemorySettings))
"""
RECIPE = """
    from __gin__ import dynamic_registration
    import own_module
    from ilm_jax.data.examples import task_settings
    include "tiny/stage0.gin"
    DATASET = "orchard/old"
    MIXTURE_OR_TASK_NAME = "second/first"
    TASK_FEATURE_LENGTHS = {"inputs": 96, "targets": 24}
    HELD_OUT_ITEMS = 0
    task_settings.TaskSettings.mention_history = "id"
"""
OWN_SETTINGS = """
    from __gin__ import dynamic_registration
    import own_task
    include "tiny/stage0.gin"
    MIXTURE_OR_TASK_NAME = "first"
    FAMILY_SETTINGS = (@own_task.MemorySettings(),)
    own_task.MemorySettings.shown = 2
"""


@pytest.fixture
def forgotten(monkeypatch):
    """Registries and modules as if nothing of this file had been imported."""
    for registry in (TASK_FAMILIES, DATASETS):
        monkeypatch.setattr(registry, "_entries", dict(registry._entries))
    monkeypatch.setattr(user_modules, "_noted", {})
    monkeypatch.setattr(user_modules, "_files", {})
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name in ("own_task", "own_module"):
            del sys.modules[name]


def own_task(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return importlib.import_module("own_task")


@pytest.mark.slow
def test_the_script_reads_its_task_and_prints_two_examples(tmp_path):
    small_catalogue().save(catalogue_dir("toy", tmp_path), {"builder": toy.VERSION})
    done = subprocess.run(
        [sys.executable, str(FILE), "--cache_dir", str(tmp_path)],
        text=True,
        capture_output=True,
        timeout=300,
    )
    assert not done.returncode, done.stderr
    assert not (tmp_path / "tasks").exists()
    printed = done.stdout.splitlines()
    assert len(printed) == 2
    for line in printed:
        prompt, _, answer = line.partition(" -> toy ")
        assert prompt.count("item_") == 4 and answer in prompt


def test_an_import_alone_makes_the_family_known(forgotten, monkeypatch):
    module = own_task(monkeypatch)
    assert find_spec("toy", "first") is find_spec("toy", "memory_toy_first") is module.FIRST
    settings = settings_from({"history": 2, "memory": {"shown": 4}})
    assert settings.of(module.MemorySettings).shown == 4
    assert slots_at_most(module.FIRST, settings) == 4
    assert {"memory.shown", "history", "mention_history"} <= set(reads(module.FIRST))
    assert user_modules.words() == ["--import=own_task"]
    assert str(EXAMPLES) in user_modules.environment()["PYTHONPATH"].split(os.pathsep)
    with pytest.raises(UserError, match="setting of memory 'shwon' does not exist"):
        settings_from({"memory": {"shwon": 4}})


def test_a_recipe_sets_its_settings_beside_ours(forgotten, monkeypatch, tmp_path):
    module = own_task(monkeypatch)
    (tmp_path / "own.gin").write_text(textwrap.dedent(OWN_SETTINGS))
    run = gin_config.build(Run, [str(tmp_path / "own.gin")], ["MODEL_DIR='/nowhere'"])
    dataset = run.train["prompt"]
    assert dataset.settings.of(module.MemorySettings).shown == 2
    assert dataset.settings.of(CorpusSettings).word_variants == 8  # tiny/data.gin
    ((name, task),) = dataset.record()["tasks"].items()
    assert name == "memory_toy_first" and task["settings"]["memory.shown"] == 2


def test_another_family_under_the_same_name_is_refused(forgotten, monkeypatch):
    module = own_task(monkeypatch)
    register_task_family(TASK_FAMILIES["memory"])  # the same one may come again
    other = type(TASK_FAMILIES["memory"])("memory", (), module.MemorySettings)
    with pytest.raises(UserError, match="there is a task family 'memory' already"):
        register_task_family(other)
    assert TASK_FAMILIES["memory"].specs == (module.FIRST,)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_recipes_import_reaches_the_processes_that_prepare_and_cache(
    forgotten, monkeypatch, tmp_path, workers
):
    (tmp_path / "own_module.py").write_text(textwrap.dedent(OWN_MODULE))
    (tmp_path / "own.gin").write_text(textwrap.dedent(RECIPE))
    raw = tmp_path / "raw"
    raw.mkdir()
    rows = (f"u{u}: " + "+".join(f"fruit{(u * 3 + k) % 15}" for k in range(8)) for u in range(10))
    (raw / "baskets.txt").write_text("\n".join(rows))
    own_task(monkeypatch)
    monkeypatch.syspath_prepend(str(tmp_path))
    words = [f"MODEL_DIR={tmp_path / 'run'}", f"DATA_DIR={raw}", f"CACHE_DIR={tmp_path / 'cache'}"]
    words += ["USE_CACHED_TASKS=True"] if workers > 1 else []
    run = gin_config.build(Run, [str(tmp_path / "own.gin")], words)
    if workers > 1:
        from ilm_jax.cli import main as cli

        settings = {
            "mention_history": "id",
            "history": 5,
            "split": {"held_out_items": 0},
            "corpus": {"sequential_examples": 1500, "word_variants": 8},
        }
        assert not cli.main(
            [
                "cache_tasks",
                "--dataset=orchard/old",
                f"--data_dir={raw}",
                f"--cache_dir={tmp_path / 'cache'}",
                "--tasks=second",
                "--import=own_module",
                "--nowith_text_only",
                "--workers=2",
                f"--settings={json.dumps(settings)}",
            ]
        )
        monkeypatch.setattr(subprocess, "Popen", None)  # all is there
    feed = run.feed(run.train["prompt"])
    assert feed.stream[0]["task"] == "second_orchard_old_first"
    assert feed.stream[0]["target_text"].startswith("old item_")
    # What the run writes down opens it again.
    text = gin_config.operative_config()
    assert "import own_module" in text.splitlines()
