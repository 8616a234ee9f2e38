"""Real processes, joined as a pod's hosts are: the same numbers, one stop, no silent hang."""

import os
import signal
import time

import jax
import numpy as np
import pytest

from launch import local_pod
from launch.kill_and_resume import arrays, last_logged
from tests.training import models
from tests.training.one_of_several import trainer

MODULE = "tests.training.one_of_several"
EIGHT = (2, 2, 2)
# Rows split over fsdp alone, which lies inside a process: each process reads every row.
WHOLE = (1, 4, 2)


@pytest.fixture(autouse=True)
def compile_once(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.getbasetemp() / "compiled"
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(folder))
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def start(folder, steps, processes, sizes=EIGHT, seconds=0.0):
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    words = [str(folder / "run"), str(steps), ",".join(map(str, sizes)), str(seconds)]
    return local_pod.start(words, processes, 8 // processes, folder / "logs", MODULE)


def run(folder, steps, processes, sizes=EIGHT):
    assert local_pod.watch(start(folder, steps, processes, sizes), folder / "logs") == 0


def wait_for(folder, step, started):
    limit = time.monotonic() + 200
    while last_logged(folder / "run") < step:
        assert all(process.poll() is None for process in started) and time.monotonic() < limit
        time.sleep(0.1)


def examples(folder, processes):
    """The examples that all processes read, and how often; a stream is read ahead of its steps."""
    files = [folder / "run" / f"seen-{processes}-{i}.txt" for i in range(processes)]
    return [[int(n) for line in f.read_text().splitlines() for n in line.split()] for f in files]


@pytest.mark.slow
def test_two_processes_of_four_devices_equal_one_of_eight(tmp_path):
    run(tmp_path / "two", 3, 2)
    trainer(tmp_path / "one" / "run", 3, EIGHT, devices=tuple(jax.devices())).fit()
    two, one = arrays(tmp_path / "two" / "run", 3), arrays(tmp_path / "one" / "run", 3)
    assert two.keys() == one.keys() and one
    for path in one:
        np.testing.assert_allclose(two[path], one[path], rtol=1e-4, atol=2e-6, err_msg=path)
    # Each goes on from the other's checkpoint, to the same end.
    (tmp_path / "two" / "run").rename(tmp_path / "kept")
    (tmp_path / "one" / "run").rename(tmp_path / "two" / "run")
    run(tmp_path / "two", 6, 2)
    trainer(tmp_path / "kept", 6, EIGHT, devices=tuple(jax.devices())).fit()
    two, one = arrays(tmp_path / "two" / "run", 6), arrays(tmp_path / "kept", 6)
    for path in one:
        np.testing.assert_allclose(two[path], one[path], rtol=1e-4, atol=2e-6, err_msg=path)


@pytest.mark.slow
def test_every_example_once_over_four_then_two_then_four_processes(tmp_path):
    taken, steps = [], 0
    for processes in (4, 2, 4):
        for old in (tmp_path / "run").glob("seen-*"):
            old.unlink()
        steps += 2
        run(tmp_path, steps, processes, (8, 1, 1))
        parts = examples(tmp_path, processes)
        # No two processes read the same example.
        assert len({n for part in parts for n in part}) == sum(map(len, parts))
        taken += sorted(n for part in parts for n in part)
    assert taken == list(range(steps * models.ROWS))


@pytest.mark.slow
def test_where_rows_are_not_split_over_processes_each_reads_all(tmp_path):
    run(tmp_path / "whole", 2, 2, (1, 1, 8))
    for part in examples(tmp_path / "whole", 2):
        assert part == list(range(2 * models.ROWS))
    run(tmp_path / "split", 2, 2, (8, 1, 1))
    whole, split = arrays(tmp_path / "whole/run", 2), arrays(tmp_path / "split/run", 2)
    for path in whole:
        np.testing.assert_allclose(whole[path], split[path], rtol=1e-4, atol=2e-6, err_msg=path)


@pytest.mark.slow
def test_sigterm_to_one_makes_all_save_the_same_step_and_exit(tmp_path):
    started = start(tmp_path, 100_000, 2, seconds=0.1)
    wait_for(tmp_path, 4, started)
    os.kill(started[1].pid, signal.SIGTERM)
    assert local_pod.watch(started, tmp_path / "logs") == 0
    last = last_logged(tmp_path / "run")
    saved = {int(f.name) for f in (tmp_path / "run/checkpoints").iterdir() if f.name.isdigit()}
    assert max(saved) == last < 1000
    run(tmp_path, last + 1, 2)
    assert last_logged(tmp_path / "run") == last + 1


@pytest.mark.slow
def test_when_one_dies_the_others_are_ended_and_it_is_named(tmp_path, capfd):
    started = start(tmp_path, 100_000, 2, seconds=0.1)
    wait_for(tmp_path, 4, started)
    os.kill(started[1].pid, signal.SIGKILL)
    killed = time.monotonic()
    assert local_pod.watch(started, tmp_path / "logs") == 1
    assert time.monotonic() - killed < 15
    assert all(process.poll() is not None for process in started)
    assert "process 1 was killed by SIGKILL; the others were ended" in capfd.readouterr().err


def test_wrong_words_are_refused(capfd):
    assert local_pod.main(["--processes", "2"]) == 2
    assert local_pod.main(["--processes", "0", "--", "train"]) == 2
    assert "must be at least 1" in capfd.readouterr().err
