"""Attention agrees with a plain NumPy reading of its formula, and rows without keys are finite."""

import jax
import jax.numpy as jnp
import numpy as np

from ilm_jax.models.attention import causal_segment_mask, dot_product_attention, write_cache
from ilm_jax.models.rope import rotary

KEY = jax.random.key(0)


def test_matches_the_formula_with_grouped_heads():
    q, k, v = (jax.random.normal(jax.random.key(i), (2, 5, h, 4)) for i, h in enumerate((6, 2, 2)))
    mask = jnp.tril(jnp.ones((1, 5, 5), bool))
    out = dot_product_attention(q, k, v, mask)
    for head in range(6):
        keys, values = np.asarray(k[:, :, head // 3]), np.asarray(v[:, :, head // 3])
        scores = np.einsum("bsd,btd->bst", q[:, :, head], keys) / 2
        scores = np.exp(np.where(mask, scores, -np.inf))
        weights = scores / scores.sum(-1, keepdims=True)
        np.testing.assert_allclose(out[:, :, head], weights @ values, rtol=1e-5, atol=1e-6)


def test_a_row_that_sees_nothing_is_finite_forwards_and_backwards():
    x = jax.random.normal(KEY, (1, 3, 2, 4))
    mask = jnp.zeros((1, 3, 3), bool)
    value, grad = jax.value_and_grad(lambda x: dot_product_attention(x, x, x, mask).sum())(x)
    assert np.isfinite(value) and np.isfinite(grad).all()


def test_gradients_are_those_of_the_plain_softmax():
    draw = np.random.default_rng(3)
    query, key, value, weights = (draw.normal(size=(2, 5, 2, 4)) for _ in range(4))
    mask = np.tril(np.ones((1, 5, 5), bool))

    def plain(q, k, v):
        scores = jnp.einsum("bshd,bthd->bhst", q, k) * 4**-0.5
        seen = jax.nn.softmax(jnp.where(mask[:, None], scores, -jnp.inf))
        return (jnp.einsum("bhst,bthd->bshd", seen, v) * weights).sum()

    def ours(q, k, v):
        return (dot_product_attention(q, k, v, mask) * weights).sum()

    inputs = [jnp.asarray(x, jnp.float32) for x in (query, key, value)]
    found, want = (jax.grad(f, argnums=(0, 1, 2))(*inputs) for f in (ours, plain))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), found, want)


def test_padding_is_seen_by_padding_alone():
    mask = np.asarray(causal_segment_mask(jnp.array([[1, 1, 2, 0, 0]]))[0])
    assert mask.astype(int).tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [0, 0, 1, 0, 0],
        [0, 0, 0, 1, 0],
        [0, 0, 0, 1, 1],
    ]


def test_rotary_products_depend_on_distance_alone():
    q, k = (jax.random.normal(jax.random.key(i), (1, 1, 1, 8)) for i in (0, 1))

    def product(i, j):
        at = [jnp.array([[position]]) for position in (i, j)]
        return float((rotary(q, at[0], 100.0) * rotary(k, at[1], 100.0)).sum())

    np.testing.assert_allclose(product(7, 3), product(14, 10), rtol=1e-5)
    assert abs(product(7, 3) - product(7, 4)) > 1e-3
    np.testing.assert_array_equal(rotary(q, jnp.array([[0]]), 100.0), q)


def test_cache_rows_are_written_where_each_row_stands():
    cache = jnp.zeros((2, 4, 1, 1))
    new = jnp.arange(1.0, 5.0).reshape(2, 2, 1, 1)
    positions = jnp.array([[0, 1], [2, 3]])
    valid = jnp.array([[True, True], [True, False]])
    written = write_cache(cache, new, positions, valid)[..., 0, 0]
    assert written.tolist() == [[1, 2, 0, 0], [0, 0, 3, 0]]
