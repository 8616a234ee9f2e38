"""Two processes of `ilm train` in one MODEL_DIR: one is refused; a killed one bars nobody."""

import os
import pathlib
import subprocess
import sys
import time

import pytest

from tests.cli import small_world

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def train(tmp_path):
    """Starts `ilm train` of stage 0 on a small world."""
    small_world.save_world(tmp_path)
    started = []

    def start(steps):
        words = [
            "train",
            "--gin_file=tiny/stage0.gin",
            f"--gin.MODEL_DIR={tmp_path / 'run'}",
            f"--gin.CACHE_DIR={tmp_path / 'cache'}",
            *small_world.SMALL,
            *small_world.DECODER,
            f"--gin.TRAIN_STEPS={steps}",
            "--gin.checkpoints.CheckpointConfig.every=2",
        ]
        process = subprocess.Popen(
            [sys.executable, "-m", "ilm_jax", *words],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "XLA_FLAGS": ""},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_a_second_run_is_refused_and_a_killed_ones_place_is_taken_at_once(train, tmp_path):
    first = train(100_000)
    limit = time.monotonic() + 240
    while not (tmp_path / "run/checkpoints/2").exists():
        assert first.poll() is None and time.monotonic() < limit
        time.sleep(0.1)
    second = train(100_000)
    said = second.communicate()[1].splitlines()
    assert second.returncode == 2 and len(said) == 1
    assert f"is being written by `ilm train`, process {first.pid} on " in said[0]
    first.kill()
    third = train(100_000)
    before = []
    while "resumed at step" not in (line := third.stderr.readline()):
        assert line, before
        before.append(line)
    assert not any("sign of its life" in line for line in before)
