"""Attention in blocks is attention: values and gradients, whatever is hidden."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ilm_jax.models import attention, blocked_attention
from ilm_jax.models.counting import count_dot_flops

LENGTH = 23
CASES = {
    "causal": {},
    "window": {"window": 6},
    "window of a block": {"window": 5},
    "cap": {"softcap": 2.0, "scale": 0.7},
    "one block": {"block": 99},
}


def arrays(length=LENGTH, heads=4, kv_heads=2, dtype=jnp.float32):
    rng = np.random.default_rng(0)
    shapes = [(2, length, h, 8) for h in (heads, kv_heads, kv_heads)]
    return [jnp.asarray(rng.normal(size=shape), dtype) for shape in shapes]


def segments(length=LENGTH):
    """A packed row with padding at its end, and a row that is one example."""
    packed = np.repeat([1, 2, 3, 0], [9, 4, 7, length - 20])
    return jnp.asarray(np.stack([packed, np.ones_like(packed)]), jnp.int32)


def evaluated(function, inputs):
    def loss(q, k, v):
        out = function(q, k, v)
        return (out * jnp.cos(jnp.arange(out.size).reshape(out.shape))).sum(), out

    (_, out), gradients = jax.value_and_grad(loss, (0, 1, 2), has_aux=True)(*inputs)
    return out, *gradients


@pytest.mark.parametrize("how", CASES.values(), ids=CASES.keys())
def test_values_and_gradients_are_those_of_the_whole_square(how):
    how = {"block": 5} | how
    plain = {name: value for name, value in how.items() if name != "block"}
    blocked = functools.partial(blocked_attention.attention, segment_ids=segments(), **how)
    whole = functools.partial(
        attention.causal_attention, segment_ids=segments(), backend="xla", **plain
    )
    got, want = (jax.jit(functools.partial(evaluated, f))(arrays()) for f in (blocked, whole))
    for g, w in zip(got, want, strict=True):
        assert np.isfinite(g).all()
        np.testing.assert_allclose(g, w, atol=2e-5, rtol=1e-5)


def test_half_of_the_square_is_not_computed():
    inputs, ids = arrays(480), jnp.ones((2, 480), jnp.int32)

    def flops(backend):
        def loss(q, k, v):
            return attention.causal_attention(q, k, v, ids, backend=backend).sum()

        return count_dot_flops(jax.make_jaxpr(jax.grad(loss, (0, 1, 2)))(*inputs))

    # Five blocks: 15 of 25 squares, and one product more in the backward pass: scores, again.
    assert flops("blocked") / flops("xla") == pytest.approx(15 / 25 * 7 / 6)


def test_low_precision_rows_are_summed_in_float32():
    low = arrays(dtype=jnp.bfloat16)
    blocked = functools.partial(blocked_attention.attention, block=5)
    got = jax.jit(blocked)(*low, segments())
    want = jax.jit(functools.partial(attention.causal_attention, backend="xla"))(*low, segments())
    assert got.dtype == jnp.bfloat16
    np.testing.assert_allclose(got.astype(jnp.float32), want.astype(jnp.float32), atol=0.03)


@pytest.mark.parametrize("length, blocks", [(8, False), (400, True)])
def test_it_is_chosen_on_cpu_where_rows_are_long(length, blocks):
    def program(backend):
        ids = jnp.ones((2, length), jnp.int32)
        call = functools.partial(attention.causal_attention, segment_ids=ids, backend=backend)
        return str(jax.make_jaxpr(call)(*arrays(length)))

    assert program("auto") == program("blocked" if blocks else "xla")
