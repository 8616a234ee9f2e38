"""Causal attention in blocks of queries, each against the keys that it can see, in plain XLA.

What causality and the window hide is not computed, which is almost half of a square of scores; and
the backward pass makes the weights of a block again from the log-sum-exp of its rows (Dao et al.
2022, arXiv 2205.14135), so that no scores are kept. It is for CPUs, where the products of one head
are large enough to run near the speed of any product, and the scores of a row are more than caches
hold; TPUs have a kernel for it (splash.py).
"""

import functools
import math
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32, Int

# Queries of a block at least, and blocks of a row at most: each is compiled.
SMALLEST_BLOCK, MOST_BLOCKS = 96, 8
# A row shorter than two blocks has nothing to leave out.
LEAST_LENGTH = 2 * SMALLEST_BLOCK
NEGATIVE = -1e30

_einsum = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)


# Query, key, value, segments, output, and the logarithm of each row's sum.
_Kept = tuple[Array, Array, Array, Array, Array, Array]


class _How(NamedTuple):
    """What is known when a program is traced."""

    window: int | None
    scale: float
    softcap: float | None
    block: int


class _Part(NamedTuple):
    """A block of queries, and the keys that any of them can see."""

    queries: slice
    keys: slice


def attention(
    query: Float[Array, "batch length heads dim"],
    key: Float[Array, "batch length kv_heads dim"],
    value: Float[Array, "batch length kv_heads dim"],
    segment_ids: Int[Array, "batch length"],
    window: int | None = None,
    scale: float | None = None,
    softcap: float | None = None,
    *,
    block: int | None = None,
) -> Float[Array, "batch length heads dim"]:
    """As `attention.causal_attention`, which see.

    Args:
      block: queries at once; chosen from the length if None.
    """
    batch, length, heads, dim = query.shape
    kv_heads = key.shape[2]
    if block is None:
        block = max(SMALLEST_BLOCK, math.ceil(length / MOST_BLOCKS))
    block = math.ceil(length / math.ceil(length / block))
    how = _How(window, dim**-0.5 if scale is None else scale, softcap, block)
    grouped = query.reshape(batch, length, kv_heads, heads // kv_heads, dim)
    out = _attention(
        how,
        grouped.transpose(0, 2, 1, 3, 4),
        key.transpose(0, 2, 1, 3),
        value.transpose(0, 2, 1, 3),
        segment_ids,
    )
    return out.transpose(0, 2, 1, 3, 4).reshape(query.shape)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attention(
    how: _How,
    query: Float[Array, "batch kv_heads length group dim"],
    key: Float[Array, "batch kv_heads length dim"],
    value: Float[Array, "batch kv_heads length dim"],
    segment_ids: Int[Array, "batch length"],
) -> Float[Array, "batch kv_heads length group dim"]:
    return _forward(how, query, key, value, segment_ids)[0]


def _forward(
    how: _How, query: Array, key: Array, value: Array, segments: Array
) -> tuple[Array, _Kept]:
    outs, sums = [], []
    for part in _parts(how, query.shape[2]):
        q, k, v = query[:, :, part.queries], key[:, :, part.keys], value[:, :, part.keys]
        scores = _scores(how, q, k, part, segments)
        top = scores.max(-1, keepdims=True)
        weights = jnp.exp(scores - top)
        total = weights.sum(-1, keepdims=True)
        out = _product("bkqt,bktd->bkqd", weights.astype(v.dtype), v, q.shape)
        outs.append((out / total).astype(q.dtype))
        sums.append(top + jnp.log(total))
    out, lse = jnp.concatenate(outs, 2), jnp.concatenate(sums, 2)
    return out, (query, key, value, segments, out, lse)


def _backward(how: _How, kept: _Kept, of_out: Array) -> tuple[Array, Array, Array, None]:
    query, key, value, segments, out, lse = kept
    of_query = []
    of_key, of_value = (jnp.zeros(x.mT.shape, jnp.float32) for x in (key, value))
    inner = (of_out.astype(jnp.float32) * out.astype(jnp.float32)).sum(-1, keepdims=True)
    for part in _parts(how, query.shape[2]):
        q, g = query[:, :, part.queries], of_out[:, :, part.queries]
        k, v = key[:, :, part.keys], value[:, :, part.keys]
        scores = _scores(how, q, k, part, segments)
        weights = jnp.exp(scores - lse[:, :, part.queries])
        step = _product("bkqd,bktd->bkqt", g, v, (*q.shape[:-1], k.shape[2]))
        step = weights * (step - inner[:, :, part.queries]) * how.scale
        if how.softcap is not None:
            step = step * (1 - (jnp.maximum(scores / how.softcap, -1)) ** 2)  # 0 where unseen
        step, weights = step.astype(q.dtype), weights.astype(q.dtype)
        of_query.append(_product("bkqt,bktd->bkqd", step, k, q.shape).astype(q.dtype))
        # Of two factors the small one is turned: the other is as large as the scores.
        room = ((0, 0), (0, 0), (0, 0), (part.keys.start, key.shape[2] - part.keys.stop))
        of_key = of_key + jnp.pad(_turned(q, step), room)
        of_value = of_value + jnp.pad(_turned(g, weights), room)
    return (
        jnp.concatenate(of_query, 2),
        of_key.mT.astype(key.dtype),
        of_value.mT.astype(value.dtype),
        None,
    )


_attention.defvjp(_forward, _backward)


def _parts(how: _How, length: int) -> Iterator[_Part]:
    for start in range(0, length, how.block):
        first = 0 if how.window is None else max(0, start - how.window + 1)
        stop = min(start + how.block, length)
        yield _Part(slice(start, stop), slice(first, stop))


def _product(how: str, left: Array, right: Array, shape: tuple[int, ...]) -> Float32[Array, "..."]:
    """An einsum in which queries and groups are one dimension, given and returned apart."""
    left, right = (
        x.reshape(*x.shape[:2], -1, x.shape[-1]) if x.ndim == 5 else x for x in (left, right)
    )
    return _einsum(how, left, right).reshape(shape)


def _turned(rows: Array, step: Array) -> Float32[Array, "batch kv_heads dim keys"]:
    """Rows of queries, summed by what each key has of them."""
    rows, step = (x.reshape(*x.shape[:2], -1, x.shape[-1]) for x in (rows, step))
    return _einsum("bkdq,bkqt->bkdt", rows.mT, step)


def _scores(
    how: _How,
    query: Float[Array, "batch kv_heads block group dim"],
    key: Float[Array, "batch kv_heads keys dim"],
    part: _Part,
    segment_ids: Int[Array, "batch length"],
) -> Float32[Array, "batch kv_heads block group keys"]:
    """Scaled and capped scores; NEGATIVE where nothing is seen."""
    scores = _product("bkqd,bktd->bkqt", query, key, (*query.shape[:-1], key.shape[2])) * how.scale
    if how.softcap is not None:
        scores = jnp.tanh(scores / how.softcap) * how.softcap
    return jnp.where(_seen(how, part, segment_ids)[:, None, :, None], scores, NEGATIVE)


def _seen(
    how: _How, part: _Part, segment_ids: Int[Array, "batch length"]
) -> Bool[Array, "batch block keys"]:
    """As `attention.causal_segment_mask`, of a block."""
    rows = jnp.arange(part.queries.start, part.queries.stop)[:, None]
    columns = jnp.arange(part.keys.start, part.keys.stop)[None, :]
    seen = columns <= rows
    if how.window is not None:
        seen = seen & (columns > rows - how.window)
    same = segment_ids[:, part.queries, None] == segment_ids[:, None, part.keys]
    return seen[None] & same
