"""A module of one's own is found where the verb is called, by --import and by a recipe alike."""

import sys

import pytest

from ilm_jax import user_modules
from ilm_jax.cli import main as cli
from ilm_jax.data.examples.task_families import TASK_FAMILIES

MODULE = """
import ilm_jax
from ilm_jax.data.examples.task_families import TaskFamily

ilm_jax.register_task_family(TaskFamily({name!r}, ()))
"""
RECIPE = """
from __gin__ import dynamic_registration
import {name}
include "runs/base.gin"
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder of which Python knows nothing, and registries that forget."""
    monkeypatch.setattr(TASK_FAMILIES, "_entries", dict(TASK_FAMILIES._entries))
    monkeypatch.setattr(user_modules, "_noted", {})
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.startswith(("found_by", "user_module_")):
            del sys.modules[name]


def test_by_a_recipe(here, capsys):
    (here / "found_by_recipe.py").write_text(MODULE.format(name="by_recipe"))
    (here / "own.gin").write_text(RECIPE.format(name="found_by_recipe"))
    assert cli.main(["train", "--gin_file=own.gin"]) == 2
    assert "MODEL_DIR has no value" in capsys.readouterr().err
    assert "by_recipe" in TASK_FAMILIES and user_modules.words() == ["--import=found_by_recipe"]


def test_by_a_flag_as_a_name_or_as_a_file(here, capsys):
    (here / "found_by_flag.py").write_text(MODULE.format(name="by_flag"))
    (here / "file.py").write_text(MODULE.format(name="by_file"))
    words = ["--import=found_by_flag", "--import=file.py", "--dataset=none"]
    assert cli.main(["inspect", *words]) == 2
    assert "no dataset 'none'" in capsys.readouterr().err
    assert {"by_flag", "by_file"} <= set(TASK_FAMILIES)
    # The process that caches runs elsewhere, perhaps: a file is handed on by its whole path.
    assert user_modules.words() == ["--import=found_by_flag", f"--import={here / 'file.py'}"]


def test_a_name_that_is_taken_is_one_line(here, capsys):
    (here / "found_by_flag.py").write_text(MODULE.format(name="knowledge"))
    assert cli.main(["inspect", "--import=found_by_flag", "--dataset=toy"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and "there is a task family 'knowledge' already" in lines[0]
