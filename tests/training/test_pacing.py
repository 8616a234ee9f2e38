"""The loop waits: at most two steps are under way, whatever the log's period."""

import os
import subprocess
import sys

import pytest

from ilm_jax.training import pacing
from ilm_jax.training.pacing import Pacer
from tests.training.small import make_trainer


class Program:
    """What a dispatched program returns; done once it is waited for."""

    under_way, most = 0, 0

    def __init__(self):
        Program.under_way += 1
        Program.most = max(Program.most, Program.under_way)

    def block_until_ready(self):
        Program.under_way -= 1


def test_at_most_two_programs_are_under_way():
    pacer = Pacer()
    for _ in range(10):
        pacer(Program, lambda program: program)
    assert (Program.most, Program.under_way) == (2, 2)


def test_a_run_keeps_two_steps_and_two_batches_of_validation_under_way(tmp_path, monkeypatch):
    waited, made, most = [0], [0], [0]
    wait, call = pacing.jax.block_until_ready, Pacer.__call__

    def counted(pacer, program, watched):
        def dispatched():
            made[0] += 1
            most[0] = max(most[0], made[0] - waited[0])
            return program()

        return call(pacer, dispatched, watched)

    def waiting(outputs):
        waited[0] += 1
        return wait(outputs)

    monkeypatch.setattr(Pacer, "__call__", counted)
    monkeypatch.setattr(pacing.jax, "block_until_ready", waiting)
    trainer = make_trainer(tmp_path, steps=12, config={"log_every": 50, "eval_every": 0})
    trainer.eval_sources = {"plain": (trainer.eval_sources["plain"][0], 80)}
    trainer.fit()
    assert made[0] == 12 + 10  # the pacers of steps and of validation leave two each
    assert most[0] <= 2 + 2 and waited[0] == 10 + 8


def growth(*arguments):
    """What `large_steps` prints: MiB of its peak above what it began with."""
    command = [sys.executable, "-m", "tests.training.large_steps", *map(str, arguments)]
    environment = {**os.environ, "XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"}
    found = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return int(found.stdout.split()[-1])


@pytest.mark.slow
def test_a_run_that_is_large_beside_its_machine_takes_two_steps_memory(tmp_path):
    assert growth(tmp_path, 20, 128, 640) < 3 * 128


@pytest.mark.slow
def test_memory_is_flat_over_a_hundred_steps_with_a_gigabyte_each(tmp_path):
    assert growth(tmp_path, 100, 1024, 4096) < 3 * 1024
