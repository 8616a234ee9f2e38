"""One small run of stage 2, trained once for all test processes, and how tests ask it."""

import functools
import json
import os
import pathlib

from ilm_jax.cli import main as cli
from ilm_jax.data.catalogue.catalogue import Catalogue
from ilm_jax.locks import taking_turns
from tests.cli import small_world
from tests.cli.small_world import DECODER

LENGTHS = '--gin.TASK_FEATURE_LENGTHS={"inputs": 240, "targets": 60}'


@functools.cache
def trained_run() -> tuple[pathlib.Path, Catalogue, pathlib.Path]:
    """(folder, catalogue, folder of a run of stage 2 of one step)."""
    root = pathlib.Path(os.environ["ILM_TESTS_SHARED"]) / "trained"
    with taking_turns(root.with_name("trained.lock")):
        if not (done := root.with_name("trained.done")).exists():
            _train(root)
            done.touch()
    return root, small_world.rated_catalogue(), root / "2"


def _train(root: pathlib.Path) -> None:
    root.mkdir(exist_ok=True)
    small_world.save_world(root)
    assert small_world.train(root, "stage0", "0", *DECODER) == 0
    words = (*DECODER, f"--gin.LM_FROM={root}/0", LENGTHS, f"--gin.CF_TABLE={root}/cf.safetensors")
    assert small_world.train(root, "stage2_mlp", "2", *words) == 0


def run(*words):
    assert cli.main([str(word) for word in words]) == 0


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def refused(capsys, *words):
    capsys.readouterr()
    assert cli.main([str(word) for word in words]) == 2
    return capsys.readouterr().err.splitlines()[-1]
