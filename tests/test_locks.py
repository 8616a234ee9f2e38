"""One folder, one writer: real processes, also killed, stopped, on another host, in a bucket."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from ilm_jax import lock_holder, locks
from ilm_jax.errors import UserError
from ilm_jax.locks import NAME, one_writer

HOLD = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a parent in the background ignores it
from ilm_jax.errors import UserError
from ilm_jax.locks import one_writer
try:
    with one_writer(sys.argv[1], "ilm train", lease=float(sys.argv[2])):
        print("held", flush=True)
        time.sleep(float(sys.argv[3]))
except UserError as error:
    sys.exit(f"refused: {error}")
"""


@pytest.fixture
def hold():
    """Starts a process that takes the lock, and waits until it has."""
    started = []

    def start(folder, seconds=60.0, lease=2.0, wait=True):
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(folder), str(lease), str(seconds)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        if wait:
            assert process.stdout.readline() == "held\n", process.communicate()
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def elsewhere(file):
    """Makes the lock one of a machine that is not this one."""
    holder = json.loads(file.read_text())
    file.write_text(json.dumps({**holder, "host": "far", "boot": "of another machine"}))


def test_a_second_writer_is_refused_and_told_who_writes(tmp_path, hold):
    first = hold(tmp_path / "run")
    said = rf"`ilm train`, process {first.pid} on .* since \d{{4}}-.*wait until .*another folder"
    with pytest.raises(UserError, match=said), one_writer(tmp_path / "run", "ilm train"):
        pass
    (tmp_path / "name").symlink_to(tmp_path / "run")
    with pytest.raises(UserError, match=said), one_writer(tmp_path / "name", "ilm train"):
        pass


def test_a_killed_writers_lock_is_taken_at_once(tmp_path, hold):
    first = hold(tmp_path, lease=60.0)
    first.kill()  # and not waited for: a zombie writes nothing
    time.sleep(0.1)
    start = time.monotonic()
    with one_writer(tmp_path, "ilm train"):
        assert time.monotonic() - start < 1
        assert json.loads((tmp_path / NAME).read_text())["pid"] == os.getpid()
    assert not (tmp_path / NAME).exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_releases_the_lock_and_ends_the_process_as_ever(tmp_path, hold, number):
    first = hold(tmp_path)
    first.send_signal(number)
    first.wait()
    assert first.returncode == -number and not (tmp_path / NAME).exists()


def test_a_stopped_process_still_holds_its_lock_here(tmp_path, hold):
    first = hold(tmp_path, lease=0.5)
    first.send_signal(signal.SIGSTOP)
    time.sleep(1.0)
    with pytest.raises(UserError, match=f"process {first.pid}"), one_writer(tmp_path, "x"):
        pass


def test_a_number_that_was_given_again_is_another_process(tmp_path, hold):
    first = hold(tmp_path)
    first.kill()
    first.wait()
    holder = json.loads((tmp_path / NAME).read_text())
    (tmp_path / NAME).write_text(json.dumps({**holder, "pid": os.getpid()}))
    with one_writer(tmp_path, "ilm train"):
        pass


def test_a_lock_from_elsewhere_is_refused_while_its_counter_rises(tmp_path, hold, monkeypatch):
    hold(tmp_path, lease=1.2)
    monkeypatch.setattr(lock_holder.Holder, "lives", lambda self: None)  # seen from another machine
    start = time.monotonic()
    with pytest.raises(UserError, match="is being written by"), one_writer(tmp_path, "x"):
        pass
    assert time.monotonic() - start < 1.2


def test_a_lock_from_elsewhere_that_stands_still_is_taken_after_its_lease(tmp_path, hold, capfd):
    first = hold(tmp_path, lease=1.0)
    first.kill()
    first.wait()
    elsewhere(tmp_path / NAME)
    start = time.monotonic()
    with one_writer(tmp_path, "x", lease=50.0):  # the lease of the one who held it counts
        assert 1.0 <= time.monotonic() - start < 3
    said = capfd.readouterr().err
    assert said.count("\n") == 1 and "on far since" in said and "at most 1 s" in said


