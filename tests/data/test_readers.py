"""Reader processes make the batches that a thread makes, in its order, and end with the trainer."""

import collections
import os
import pathlib
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from ilm_jax.cf.table_set import Block, BlockRows
from ilm_jax.data.sources import toy
from ilm_jax.data.sources.prepare import catalogue_dir
from ilm_jax.data.streams import readers as module
from ilm_jax.data.streams.dataset_config import DatasetConfig
from ilm_jax.data.streams.readers import Readers
from ilm_jax.data.streams.schedule import Positions, Schedule
from ilm_jax.errors import UserError
from ilm_jax.sharding.partitioning import MeshConfig, Partitioner
from ilm_jax.training.feeding import training_batches
from tests.tasks.test_versions import world

LENGTHS = {"inputs": 60, "targets": 24}


class Numbered:
    """Rows that say who made them."""

    def rows(self, indices):
        return {"index": np.asarray(indices), "pid": np.full(len(indices), os.getpid())}


class Refusing:
    """A source whose fourth example is wrong."""

    def rows(self, indices):
        if 3 in indices:
            raise UserError("toy: example 3 is wrong")
        return {"index": np.asarray(indices)}


class Broken:
    """A source with a fault of its own."""

    def rows(self, indices):
        return {}["index"]


class Unopened:
    """A source that does not open in another process."""

    text = "x" * 2**20  # more than a pipe holds

    def __reduce__(self):
        return _unopened, (self.text,)


def _unopened(text):
    os._exit(3)


class Dying:
    """A source whose process ends, as it does when memory is short."""

    def rows(self, indices):
        os.kill(os.getpid(), signal.SIGKILL)


def test_batches_are_those_of_a_thread_and_come_in_the_same_order(tmp_path):
    world().catalogue.save(catalogue_dir("toy", tmp_path), {"builder": toy.VERSION})
    blocks = {"toy/item": Block(0, 1000, 1024), "toy/user": Block(1024, 1000, 1024)}
    rows = BlockRows(blocks)
    feeds = {
        kind: DatasetConfig(task, LENGTHS, dataset="toy", cache_dir=tmp_path, **how).build(rows)
        for kind, task, how in (
            ("texts", "long_description", {"pack": 4, "truncate_targets": True}),
            ("items", "sequential_random", {}),
        )
    }
    schedule = Schedule({"texts": 1, "items": 1})
    one = Partitioner(MeshConfig(1), devices=tuple(jax.devices()[:1]))

    def batches(readers):
        cut = collections.Counter()
        for feed in feeds.values():
            feed.counts.clear()
        return [
            (kind, {name: np.asarray(x) for name, x in batch.items()}, after, dict(cut))
            for kind, batch, after in training_batches(
                feeds, schedule, Positions({}), 0, 12, 4, one, readers=readers, cut=cut
            )
        ]

    ours, theirs = batches(0), batches(2)
    # What is cut is counted up to the batch that is had, whoever reads ahead.
    counts = [cut for *_, cut in ours]
    assert (
        counts == [cut for *_, cut in theirs] and 0 < counts[5]["targets"] < counts[-1]["targets"]
    )
    ours, theirs = ([made[:3] for made in side] for side in (ours, theirs))
    assert [kind for kind, _, _ in ours] == [kind for kind, _, _ in theirs]
    assert [after for _, _, after in ours] == [after for _, _, after in theirs]
    for (_, left, _), (_, right, _) in zip(ours, theirs, strict=True):
        assert left.keys() == right.keys()
        for name in left:
            np.testing.assert_array_equal(left[name], right[name], err_msg=name)


def test_several_processes_read_and_what_is_wrong_with_an_example_arrives():
    readers = Readers({"some": Numbered(), "other": Refusing(), "broken": Broken()}, 2)
    try:
        asked = [readers.submit("some", np.arange(4 * n, 4 * n + 4)) for n in range(40)]
        made = [rows() for rows in asked]
        assert [rows["index"].tolist() for rows in made] == np.arange(160).reshape(40, 4).tolist()
        by = {int(pid) for rows in made for pid in rows["pid"]}
        assert len(by) == 2 and os.getpid() not in by
        with pytest.raises(UserError, match=r"^toy: example 3 is wrong$"):
            readers.submit("other", np.arange(4))()
        with pytest.raises(RuntimeError, match=r"(?s)in a reader process:.*KeyError: 'index'"):
            readers.submit("broken", np.arange(4))()
        for pid in by:  # a terminal and a scheduler send them to every process
            os.kill(pid, signal.SIGINT)
            os.kill(pid, signal.SIGTERM)
        for _ in range(20):
            assert readers.submit("other", np.arange(3))()["index"].tolist() == [0, 1, 2]
            time.sleep(0.01)
    finally:
        readers.close()


def test_a_process_that_ends_and_examples_that_stay_here_are_one_message(monkeypatch):
    for source in (Dying(), Unopened()):
        with pytest.raises(UserError, match="a reader process ended .* TrainerConfig.readers"):
            readers = Readers({"some": source}, 1)
            readers.submit("some", np.arange(2))()
    readers.close()
    monkeypatch.setattr(module, "_serve", os._exit)  # as where it cannot import what it needs
    with pytest.raises(UserError, match="a reader process ended"):
        Readers({"some": Unopened()}, 2)
    with pytest.raises(UserError, match="readers = 2: the examples cannot be read in another"):
        Readers({"some": lambda indices: indices}, 2)


KILLED = """
import os, signal
import jax
import numpy as np
from ilm_jax.data.streams import readers as module
from ilm_jax.data.streams.readers import Readers


class Numbered:
    def rows(self, indices):
        return {"pid": np.full(len(indices), os.getpid())}


if __name__ == "__main__":
    readers = Readers({"some": Numbered()}, 1)
    print(readers.submit("some", np.arange(1))()["pid"][0], flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_no_reader_outlives_a_killed_trainer(tmp_path):
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    env = {**os.environ, "PYTHONPATH": os.getcwd()}
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, env=env) as trainer:
        assert trainer.stdout is not None
        reader = pathlib.Path(f"/proc/{int(trainer.stdout.readline())}")
        assert trainer.wait() == -signal.SIGKILL
        deadline = time.monotonic() + 20
        while reader.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        survived = reader.exists()
        if survived:
            os.kill(int(reader.name), signal.SIGKILL)
    assert not survived
