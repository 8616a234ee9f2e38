"""A MODEL_DIR in a bucket: nothing is appended there, and objects appear whole or not at all."""

import pathlib

import pytest

from ilm_jax import files
from ilm_jax.training import writers


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    """gs://… is a folder here; objects have no rename and no append."""

    class Object(type(pathlib.Path())):
        def open(self, mode="r", *args, **kwargs):
            assert "a" not in mode
            return super().open(mode, *args, **kwargs)

    def folder_path(path):
        return Object(str(path).replace("gs://bucket", str(tmp_path)))

    for module in (files, writers):
        monkeypatch.setattr(module, "folder_path", folder_path)
        monkeypatch.setattr(module, "is_remote", lambda path: True)
    return tmp_path


def test_names_of_buckets_are_known():
    assert files.is_remote("gs://b/run") and not files.is_remote("/gs/run")
    assert files.folder_path("run").is_absolute()


def test_an_object_is_written_when_its_block_succeeds(bucket):
    with files.atomic_write("gs://bucket/a.txt") as stream:
        stream.write("whole")
    assert (bucket / "a.txt").read_text() == "whole"
    with files.atomic_write("gs://bucket/a.txt", "wb") as stream:
        stream.write(b"new")
    with pytest.raises(KeyError), files.atomic_write("gs://bucket/a.txt") as stream:
        stream.write("half")
        raise KeyError
    assert (bucket / "a.txt").read_text() == "new" and len(list(bucket.iterdir())) == 1


TENSORBOARD: dict[str, dict] = {"tensorboard": {}}


def test_metrics_are_written_anew_and_resumed(bucket, monkeypatch):
    monkeypatch.setattr("tensorboardX.SummaryWriter", lambda *a, **k: _Board())
    writer = writers.MetricWriters(writers.WriterRun("gs://bucket"), TENSORBOARD)
    for step in (1, 2, 3):
        writer.write(step, {"loss": step})
    writer.close()
    assert [r["step"] for r in writers.read_metrics("gs://bucket/metrics.jsonl")] == [1, 2, 3]
    monkeypatch.setattr(writers, "REMOTE_PERIOD", -1.0)
    again = writers.MetricWriters(writers.WriterRun("gs://bucket", 2), TENSORBOARD)
    again.write(3, {"loss": 9})  # before it is closed
    records = writers.read_metrics("gs://bucket/metrics.jsonl")
    assert [(r["step"], r["loss"]) for r in records] == [(1, 1), (2, 2), (3, 9)]


class _Board:
    def add_scalar(self, *_):
        pass

    def close(self):
        pass