def test_the_time_of_day_neither_steals_nor_blocks(tmp_path, hold, monkeypatch):
    monkeypatch.setattr(time, "time", lambda: 0.0)  # 1970
    first = hold(tmp_path)
    os.utime(tmp_path / NAME, (0, 0))
    with pytest.raises(UserError, match=f"process {first.pid}"), one_writer(tmp_path, "x"):
        pass
    first.kill()
    os.utime(tmp_path / NAME, (2**33, 2**33))  # 2242
    with one_writer(tmp_path, "x"):
        pass


def test_a_writer_that_was_taken_for_dead_ends_instead_of_writing_on(tmp_path, hold):
    first = hold(tmp_path, lease=0.6)
    first.send_signal(signal.SIGSTOP)
    elsewhere(tmp_path / NAME)
    with one_writer(tmp_path, "x", lease=0.6):
        first.send_signal(signal.SIGCONT)
        assert first.wait(timeout=10) == 2
        assert "written by another process" in first.stderr.read()
        time.sleep(0.3)  # several signs of life of ours
        assert json.loads((tmp_path / NAME).read_text())["pid"] == os.getpid()


@pytest.mark.parametrize("stale", [False, True])
def test_of_many_that_come_at_once_one_gets_the_lock(tmp_path, hold, stale):
    if stale:
        hold(tmp_path).kill()
    several = [hold(tmp_path, seconds=30, wait=False) for _ in range(6)]
    time.sleep(0.1)
    limit = time.monotonic() + 30
    while sum(p.poll() is not None for p in several) < 5 and time.monotonic() < limit:
        time.sleep(0.05)
    (one,) = [p for p in several if p.poll() is None]
    others = [p.communicate()[1] for p in several if p is not one]
    assert all(f"refused: {tmp_path} is being written" in said for said in others)
    assert json.loads((tmp_path / NAME).read_text())["pid"] == one.pid


def test_a_bucket_has_one_writer_too(tmp_path, hold):
    bucket = f"file://{tmp_path}/bucket/run"  # an object store for TensorStore
    first = hold(bucket, lease=1.0)
    with pytest.raises(UserError, match=f"process {first.pid}"), one_writer(bucket, "x"):
        pass
    first.kill()
    with one_writer(bucket, "x"):
        assert (tmp_path / "bucket/run" / NAME).exists()
    assert not (tmp_path / "bucket/run" / NAME).exists()


def test_where_nothing_can_be_locked_it_is_said(capfd):
    with one_writer("az://bucket/run", "x"):
        pass
    assert "az:// has no locks" in capfd.readouterr().err


def test_a_file_has_its_lock_beside_it_and_nothing_stays(tmp_path):
    with one_writer(tmp_path / "deep" / "answers.jsonl", "ilm infer", beside=True):
        assert [f.name for f in (tmp_path / "deep").iterdir()] == [".answers.jsonl" + NAME]
    assert not list(tmp_path.iterdir())  # folders that stayed empty go as well


def test_a_lock_of_nobody_knows_whom_is_waited_for_and_taken(tmp_path, monkeypatch):
    (tmp_path / NAME).write_text("{rubbish")
    with one_writer(tmp_path, "x", lease=0.3):
        assert json.loads((tmp_path / NAME).read_text())["what"] == "x"


def test_one_process_may_ask_twice(tmp_path):
    with one_writer(tmp_path, "outer"), one_writer(tmp_path, "inner"):
        pass
    assert not list(tmp_path.iterdir())


def test_a_lock_that_was_removed_by_hand_comes_back_and_a_removed_folder_does_not(tmp_path):
    with one_writer(tmp_path / "run", "x", lease=0.6):
        (tmp_path / "run" / NAME).unlink()
        time.sleep(0.4)
        assert (tmp_path / "run" / NAME).exists()
        (tmp_path / "run" / NAME).unlink()
        (tmp_path / "run").rmdir()
        time.sleep(0.4)
        assert not (tmp_path / "run").exists()
    assert locks._held == set()
