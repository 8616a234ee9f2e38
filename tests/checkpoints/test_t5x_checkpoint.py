"""T5X's checkpoints give the parameters that transformers' folders give, slice by slice."""

import dataclasses

import ml_dtypes
import numpy as np
import pytest
from flax.serialization import msgpack_serialize as packed

from ilm_jax.checkpoints.published.families import t5, t5x
from ilm_jax.checkpoints.published.rules import apply
from ilm_jax.checkpoints.published.sources import open_source
from ilm_jax.checkpoints.published.t5x_checkpoint import T5XCheckpoint
from ilm_jax.errors import UserError
from tests.checkpoints import t5x_writer
from tests.parity import make_t5
from tests.parity.test_t5 import compare_model, stacked, stored

FORMS = ("t5x", "gcs", "orbax", "ocdbt")


def tensors(case):
    options, weights, _ = stored(case)
    config = t5.config(options)
    return config, t5x_writer.from_transformers(weights, tied=config.tie_embeddings)


def entries(source, config):
    rules = t5x.rules(config)
    assert {rule.source for rule in rules.values()} == set(source.names())
    return {name: apply(rule, source.read) for name, rule in rules.items()}


@pytest.mark.parametrize("case", make_t5.CASES)
def test_every_entry_is_that_of_the_transformers_folder(case, tmp_path):
    config, mine = tensors(case)
    t5x_writer.write(tmp_path / "checkpoint_1", mine)
    source = T5XCheckpoint(tmp_path / "checkpoint_1")
    found = t5x.config(source)
    # Not in the tensors, and the same in all published models.
    unsaid = {"max_distance": config.max_distance, "norm_eps": config.norm_eps}
    assert dataclasses.replace(found, **unsaid) == config
    _, weights, _ = stored(case)
    expected = {n: apply(r, weights.__getitem__) for n, r in t5.rules(config).items()}
    got = entries(source, found)
    assert got.keys() == expected.keys()
    for name, leaf in got.items():
        np.testing.assert_array_equal(leaf, expected[name], err_msg=name)


def test_its_logits_are_the_references(tmp_path, monkeypatch):
    case = "flan_gated_untied"
    _, mine = tensors(case)
    t5x_writer.write(tmp_path / "checkpoint_1", mine)
    # As a shell's user names it: TensorStore itself opens no path with `..` in it.
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    source = T5XCheckpoint("..")
    config = t5x.config(source)
    compare_model(config, stacked(entries(source, config)), stored(case)[2])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("layout", ["plain", "scanned", "scanned_first", "heads_apart", "both"])
def test_slices_of_every_form_and_layout(form, layout, tmp_path):
    config, mine = tensors("t5_relu_tied")
    # Scanned layers have their own tables of positions.
    for stack, count in (("encoder", config.num_layers), ("decoder", config.decoder_layers)):
        table = mine.pop(f"{stack}/relpos_bias/rel_embedding")
        for i in range(count):
            mine[f"{stack}/layers_{i}/relpos_bias/rel_embedding"] = table + i
    written = mine
    if layout in ("heads_apart", "both"):
        written = t5x_writer.heads_apart(written, config.num_heads)
    if layout in ("scanned", "scanned_first", "both"):
        written = t5x_writer.scanned(written, axis=0 if layout == "scanned_first" else 1)
    t5x_writer.write(tmp_path / "checkpoint_1", written, form)
    source = T5XCheckpoint(tmp_path / "checkpoint_1")
    assert set(source.names()) == set(mine)
    rng = np.random.default_rng(0)
    for name, leaf in mine.items():
        assert source.shape(name) == leaf.shape and source.dtype(name) == leaf.dtype, name
        ends = [sorted(rng.integers(0, n + 1, 2)) for n in leaf.shape]
        index = tuple(slice(int(a), int(b)) for a, b in ends)
        np.testing.assert_array_equal(source.read(name, index), leaf[index], err_msg=name)
        np.testing.assert_array_equal(source.read(name), leaf, err_msg=name)
    found = t5x.config(source)
    assert found.layer_positions and len(entries(source, found)) == len(mine)


def test_bfloat16_stays_bfloat16(tmp_path):
    leaf = np.arange(6, dtype=np.float32).reshape(2, 3).astype(ml_dtypes.bfloat16)
    t5x_writer.write(tmp_path / "checkpoint_1", {"a/kernel": leaf})
    source = T5XCheckpoint(tmp_path)
    assert source.dtype("a/kernel") == leaf.dtype
    np.testing.assert_array_equal(source.read("a/kernel"), leaf)


