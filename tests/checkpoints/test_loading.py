"""A published folder becomes the arrays of the model on the mesh, or one error with three lists."""

import json

import jax
import numpy as np
import pytest

from ilm_jax.checkpoints.checkpoints import InitFrom
from ilm_jax.checkpoints.loading import load_sources
from ilm_jax.checkpoints.published.sources import open_source
from ilm_jax.errors import UserError
from ilm_jax.models.decoder import DecoderConfig
from ilm_jax.models.quantization import quantize
from ilm_jax.objectives.language import LanguageModelling
from ilm_jax.sharding.partitioning import MeshConfig, Partitioner
from ilm_jax.sharding.state import describe_variables
from tests.checkpoints.published import LLAMA, publish, weights
from tests.some import some

MESHES = {"one": MeshConfig(1), "split": MeshConfig(1, 4, 2), "copies": MeshConfig(4, 1, 2)}


def partitioner(name):
    number = 1 if name == "one" else 8
    return Partitioner(MESHES[name], devices=tuple(jax.devices()[:number]))


def decoder(folder, **changes):
    return DecoderConfig(**{**open_source(str(folder)).config.__dict__, **changes})


def load(folder, mesh="split", allow_fresh=(), source=None, **changes):
    objective = LanguageModelling(decoder(folder, **changes))
    return load_sources(
        objective,
        describe_variables(objective),
        [source or InitFrom(str(folder))],
        allow_fresh,
        partitioner(mesh),
        jax.random.key(0),
    )


@pytest.fixture
def folder(tmp_path):
    publish(tmp_path)
    return tmp_path


@pytest.mark.parametrize("mesh", MESHES)
@pytest.mark.parametrize("scan", [True, False])
def test_every_weight_stands_where_its_name_says(folder, mesh, scan):
    params, report = load(folder, mesh, scan_layers=scan)
    theirs = weights(LLAMA)
    for i in range(3):
        for ours, name in (("attention/query", "self_attn.q_proj"), ("mlp/down", "mlp.down_proj")):
            at = "layers/sub_0" if scan else f"layer_{i:02d}"
            got = params[f"lm/{at}/{ours}/kernel"]
            got = got[i] if scan else got
            np.testing.assert_array_equal(got, theirs[f"model.layers.{i}.{name}.weight"].T)
    np.testing.assert_array_equal(params["lm/head/embedding"], theirs["lm_head.weight"])
    assert f"restored {len(params)} from {folder}" in report
    kernel = params["lm/layers/sub_0/mlp/up/kernel" if scan else "lm/layer_00/mlp/up/kernel"]
    if mesh == "split":
        assert kernel.addressable_shards[0].data.size == kernel.size // 8


def test_weights_take_the_wanted_type(folder):
    params, _ = load(folder, param_dtype="bfloat16")
    assert {x.dtype.name for x in params.values()} == {"bfloat16"}
    expected = weights(LLAMA)["model.embed_tokens.weight"].astype("bfloat16")
    np.testing.assert_array_equal(params["lm/embedding/embedding"], expected)


@pytest.mark.parametrize("mesh", ["one", "split"])
def test_int8_weights_are_quantized_on_the_way(folder, mesh):
    params, _ = load(folder, mesh, quantized=True)
    assert not any(path.endswith("/kernel") for path in some(params))
    for i in range(3):
        up = weights(LLAMA)[f"model.layers.{i}.mlp.up_proj.weight"].T
        ints, scale = quantize(up)
        np.testing.assert_array_equal(params["lm/layers/sub_0/mlp/up/kernel_int8"][i], ints)
        np.testing.assert_allclose(params["lm/layers/sub_0/mlp/up/scale"][i], scale, rtol=1e-7)


def test_a_low_rank_update_may_start_fresh_only_by_leave(folder):
    with pytest.raises(UserError, match="no source holds 4 parameters .*lora_a"):
        load(folder, lora_rank=2)
    params, report = load(folder, lora_rank=2, allow_fresh=("/lora_[ab]$",))
    assert not np.any(params["lm/layers/sub_0/attention/query/lora_b"])
    assert np.all(np.any(params["lm/layers/sub_0/attention/query/lora_a"], axis=(1, 2)))
    assert "fresh 4" in report


def test_another_configuration_is_named_with_its_bindings(folder):
    with pytest.raises(UserError) as error:
        load(folder, rope_theta=1e4, num_kv_heads=4)
    text = str(error.value)
    assert "num_kv_heads 2 (here 4)" in text and "--gin.DecoderConfig.rope_theta=5000.0" in text
    with pytest.raises(UserError, match=r"embed_dim 32 \(here 64\);") as error:
        load(folder, embed_dim=64)
    assert "head_dim" not in str(error.value)  # it is left open, there and here
    # What it runs on is no difference.
    load(folder, remat="full", dtype="bfloat16")


def test_a_model_without_what_is_read_from_it_is_named(folder):
    objective = LanguageModelling(decoder(folder))
    variables = {f"qformer/{path}": x for path, x in describe_variables(objective).items()}
    with pytest.raises(UserError, match=r"none of the \d+ parameters that are read .*another kind"):
        sources = [InitFrom(str(folder), parameters=("^qformer/",))]
        load_sources(objective, variables, sources, (), partitioner("one"), jax.random.key(0))


def misfit(folder, changed):
    tensors = weights(LLAMA)
    changed(tensors)
    publish(folder, tensors=tensors)
    with pytest.raises(UserError) as error:
        load(folder)
    text = str(error.value)
    assert "\n" not in text
    assert all(word in text for word in ("restored ", "fresh ", "unused "))
    return text


def test_a_missing_tensor_gives_three_lists(tmp_path):
    text = misfit(tmp_path, lambda t: t.pop("model.layers.1.mlp.up_proj.weight"))
    assert "model.layers.1.mlp.up_proj.weight" in text or "layer_01/mlp/up/kernel" in text
    text = misfit(tmp_path, lambda t: t.pop("model.norm.weight"))
    assert "fresh 1 [lm/final_norm/scale (model.norm.weight)]" in text


def test_an_unused_tensor_gives_three_lists_unless_allowed(tmp_path):
    extra = np.zeros((2, 2), np.float32)
    text = misfit(tmp_path, lambda t: t.update({"model.surprise.weight": extra}))
    assert "unused 1 [model.surprise.weight]" in text
    allowed = InitFrom(str(tmp_path), allow_unused=("surprise",))
    assert "1 there are left unused" in load(tmp_path, source=allowed)[1]


def test_a_tensor_of_another_shape_gives_three_lists(tmp_path):
    other = np.zeros((64, 16), np.float32)
    text = misfit(tmp_path, lambda t: t.update({"lm_head.weight": other}))
    assert "other shapes 1 [lm/head/embedding: saved (64, 16), here (64, 32)]" in text


def test_a_tensor_of_one_number_less_in_the_header_is_refused(tmp_path):
    publish(tmp_path, shard_bytes=10**9)
    file = tmp_path / "model.safetensors"
    data = file.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header["model.norm.weight"]["shape"] = [31]
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])
    with pytest.raises(UserError, match="bytes of model.norm.weight do not fit its shape"):
        load(tmp_path)
