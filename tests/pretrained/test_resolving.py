"""What a model may be called, and what is said where nothing is."""

import pathlib

import pytest

from ilm_jax.checkpoints.published.sources import open_source
from ilm_jax.data.tokenizers import open_tokenizer_at
from ilm_jax.errors import UserError
from ilm_jax.pretrained import buckets, is_named, resolve


def test_paths_are_given_back_as_they_are(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert resolve("a/b") == "a/b" and resolve("~/a") == str(tmp_path / "a")
    assert resolve(pathlib.Path("/a/b")) == "/a/b"
    assert is_named("pkg://a") and is_named("hf:/a/b") and not is_named("/pkg/a")


def test_what_was_tried_is_said():
    for opened in (open_source, open_tokenizer_at):
        with pytest.raises(UserError, match=r"tried /.*/owner/name; give a folder, FILE.gguf, hf"):
            opened("owner/name")
    with pytest.raises(UserError, match="of the Hugging Face hub it is hf://owner/name"):
        open_source("owner/name")
    with pytest.raises(UserError, match="s3://a: no such kind of source: give a folder"):
        open_source("s3://a")


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    """gs://bucket is a folder here."""

    def place(path):
        return tmp_path / "bucket" / str(path).removeprefix("gs://bucket").lstrip("/")

    monkeypatch.setattr(buckets, "folder_path", place)
    monkeypatch.setattr(buckets, "is_there", lambda path: place(path).exists())
    monkeypatch.setenv("ILM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "bucket"


def test_a_buckets_files_are_copied_once_and_again_when_they_change(bucket):
    (bucket / "m").mkdir(parents=True)
    (bucket / "m" / "model.safetensors").write_bytes(b"weights")
    (bucket / "m" / "pytorch_model.bin").write_bytes(b"pickle")
    folder = pathlib.Path(resolve("gs://bucket/m"))
    assert [file.name for file in folder.iterdir()] == ["model.safetensors"]
    stamp = (folder / "model.safetensors").stat().st_mtime_ns
    assert resolve("gs://bucket/m/") == str(folder)
    assert (folder / "model.safetensors").stat().st_mtime_ns == stamp
    (bucket / "m" / "model.safetensors").write_bytes(b"other weights")
    resolve("gs://bucket/m")
    assert (folder / "model.safetensors").read_bytes() == b"other weights"


def test_a_buckets_conversion_is_copied_whole_and_a_run_is_not(bucket):
    (bucket / "c" / "checkpoints" / "0").mkdir(parents=True)
    (bucket / "c" / "checkpoints" / "0" / "x").write_bytes(b"1")
    with pytest.raises(UserError, match="gs://bucket/c is the MODEL_DIR of a run"):
        resolve("gs://bucket/c")
    (bucket / "c" / "conversion.json").write_text("{}")
    folder = pathlib.Path(resolve("gs://bucket/c"))
    assert (folder / "checkpoints" / "0" / "x").read_bytes() == b"1"
    with pytest.raises(UserError, match="nothing at gs://bucket/none"):
        resolve("gs://bucket/none")
