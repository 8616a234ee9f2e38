"""Dense and Embed keep their promises with LoRA and int8; norms and lookups never make NaN."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from ilm_jax.errors import UserError
from ilm_jax.models.layers import Dense, Embed, LayerNorm, RMSNorm, constrain, unit
from ilm_jax.models.quantization import quantize
from ilm_jax.models.remat import remat
from ilm_jax.sharding.partitioning import MeshConfig, Partitioner
from tests.models.small import init

AXES = ("embed", "mlp")
KEY = jax.random.key(0)


def test_lora_starts_as_the_identity_and_adds_a_scaled_low_rank_product():
    x = jax.random.normal(KEY, (3, 8))
    layer = Dense(5, AXES, lora_rank=2, lora_alpha=6.0)
    params = nn.unbox(layer.init(KEY, x))["params"]
    assert set(params) == {"kernel", "lora_a", "lora_b"}
    plain = Dense(5, AXES).apply({"params": {"kernel": params["kernel"]}}, x)
    np.testing.assert_array_equal(layer.apply({"params": params}, x), plain)
    params["lora_b"] = jnp.ones((2, 5))
    merged = params["kernel"] + 3.0 * params["lora_a"] @ params["lora_b"]
    np.testing.assert_allclose(layer.apply({"params": params}, x), x @ merged, rtol=1e-5, atol=1e-5)


def test_embed_lora_changes_rows_and_logits_alike():
    layer = Embed(7, 8, lora_rank=2)
    params = init(layer, jnp.zeros((1,), jnp.int32))
    rows = layer.apply({"params": params}, jnp.arange(7))
    assert not np.allclose(rows, params["embedding"])
    x = jax.random.normal(KEY, (3, 8))
    logits = layer.apply({"params": params}, x, method="attend")
    np.testing.assert_allclose(logits, x @ rows.T, rtol=1e-5, atol=1e-5)


def test_int8_kernels_stay_within_half_a_step():
    x = jax.random.normal(KEY, (3, 64))
    plain = Dense(5, AXES, use_bias=True)
    params = init(plain, x)
    ints, scale = quantize(params["kernel"])
    assert ints.dtype == jnp.int8 and scale.shape == (5,)
    assert (jnp.abs(ints * scale - params["kernel"]) <= scale / 2 * 1.001).all()
    small = {"kernel_int8": ints, "scale": scale, "bias": params["bias"]}
    layer = Dense(5, AXES, use_bias=True, quantized=True)
    expected = jax.eval_shape(lambda: nn.unbox(layer.init(KEY, x))["params"])
    assert jax.tree.map(jnp.shape, small) == jax.tree.map(jnp.shape, expected)
    got = layer.apply({"params": small}, x)
    np.testing.assert_allclose(got, plain.apply({"params": params}, x), atol=0.05)


def test_int8_tables_have_a_scale_per_row():
    table = jax.random.normal(KEY, (7, 8))
    ints, scale = quantize(table, axis=-1)
    layer = Embed(7, 8, quantized=True)
    params = {"embedding_int8": ints, "scale": scale}
    rows = layer.apply({"params": params}, jnp.arange(7))
    np.testing.assert_allclose(rows, table, atol=0.02)
    logits = layer.apply({"params": params}, table, method="attend")
    np.testing.assert_allclose(logits, table @ rows.T, rtol=1e-5, atol=1e-5)


def test_stacked_kernels_quantize_layer_by_layer():
    kernels = jax.random.normal(KEY, (2, 8, 5))
    ints, scale = quantize(kernels)
    for i in range(2):
        np.testing.assert_array_equal(ints[i], quantize(kernels[i])[0])
        np.testing.assert_array_equal(scale[i], quantize(kernels[i])[1])


def test_ids_out_of_range_do_not_make_nan():
    layer = Embed(7, 8)
    params = init(layer, jnp.zeros((1,), jnp.int32))
    rows = layer.apply({"params": params}, jnp.array([-3, 99]))
    np.testing.assert_array_equal(rows, params["embedding"][jnp.array([0, 6])])


def test_logits_of_a_subset_are_those_columns_in_float32():
    layer = Embed(7, 8, dtype="bfloat16")
    params = init(layer, jnp.zeros((1,), jnp.int32))
    x = jax.random.normal(KEY, (3, 8))
    rows = jnp.array([5, 0])
    full = layer.apply({"params": params}, x, method="attend")
    part = layer.apply({"params": params}, x, rows, method="attend")
    assert full.dtype == jnp.float32
    np.testing.assert_allclose(part, full[:, rows], rtol=1e-6)


@pytest.mark.parametrize("norm", [LayerNorm, RMSNorm])
def test_norms_compute_in_float32_and_survive_a_zero_row(norm):
    x = jnp.array([[0.0, 0.0, 0.0, 0.0], [1e4, 2e4, -1e4, 3e4]])
    params = init(norm(), x)
    out = norm(dtype="bfloat16").apply({"params": params}, x)
    assert out.dtype == jnp.bfloat16
    exact = norm().apply({"params": params}, x)
    np.testing.assert_allclose(out.astype(jnp.float32), exact, rtol=1e-2)
    grad = jax.grad(lambda x: norm().apply({"params": params}, x).sum())(x)
    assert np.isfinite(grad).all()


def test_unit_of_zero_is_zero_with_a_finite_gradient():
    x = jnp.array([[0.0, 0.0], [3.0, 4.0]])
    np.testing.assert_allclose(unit(x), [[0, 0], [0.6, 0.8]], rtol=1e-6)
    assert np.isfinite(jax.grad(lambda x: unit(x).sum())(x)).all()


def test_constraints_follow_the_rules_where_sizes_divide():
    partitioner = Partitioner(MeshConfig(data=2, fsdp=2, tensor=2))
    x = jnp.zeros((4, 3, 6))
    assert constrain(x, "batch", "length", "mlp") is x
    with partitioner.context():
        sharded = jax.jit(lambda x: constrain(x, "batch", "length", "mlp"))(x)
        assert sharded.sharding.spec == PartitionSpec(("data", "fsdp"), None, "tensor")
        ragged = jax.jit(lambda x: constrain(x, "batch", "length", "mlp"))(x[:3])
        assert ragged.sharding.spec == PartitionSpec(None, None, "tensor")


def test_an_unknown_remat_mode_is_named():
    with pytest.raises(UserError, match='remat="some"'):
        remat(Dense, "some", scanned=False)


@pytest.mark.parametrize("epsilon", [1e-12, 1e-2])
def test_norms_are_their_formulas(epsilon):
    """With an epsilon of the squares' size, where it stands and what it is added to are seen."""
    draw = np.random.default_rng(0)
    x = 0.1 * draw.normal(size=(5, 6)) + 0.05
    scale, bias = draw.normal(size=6), draw.normal(size=6)
    params = {"scale": jnp.asarray(scale, jnp.float32), "bias": jnp.asarray(bias, jnp.float32)}
    rms = np.sqrt((x**2).mean(-1, keepdims=True) + epsilon)
    got = RMSNorm(epsilon).apply({"params": {"scale": params["scale"]}}, jnp.asarray(x))
    np.testing.assert_allclose(got, x / rms * scale, rtol=1e-5)
    offset = RMSNorm(epsilon, offset=1.0)
    got = offset.apply({"params": {"scale": params["scale"]}}, jnp.asarray(x))
    np.testing.assert_allclose(got, x / rms * (scale + 1), rtol=1e-5)
    deviation = np.sqrt(x.var(-1, keepdims=True) + epsilon)
    want = (x - x.mean(-1, keepdims=True)) / deviation * scale + bias
    got = LayerNorm(epsilon).apply({"params": params}, jnp.asarray(x))
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-6)
