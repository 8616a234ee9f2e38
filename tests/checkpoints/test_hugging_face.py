"""Folders of safetensors: any slice is what the reference library gives; broken ones say what."""

import json

import ml_dtypes
import numpy as np
import pytest
import safetensors
import safetensors.numpy

from ilm_jax.checkpoints.published.hugging_face import SafetensorsFolder, Tensor, write_folder
from ilm_jax.checkpoints.published.sources import open_source
from ilm_jax.errors import UserError
from tests.checkpoints.published import LLAMA, publish, weights

TYPES = [np.float32, np.float16, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, np.int8]
INDICES = [
    (),
    (slice(2, 5),),
    (slice(None), slice(1, 3)),
    (slice(1, 4), slice(2, 2)),
    (slice(0, 6), slice(0, 4), slice(1, 2)),
    (slice(3, 4), slice(1, 3), slice(0, 3)),
]


@pytest.mark.parametrize("dtype", TYPES)
def test_slices_are_numpys_and_read_no_byte_beside(tmp_path, dtype):
    values = np.random.default_rng(0).normal(size=(6, 4, 3)).astype(dtype)
    safetensors.numpy.save_file(
        {"a": values, "b": np.float32([1.0])}, tmp_path / "model.safetensors"
    )
    for index in INDICES:
        folder = SafetensorsFolder(tmp_path)
        got = folder.read("a", index)
        assert got.dtype == dtype
        np.testing.assert_array_equal(got.view(np.uint8), values[index].copy().view(np.uint8))
        assert folder.bytes_read == values[index].nbytes
    assert sorted(folder.names()) == ["a", "b"] and folder.shape("a") == (6, 4, 3)


def test_what_is_written_the_reference_library_reads(tmp_path):
    tensors = publish(tmp_path / "model")
    files = sorted((tmp_path / "model").glob("*.safetensors"))
    assert len(files) > 2
    read = {}
    for file in files:
        read |= safetensors.numpy.load_file(file)
    assert set(read) == set(tensors)
    for name, values in tensors.items():
        np.testing.assert_array_equal(read[name], values)
    ours = SafetensorsFolder(tmp_path / "model")
    assert sorted(ours.names()) == sorted(tensors)
    for name, values in tensors.items():
        np.testing.assert_array_equal(ours.read(name), values)


def test_a_missing_shard_is_named(tmp_path):
    publish(tmp_path)
    gone = sorted(tmp_path.glob("*.safetensors"))[1]
    gone.unlink()
    with pytest.raises(UserError, match=f"lacks 1 of .* shards .*{gone.name}"):
        open_source(str(tmp_path))


def test_a_shard_without_what_the_index_promises_is_named(tmp_path):
    publish(tmp_path)
    files = sorted(tmp_path.glob("*.safetensors"))
    files[1].write_bytes(files[0].read_bytes())
    with pytest.raises(UserError, match="promises .* which does not hold it"):
        open_source(str(tmp_path))


@pytest.mark.parametrize("kept", [-1, -1000, 300, 4, 0])
def test_a_truncated_file_is_found_before_anything_is_read(tmp_path, kept):
    publish(tmp_path, shard_bytes=10**9)
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(UserError, match="model.safetensors is (truncated|no safetensors)"):
        open_source(str(tmp_path))


def test_a_pickle_is_refused_with_the_remedy(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(UserError, match="pytorch_model.bin, a pickle.*save_pretrained"):
        open_source(str(tmp_path))


def test_an_unknown_family_and_an_empty_folder_are_named(tmp_path):
    publish(tmp_path / "odd", tensors=weights(LLAMA))
    config = tmp_path / "odd" / "config.json"
    config.write_text(json.dumps({**LLAMA, "model_type": "camel"}))
    with pytest.raises(UserError, match="model_type 'camel' is of no known family: .*llama"):
        open_source(str(tmp_path / "odd"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no parameters"):
        open_source(str(tmp_path / "empty"))
    with pytest.raises(UserError, match="is no folder"):
        open_source(str(tmp_path / "absent"))


def test_a_writer_that_fails_leaves_nothing(tmp_path):
    def fail():
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_folder(tmp_path / "out", {"a": Tensor((2,), np.float32, fail)}, {})
    assert list(tmp_path.iterdir()) == []
