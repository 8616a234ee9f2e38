"""The TPU kernel computes what the formula says, and lowers for TPU; "auto" knows its limits."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ilm_jax.errors import UserError
from ilm_jax.models import splash
from ilm_jax.models.attention import causal_attention
from ilm_jax.models.decoder import Decoder
from ilm_jax.sharding.partitioning import MeshConfig, Partitioner
from tests.models.small import decoder_config, init

LENGTH = 256
# Two segments and padding; one segment.
SEGMENTS = jnp.asarray(np.repeat([[1, 2, 0], [1, 1, 1]], [100, 100, 56], axis=1))
KINDS = {
    "plain": {"window": None, "scale": None, "softcap": None},
    "all": {"window": 70, "scale": 0.3, "softcap": 5.0},
}


def draw(rows=2, heads=4, kv_heads=2, dim=128):
    return tuple(
        jax.random.normal(jax.random.key(i), (rows, LENGTH, count, dim))
        for i, count in enumerate((heads, kv_heads, kv_heads))
    )


def both(attend, arrays, segments=SEGMENTS):
    """(output, gradients) of an attention, of real tokens alone."""

    def loss(*arrays):
        out = attend(*arrays, segments) * (segments > 0)[..., None, None]
        return (out * jnp.cos(jnp.arange(out.shape[-1]))).sum(), out

    (_, out), gradients = jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True)(*arrays)
    return out, *gradients


@pytest.mark.parametrize(("kind", "dim"), [("plain", 64), ("all", 128)])
def test_kernel_and_formula_agree_in_value_and_gradient(kind, dim):
    options, arrays = KINDS[kind], draw(dim=dim)
    want = both(functools.partial(causal_attention, backend="xla", **options), arrays)
    got = both(functools.partial(splash.attention, interpret=True, **options), arrays)
    for left, right in zip(want, got, strict=True):
        np.testing.assert_allclose(left, right, atol=1e-4)


@pytest.mark.parametrize(
    ("tensor", "kv_heads"), [pytest.param(2, 2, marks=pytest.mark.slow), (4, 2)]
)
def test_so_they_do_on_a_mesh(tensor, kv_heads):
    """Four shards of two key heads: every query head has a copy of its own."""
    arrays = draw(rows=4, kv_heads=kv_heads)
    segments = jnp.tile(SEGMENTS, (2, 1))
    want = both(
        functools.partial(causal_attention, backend="xla", **KINDS["all"]), arrays, segments
    )
    partitioner = Partitioner(MeshConfig(data=8 // tensor // 2, fsdp=2, tensor=tensor))
    kernel = functools.partial(splash.attention, interpret=True, **KINDS["all"])
    with partitioner.context():
        got = jax.jit(functools.partial(both, kernel))(arrays, segments)
    for left, right in zip(want, got, strict=True):
        np.testing.assert_allclose(left, right, atol=1e-4)


def lowered(model, length, platforms=("tpu",)):
    """The text of a training step through a frozen decoder, for TPU."""
    ones = jnp.ones((1, length), jnp.int32)
    x = jnp.zeros((1, length, model.config.embed_dim))
    shapes = jax.eval_shape(lambda: init(model, x, ones, ones))

    def loss(x, params):
        return model.apply({"params": params}, x, ones, ones).astype(jnp.float32).sum()

    return jax.jit(jax.grad(loss)).trace(x, shapes).lower(lowering_platforms=platforms).as_text()


def decoder(**changes):
    pattern = {"layer_pattern": ("local", "global"), "sliding_window": 40, "remat": "full"}
    return Decoder(decoder_config(dtype="bfloat16", attention_softcap=5.0, **pattern, **changes))


def test_a_step_with_the_kernel_lowers_for_tpu():
    # Of both layers: forward, forward again (remat), and two kernels backward.
    assert lowered(decoder(attention_backend="splash"), LENGTH).count("tpu_custom_call") == 8


def test_auto_takes_the_kernel_on_tpu_where_it_fits(monkeypatch):
    assert "tpu_custom_call" not in lowered(decoder(), LENGTH)
    monkeypatch.setattr(splash, "platform", lambda: "tpu")
    assert lowered(decoder(), LENGTH).count("tpu_custom_call") == 8
    assert "tpu_custom_call" not in lowered(decoder(), 100)


def test_the_platform_is_the_meshs():
    assert splash.platform() == "cpu"
    with Partitioner().context():
        assert jax.jit(lambda: len(splash.platform()))() == len("cpu")


def test_why_it_cannot_be_is_said():
    short = draw()[0][:, :100]
    with pytest.raises(UserError, match="length 100 is not a multiple of 128"):
        causal_attention(short, short, short, SEGMENTS[:, :100], backend="splash")
    with pytest.raises(UserError, match='backend "flash" is not one of'):
        causal_attention(short, short, short, SEGMENTS[:, :100], backend="flash")
