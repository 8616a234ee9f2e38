"""The index decides which file a tensor is read from; what contradicts it is said or refused."""

import json
import re

import numpy as np
import pytest
import safetensors.numpy

from ilm_jax.checkpoints.published.hugging_face import SafetensorsFolder
from ilm_jax.checkpoints.published.sources import open_source
from ilm_jax.errors import UserError
from tests.checkpoints.published import LLAMA, publish, weights

INDEX = "model.safetensors.index.json"
NORM = "model.norm.weight"


@pytest.fixture
def folder(tmp_path):
    publish(tmp_path)
    return tmp_path


def edit(folder, change):
    index = json.loads((folder / INDEX).read_text())
    change(index)
    (folder / INDEX).write_text(json.dumps(index))


def add(file, **tensors):
    held = safetensors.numpy.load_file(file)
    safetensors.numpy.save_file(held | tensors, file)


def shards(folder):
    return sorted(folder.glob("model-*.safetensors"))


@pytest.mark.parametrize("place", ["first", "last"])
def test_a_tensor_in_two_shards_is_read_where_the_index_says(folder, place):
    files = shards(folder)
    there = json.loads((folder / INDEX).read_text())["weight_map"][NORM]
    other = [f for f in files if f.name != there][0 if place == "first" else -1]
    add(other, **{NORM: np.zeros(32, np.float32)})
    opened = open_source(str(folder))
    np.testing.assert_array_equal(
        opened.entries["lm/final_norm/scale"].read(), weights(LLAMA)[NORM]
    )


def test_shards_of_an_older_save_are_said_and_not_read(folder):
    stale = {NORM: np.zeros(32, np.float32), "model.layers.9.mlp.up_proj.weight": np.zeros((2, 2))}
    safetensors.numpy.save_file(stale, folder / "model-00001-of-00099.safetensors")
    opened = open_source(str(folder))
    np.testing.assert_array_equal(
        opened.entries["lm/final_norm/scale"].read(), weights(LLAMA)[NORM]
    )
    assert [n for n in opened.notes if "model-00001-of-00099.safetensors is not read" in n]
    assert not opened.left_over


def test_the_makers_own_file_beside_the_shards_is_not_the_model(folder, tmp_path_factory):
    safetensors.numpy.save_file(
        {"tok_embeddings.weight": np.ones((2, 2))}, folder / "consolidated.safetensors"
    )
    assert any("consolidated.safetensors is not read" in n for n in open_source(str(folder)).notes)
    alone = tmp_path_factory.mktemp("alone")
    (alone / "consolidated.safetensors").write_bytes(
        (folder / "consolidated.safetensors").read_bytes()
    )
    with pytest.raises(UserError, match="consolidated.*under their maker's own names: download"):
        open_source(str(alone))


def test_a_tensor_that_the_index_does_not_name_is_read_where_one_file_holds_it(folder):
    edit(folder, lambda index: index["weight_map"].pop(NORM))
    opened = open_source(str(folder))
    assert any(f"does not name {NORM}" in note for note in opened.notes)
    np.testing.assert_array_equal(
        opened.entries["lm/final_norm/scale"].read(), weights(LLAMA)[NORM]
    )
    for file in shards(folder):
        add(file, **{NORM: np.zeros(32, np.float32)})
    with pytest.raises(UserError, match=f"all hold {NORM}, and .* does not say which"):
        open_source(str(folder))


def test_another_total_size_is_said(folder):
    assert not SafetensorsFolder(folder).notes
    edit(folder, lambda index: index["metadata"].update(total_size=1))
    assert any("says total_size 1, and" in note for note in SafetensorsFolder(folder).notes)


def test_one_file_and_an_index_of_others_are_two_models(folder):
    safetensors.numpy.save_file(weights(LLAMA), folder / "model.safetensors")
    with pytest.raises(UserError, match="so two models"):
        open_source(str(folder))
    # An index of that one file is one model.
    edit(
        folder,
        lambda index: index["weight_map"].update(
            dict.fromkeys(index["weight_map"], "model.safetensors")
        ),
    )
    assert not open_source(str(folder)).lacking


def test_an_adapter_beside_a_model_or_alone_is_refused(folder, tmp_path_factory):
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match="beside its model: merge it"):
        open_source(str(folder))
    alone = tmp_path_factory.mktemp("alone")
    (alone / "adapter_model.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match="an adapter alone.*merge it into its base"):
        open_source(str(alone))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda index: index.clear(), "has no weight_map"),
        (lambda index: index.update(weight_map=[1]), "has no weight_map"),
        (lambda index: index["weight_map"].update({NORM: "../x"}), f"{NORM} lies in '../x'"),
        (lambda index: index["weight_map"].update({NORM: 3}), f"{NORM} lies in 3"),
        (lambda index: index["weight_map"].update({"more": shards_name}), "promises more in"),
    ],
)
def test_an_index_that_is_none_is_named(folder, change, message):
    global shards_name
    shards_name = shards(folder)[0].name
    edit(folder, change)
    with pytest.raises(UserError, match=re.escape(message)):
        open_source(str(folder))


def rewrite_header(file, change):
    data = file.read_bytes()
    length = int.from_bytes(data[:8], "little")
    text = change(data[8 : 8 + length].decode()).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.replace('"F32"', '["F32"]', 1), "is of type"),
        (lambda t: t.replace('"shape":[32]', '"shape":[-32]', 1), "does not say what"),
        (lambda t: t.replace('"shape":[32]', '"shape":"32"', 1), "does not say what"),
        (lambda t: "[]", "holds no JSON object"),
        (lambda t: "[" * 100_000, "nested too deeply"),
    ],
)
def test_a_header_that_describes_nothing_is_refused(tmp_path, change, message):
    publish(tmp_path, shard_bytes=10**9)
    rewrite_header(tmp_path / "model.safetensors", change)
    with pytest.raises(UserError, match=message):
        open_source(str(tmp_path))


def test_tensors_that_share_bytes_are_refused(tmp_path):
    publish(tmp_path, shard_bytes=10**9)

    def overlap(text):
        header = json.loads(text)
        names = [n for n in header if n.endswith("layernorm.weight")]
        header[names[0]]["data_offsets"] = header[names[1]]["data_offsets"]
        return json.dumps(header)

    rewrite_header(tmp_path / "model.safetensors", overlap)
    with pytest.raises(UserError, match="are of no tensor, or of two"):
        open_source(str(tmp_path))


def test_one_name_twice_in_a_header_is_refused(tmp_path):
    publish(tmp_path, shard_bytes=10**9)
    rewrite_header(
        tmp_path / "model.safetensors",
        lambda t: t.replace("model.layers.0.input_layernorm", "model.layers.1.input_layernorm", 1),
    )
    with pytest.raises(UserError, match="says .*input_layernorm.weight.* twice"):
        open_source(str(tmp_path))
