"""The decoder: cached, packed, scanned, remade or sharded, the numbers are the same."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ilm_jax.errors import UserError
from ilm_jax.models.decoder import Decoder
from ilm_jax.models.stacking import unstack_layers
from ilm_jax.sharding.partitioning import MeshConfig, Partitioner
from tests.models.small import decoder_config, flat, init, nested

TOKENS = jax.random.randint(jax.random.key(3), (2, 9), 1, 40)
POSITIONS = jnp.broadcast_to(jnp.arange(9), (2, 9))
ONES = jnp.ones_like(TOKENS)

KINDS = {
    "llama": {"tie_embeddings": False},
    "all else": {
        "activation": "gelu",
        "scale_embeddings": True,
        "head_dim": 16,
        "attention_bias": True,
        "qk_norm": True,
        "num_kv_heads": 1,
    },
    "unrolled": {"scan_layers": False},
    # Five layers: two repetitions of the pattern and one layer behind.
    "windows": {
        "num_layers": 5,
        "layer_pattern": ("local", "global"),
        "sliding_window": 3,
        "rope_local_theta": 50.0,
        "attention_softcap": 2.0,
        "logits_softcap": 3.0,
        "post_norms": True,
        "norm_offset": True,
    },
}


def make(**changes):
    config = decoder_config(**changes)
    return Decoder(config), init(Decoder(config), jnp.zeros((2, 9, 32)), POSITIONS, ONES)


@functools.partial(jax.jit, static_argnames="model")
def logits(model, params, tokens=TOKENS, positions=POSITIONS, segments=ONES):
    bound = model.bind({"params": params})
    return bound.logits(bound(bound.embed(tokens), positions, segments))


@functools.partial(jax.jit, static_argnames="model")
def step(model, params, tokens, positions, segments, cache, *where):
    bound = model.bind({"params": params})
    hidden, cache = bound(bound.embed(tokens), positions, segments, cache, *where)
    return bound.logits(hidden), cache


@functools.partial(jax.jit, static_argnames="model")
def loss_and_grad(model, params, segments):
    def loss(params):
        return jax.nn.logsumexp(logits(model, params, segments=segments), -1).sum()

    return jax.value_and_grad(loss)(params)


@pytest.mark.parametrize("kind", KINDS)
def test_cached_decoding_of_ragged_prompts_is_the_full_forward_pass(kind):
    model, params = make(**KINDS[kind])
    full = logits(model, params)
    lengths = jnp.array([5, 2])

    prompt = (POSITIONS[:, :5] < lengths[:, None]).astype(jnp.int32)
    # What stands in the padding must not matter: it is neither written nor seen.
    tokens = jnp.where(prompt > 0, TOKENS[:, :5], 39)
    got, cache = step(model, params, tokens, POSITIONS[:, :5], prompt, model.init_cache(2, 10))
    for row, length in enumerate(lengths):
        np.testing.assert_allclose(got[row, :length], full[row, :length], atol=2e-5)
    for i in range(4):
        at = (lengths + i)[:, None]
        token = jnp.take_along_axis(TOKENS, at, axis=1)
        got, cache = step(model, params, token, at, jnp.ones_like(at), cache)
        expected = jnp.take_along_axis(full, at[..., None], axis=1)
        np.testing.assert_allclose(got, expected, atol=2e-5)


@pytest.mark.parametrize("kind", ["llama", "windows"])
def test_two_continuations_share_the_cache_of_their_prompt(kind):
    """Windows count positions, wherever in the cache the tokens stand."""
    model, params = make(**KINDS[kind])
    prompt, row = TOKENS[:1, :5], ONES[:1, :5]
    _, cache = step(model, params, prompt, POSITIONS[:1, :5], row, model.init_cache(1, 16))
    new, entries = jnp.array([[7, 9]]), jnp.array([[5, 14]])
    mask = jnp.arange(16) < 5
    mask = jnp.stack([mask.at[5].set(True), mask.at[14].set(True)])[None]
    at = jnp.full((1, 2), 5)
    got, _ = step(model, params, new, at, ONES[:1, :2], cache, entries, mask)
    for i in range(2):
        alone = jnp.concatenate([prompt, new[:, i : i + 1]], axis=1)
        full = logits(model, params, alone, POSITIONS[:1, :6], ONES[:1, :6])
        np.testing.assert_allclose(got[:, i], full[:, 5], atol=2e-5)


@pytest.mark.parametrize("kind", ["llama", "windows"])
def test_packed_segments_and_padding_are_as_if_alone(kind):
    model, params = make(**KINDS[kind])
    row = jnp.concatenate([TOKENS[0, :4], TOKENS[1, :3], jnp.zeros(2, jnp.int32)])[None]
    positions = jnp.array([[0, 1, 2, 3, 0, 1, 2, 0, 0]])
    segments = jnp.array([[1, 1, 1, 1, 2, 2, 2, 0, 0]])
    packed = logits(model, params, row, positions, segments)
    full = logits(model, params)
    np.testing.assert_allclose(packed[0, :4], full[0, :4], atol=2e-5)
    np.testing.assert_allclose(packed[0, 4:7], full[1, :3], atol=2e-5)
    assert np.isfinite(packed).all()


def test_a_row_of_padding_alone_has_finite_gradients():
    model, params = make()
    _, grads = loss_and_grad(model, params, 0 * ONES)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))


def test_the_future_is_not_seen():
    model, params = make()
    before, after = logits(model, params), logits(model, params, TOKENS.at[:, 4].set(0))
    np.testing.assert_array_equal(before[:, :4], after[:, :4])
    assert (jnp.abs(before[:, 4:] - after[:, 4:]).max(-1) > 1e-4).all()


@pytest.mark.parametrize("kind", ["llama", "all else"])
def test_logits_of_a_subset_are_those_columns(kind):
    model, params = make(**KINDS[kind])
    hidden = jax.random.normal(jax.random.key(0), (2, 3, 32))
    full = model.apply({"params": params}, hidden, method="logits")
    subset = jnp.array([9, 1])
    part = model.apply({"params": params}, hidden, subset, method="logits")
    np.testing.assert_allclose(part, full[..., subset], rtol=1e-5, atol=1e-6)


def test_logits_and_softmax_stay_float32_in_a_bfloat16_model():
    model, params = make(dtype="bfloat16", param_dtype="bfloat16")
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("bfloat16")}
    out = logits(model, params)
    assert out.dtype == jnp.float32
    jaxpr = str(
        jax.make_jaxpr(lambda e: model.apply({"params": params}, e, POSITIONS, ONES))(
            jnp.zeros((2, 9, 32), jnp.bfloat16)
        )
    )
    assert ":f32[2,2,2,9,9]" in jaxpr and "exp" in jaxpr
    assert not any("exp " in line and ":bf16" in line for line in jaxpr.splitlines())


@pytest.mark.parametrize("kind", ["llama", "windows"])
def test_scanned_and_unrolled_layers_agree_in_value_and_gradient(kind):
    model, params = make(**KINDS[kind])
    one, g_one = loss_and_grad(model, params, ONES)
    unrolled = Decoder(decoder_config(**KINDS[kind], scan_layers=False))
    two, g_two = loss_and_grad(unrolled, nested(unstack_layers(flat(params))), ONES)
    np.testing.assert_allclose(one, two, rtol=1e-6)
    g_one = unstack_layers(flat(g_one))
    for path, leaf in flat(g_two).items():
        np.testing.assert_allclose(g_one[path], leaf, atol=1e-4, err_msg=path)


def test_remade_layers_have_the_same_gradient():
    model, params = make()
    kept, g_kept = loss_and_grad(model, params, ONES)
    made, g_made = loss_and_grad(Decoder(decoder_config(remat="full")), params, ONES)
    np.testing.assert_allclose(kept, made, rtol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), g_kept, g_made)


def test_a_mesh_changes_nothing_beyond_rounding():
    model, params = make()
    tokens, ones = jnp.tile(TOKENS, (2, 1)), jnp.tile(ONES, (2, 1))
    positions = jnp.tile(POSITIONS, (2, 1))
    plain = logits(model, params, tokens, positions, ones)
    partitioner = Partitioner(MeshConfig(data=2, fsdp=2, tensor=2))
    with partitioner.context():
        shapes = jax.eval_shape(model.init, jax.random.key(0), plain[..., :32], positions, ones)
        axes = flat(nn.get_partition_spec(shapes)["params"])
        placed = nested(
            {
                path: jax.device_put(leaf, partitioner.sharding(axes[path], leaf.shape))
                for path, leaf in flat(params).items()
            }
        )
        tokens = jax.device_put(tokens, partitioner.batch_sharding(4))
        meshed = logits(model, placed, tokens, positions, ones)
    np.testing.assert_allclose(plain, meshed, atol=2e-5)


def test_layers_and_their_cache_stand_in_the_scan_or_behind_it():
    model, params = make(**KINDS["windows"])
    assert set(params) == {"embedding", "final_norm", "layers", "layer_04"}
    assert set(params["layers"]) == {"sub_0", "sub_1"}
    cache = jax.tree.map(jnp.shape, model.init_cache(3, 7), is_leaf=lambda x: hasattr(x, "shape"))
    layer = {"key": (3, 7, 2, 8), "value": (3, 7, 2, 8)}
    stack = {name: (2, *shape) for name, shape in layer.items()}
    assert cache == {
        "layers": {"sub_0": stack, "sub_1": stack},
        "layer_04": layer,
        "positions": (3, 7),
    }


def test_a_pattern_longer_than_the_model_leaves_no_scan():
    model, params = make(layer_pattern=("local",) * 5 + ("global",), sliding_window=3)
    assert set(params) == {"embedding", "final_norm", "layer_00", "layer_01"}
    assert np.isfinite(logits(model, params)).all()


def test_a_window_hides_what_is_farther_back():
    model, params = make(num_layers=1, layer_pattern=("local",), sliding_window=3)
    before, after = logits(model, params), logits(model, params, TOKENS.at[:, 2].set(0))
    changed = (jnp.abs(before - after).max(-1) > 1e-4).any(0)
    assert changed.tolist() == [2 <= i < 5 for i in range(9)]


def test_lora_and_int8_reach_the_projections_they_name():
    model = Decoder(decoder_config(lora_rank=2, lora_targets=["query", "down"], quantized=True))
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((2, 9, 32)), POSITIONS, ONES)
    paths = set(flat(nn.unbox(shapes)["params"]))
    adapted = {path.split("/")[-2] for path in paths if path.endswith("lora_b")}
    assert adapted == {"query", "down"}
    assert not any(path.endswith("/kernel") for path in paths)
    assert "layers/sub_0/mlp/up/kernel_int8" in paths


def test_sizes_that_do_not_fit_are_named():
    with pytest.raises(UserError, match="num_kv_heads=3"):
        decoder_config(num_kv_heads=3)
    with pytest.raises(UserError, match="head_dim=5"):
        decoder_config(head_dim=5)
    with pytest.raises(UserError, match='activation="tanh"'):
        decoder_config(activation="tanh")
    with pytest.raises(UserError, match='layer_pattern="near"'):
        decoder_config(layer_pattern=("near",))
    with pytest.raises(UserError, match="set sliding_window"):
        decoder_config(layer_pattern=("local",))
    with pytest.raises(UserError, match='RopeScaling.kind="yarn"'):
        decoder_config(rope_scaling={"kind": "yarn", "factor": 2.0})
