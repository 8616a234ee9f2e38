"""Attention with a float32 softmax, rotary positions, and writing into a key-value cache."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

# Finite, so that a row with nothing to see gives the mean of its values and not NaN.
NEGATIVE = -1e30


def dot_product_attention(
    query: Float[Array, "batch length heads dim"],
    key: Float[Array, "batch keys kv_heads dim"],
    value: Float[Array, "batch keys kv_heads dim"],
    mask: Bool[Array, "#batch #length keys"] | None = None,
    dropout: Callable[[Array], Array] | None = None,
    bias: Float[Array, "#batch heads #length keys"] | None = None,
    scale: float | None = None,
) -> Float[Array, "batch length heads dim"]:
    """softmax(q k^T / sqrt(dim)) v, several query heads to a key head (GQA, arXiv 2305.13245).

    Args:
      query: query heads, a multiple of the key heads; heads of one group are neighbours.
      key, value: key heads.
      mask: True where a query may look; all if None.
      dropout: applied to the attention weights.
      bias: added to the scaled scores, as T5's relative positions are.
      scale: of the scores, dim^-0.5 if None.

    Returns:
      In query's dtype. Scores, softmax and sums are float32.
    """
    batch, length, heads, dim = query.shape
    kv_heads = key.shape[2]
    grouped = query.reshape(batch, length, kv_heads, heads // kv_heads, dim)
    scores = jnp.einsum("bskgd,btkd->bkgst", grouped, key, preferred_element_type=jnp.float32)
    scores = scores * (dim**-0.5 if scale is None else scale)
    if bias is not None:
        shape = (bias.shape[0], *scores.shape[1:3], *bias.shape[2:])
        scores = scores + bias.astype(jnp.float32).reshape(shape)
    if mask is not None:
        scores = jnp.where(mask[:, None, None], scores, NEGATIVE)
    weights = jax.nn.softmax(scores, axis=-1)
    if dropout is not None:
        weights = dropout(weights)
    out = jnp.einsum(
        "bkgst,btkd->bskgd",
        weights.astype(value.dtype),
        value,
        preferred_element_type=jnp.float32,
    )
    return out.reshape(batch, length, heads, dim).astype(query.dtype)


def causal_segment_mask(
    segment_ids: Int[Array, "batch length"],
) -> Bool[Array, "batch length length"]:
    """True where the key is not later than the query and in the same segment.

    Padding is segment 0: nobody real sees it, and it sees itself, so no row is empty.
    """
    length = segment_ids.shape[1]
    causal = jnp.tril(jnp.ones((length, length), bool))
    return causal[None] & (segment_ids[:, :, None] == segment_ids[:, None, :])


def rotary(
    x: Float[Array, "batch length heads dim"], positions: Int[Array, "batch length"], theta: float
) -> Float[Array, "batch length heads dim"]:
    """Rotates halves of every head by position (RoPE, Su et al. 2021, arXiv 2104.09864).

    Dimension i is paired with i + dim/2 (the layout of Llama, Gemma and Qwen checkpoints) and
    turned by positions * theta^(-2i/dim) radians, in float32.
    """
    half = x.shape[-1] // 2
    frequencies = theta ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angles = positions.astype(jnp.float32)[..., None, None] * frequencies
    sin, cos = jnp.sin(angles), jnp.cos(angles)
    left, right = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    turned = [left * cos - right * sin, right * cos + left * sin]
    return jnp.concatenate(turned, axis=-1).astype(x.dtype)


def write_cache(
    cache: Float[Array, "batch keys heads dim"],
    new: Float[Array, "batch length heads dim"],
    positions: Int[Array, "batch length"],
    valid: Bool[Array, "batch length"],
) -> Float[Array, "batch keys heads dim"]:
    """The cache with `new` at each row's own `positions`; invalid entries are dropped."""
    index = jnp.where(valid, positions, cache.shape[1])

    def write_row(row: Array, at: Array, values: Array) -> Array:
        return row.at[at].set(values, mode="drop")

    return jax.vmap(write_row)(cache, index, new.astype(cache.dtype))


def cache_mask(
    positions: Int[Array, "batch length"], keys: int
) -> Bool[Array, "batch length keys"]:
    """True at the entries of a cache not later than each position.

    Rows are left-aligned, so entries 0..position are exactly what the row has written so far.
    """
    return jnp.arange(keys)[None, None, :] <= positions[:, :, None]