def test_the_latest_step_is_taken(tmp_path):
    for step in (9, 10):
        folder = tmp_path / f"checkpoint_{step}"
        t5x_writer.write(folder, {"a/kernel": np.full((2, 2), step, np.float32)})
    (tmp_path / "checkpoint_11.tmp-5").mkdir()
    assert T5XCheckpoint(tmp_path).read("a/kernel")[0, 0] == 10


def test_only_the_arrays_that_are_read_are_opened(tmp_path):
    kernel = np.ones((2, 2), np.float32)
    t5x_writer.write(tmp_path / "checkpoint_1", {"a/kernel": kernel, "b/kernel": kernel})
    (tmp_path / "checkpoint_1/target.b.kernel/.zarray").write_text("{")
    source = T5XCheckpoint(tmp_path)
    assert source.names() == ["a/kernel", "b/kernel"]
    np.testing.assert_array_equal(source.read("a/kernel"), kernel)
    with pytest.raises(UserError, match="b/kernel cannot be opened"):
        source.read("b/kernel")


@pytest.mark.parametrize("form", ["t5x", "orbax"])
def test_a_chunk_that_is_not_there_is_not_zeros(form, tmp_path):
    kernel = np.ones((4, 2), np.float32)
    t5x_writer.write(tmp_path / "checkpoint_1", {"a/kernel": kernel}, form)
    (tmp_path / "checkpoint_1/target.a.kernel/1.0").unlink()
    with pytest.raises(UserError, match="a/kernel has 1 of 2 chunks: download"):
        T5XCheckpoint(tmp_path).read("a/kernel")


def test_a_chunk_that_is_cut_is_an_error(tmp_path):
    kernel = np.random.default_rng(0).normal(size=(4, 2)).astype(np.float32)
    t5x_writer.write(tmp_path / "checkpoint_1", {"a/kernel": kernel})
    chunk = tmp_path / "checkpoint_1/target.a.kernel/1.0"
    chunk.write_bytes(chunk.read_bytes()[:10])
    with pytest.raises(UserError, match="a/kernel cannot be read"):
        T5XCheckpoint(tmp_path).read("a/kernel")


ARRAY = np.ones(2, np.float32)


@pytest.mark.parametrize(
    "content, message",
    [
        (None, "holds no T5X checkpoint"),
        (b'model_checkpoint_path: "model.ckpt-1"', "TensorFlow checkpoint"),
        (b"\x93not", "no tree with a target"),
        (packed({"version": 3, "optimizer": {"state": {}}}), "no tree with a target"),
        (packed({"version": 2, "optimizer": {"target": {"a": ARRAY}}}), "format version 2"),
        (packed({"target": {"a": "PLACEHOLDER://../b"}}), "no folder beside it"),
        (packed({"target": {"a": {"driver": "n5"}}}), "stored as 'n5'"),
        (packed({"target": {"a": 3}}), "neither an array nor a reference"),
    ],
)
def test_what_is_no_such_checkpoint_is_said(content, message, tmp_path):
    if content is not None:
        (tmp_path / "checkpoint").write_bytes(content)
    with pytest.raises(UserError, match=message):
        T5XCheckpoint(tmp_path).read("a")


def test_another_model_is_refused_by_the_tensor_it_lacks(tmp_path):
    t5x_writer.write(tmp_path / "checkpoint_1", {"decoder/kernel": np.ones((2, 2), np.float32)})
    with pytest.raises(UserError, match="is no T5: it lacks token_embedder/embedding"):
        t5x.config(T5XCheckpoint(tmp_path))


def test_its_folder_is_opened_for_what_it_holds(tmp_path):
    config, mine = tensors("flan_gated_untied")
    t5x_writer.write(tmp_path / "checkpoint_1", mine | {"decoder/other": np.ones((2, 2))})
    for folder in (tmp_path, tmp_path / "checkpoint_1"):
        opened = open_source(str(folder))
        assert not opened.lacking and opened.left_over == ["decoder/other"]
        assert opened.config.num_layers == config.num_layers
        head = opened.entries["lm/head/embedding"]
        expected = mine["decoder/logits_dense/kernel"].T
        assert head.shape == expected.shape
        part = slice(3, 9), slice(2, 5)
        np.testing.assert_array_equal(head.read(part), expected[part])
