"""Attention with a float32 softmax, its masks, and writing into a key-value cache."""

from collections.abc import Callable
from typing import Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ilm_jax.errors import UserError
from ilm_jax.models import blocked_attention, splash
from ilm_jax.models.products import add_bias

BACKENDS = ("auto", "xla", "blocked", "splash")

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
    softcap: float | None = None,
) -> Float[Array, "batch length heads dim"]:
    """softmax(q k^T / sqrt(dim)) v, several query heads to a key head (GQA, arXiv 2305.13245).

    Args:
      query: query heads, a multiple of the key heads; heads of one group are neighbours.
      key, value: key heads.
      mask: True where a query may look; all if None.
      dropout: applied to the attention weights.
      bias: added to the scaled scores, as T5's relative positions are.
      scale: of the scores, dim^-0.5 if None.
      softcap: bounds the scaled scores to +-softcap by tanh (Gemma 2, arXiv 2408.00118, eq. 1).

    Returns:
      In query's dtype. Scores, softmax and sums are float32.
    """
    batch, length, heads, dim = query.shape
    kv_heads = key.shape[2]
    grouped = query.reshape(batch, length, kv_heads, heads // kv_heads, dim)
    scores = jnp.einsum("bskgd,btkd->bkgst", grouped, key, preferred_element_type=jnp.float32)
    scores = scores * (dim**-0.5 if scale is None else scale)
    if softcap is not None:
        scores = soft_cap(scores, softcap)
    if bias is not None:
        shape = (bias.shape[0], *scores.shape[1:3], *bias.shape[2:])
        bias = bias.astype(jnp.float32).reshape(shape)
        one = bias.shape[1:] == scores.shape[1:] and bias.shape[0] == 1
        scores = add_bias(scores, bias[0]) if one else scores + bias
    if mask is not None:
        scores = jnp.where(mask[:, None, None], scores, NEGATIVE)
    weights = _softmax(scores)
    if dropout is not None:
        weights = dropout(weights)
    out = jnp.einsum(
        "bkgst,btkd->bskgd",
        weights.astype(value.dtype),
        value,
        preferred_element_type=jnp.float32,
    )
    return out.reshape(batch, length, heads, dim).astype(query.dtype)


@jax.custom_jvp
def _softmax(scores: Float[Array, "*batch keys"]) -> Float[Array, "*batch keys"]:
    """Softmax over keys, whose derivative reads its result alone.

    Differentiation as written keeps exponentials and their sums beside it, and reads all three;
    `jax.nn.softmax` does so unless JAX_SOFTMAX_CUSTOM_JVP is set, for a whole program at once.
    """
    weights = jnp.exp(scores - scores.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


@_softmax.defjvp
def _softmax_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    weights = _softmax(*primals)
    (change,) = tangents
    return weights, weights * (change - (weights * change).sum(-1, keepdims=True))


def causal_attention(
    query: Float[Array, "batch length heads dim"],
    key: Float[Array, "batch length kv_heads dim"],
    value: Float[Array, "batch length kv_heads dim"],
    segment_ids: Int[Array, "batch length"],
    *,
    window: int | None = None,
    scale: float | None = None,
    softcap: float | None = None,
    backend: str = "auto",
) -> Float[Array, "batch length heads dim"]:
    """Attention of a row to itself: earlier tokens of the same segment, at most `window` back.

    Args:
      query, key, value, scale, softcap: as in `dot_product_attention`.
      segment_ids: 0 is padding. Tokens of a segment are neighbours, so that distances in the row
        are distances in positions.
      window: how many tokens are seen, the own one included; all if None.
      backend: "xla"; "blocked" (the same in blocks, which computes and keeps no scores that are not
        needed); "splash" (a Pallas kernel for TPU, which never holds the scores of a row); or
        "auto": splash on TPU where the kernel takes the shape, blocked on CPU where rows are long,
        and xla everywhere else.

    Raises:
      UserError: for another backend, or if splash is asked for and cannot take the shape.
    """
    if backend not in BACKENDS:
        raise UserError(f'attention backend "{backend}" is not one of {", ".join(BACKENDS)}')
    if backend == "auto":
        backend = _best(query, key)
    if backend == "splash":
        return splash.attention(query, key, value, segment_ids, window, scale, softcap)
    if backend == "blocked":
        return blocked_attention.attention(query, key, value, segment_ids, window, scale, softcap)
    mask = causal_segment_mask(segment_ids, window)
    return dot_product_attention(query, key, value, mask, scale=scale, softcap=softcap)


def _best(query: Float[Array, "batch length heads dim"], key: Array) -> str:
    platform = splash.platform()
    if platform == "tpu" and splash.why_not(query, key) is None:
        return "splash"
    long = query.shape[1] >= blocked_attention.LEAST_LENGTH
    return "blocked" if platform == "cpu" and long else "xla"


def soft_cap(x: Float[Array, "*shape"], cap: float) -> Float[Array, "*shape"]:
    """cap * tanh(x / cap)."""
    return jnp.tanh(x / cap) * cap


def causal_segment_mask(
    segment_ids: Int[Array, "batch length"], window: int | None = None
) -> Bool[Array, "batch length length"]:
    """True where the key is in the query's segment, not later, and fewer than `window` back.

    Padding is segment 0: nobody real sees it, and it sees itself, so no row is empty.
    """
    length = segment_ids.shape[1]
    causal = jnp.tril(jnp.ones((length, length), bool))
    if window is not None:
        causal = causal & jnp.triu(jnp.ones((length, length), bool), 1 - window)
    return causal[None] & (segment_ids[:, :, None] == segment_ids[:, None, :])


def write_cache(
    cache: Float[Array, "batch keys heads dim"],
    new: Float[Array, "batch length heads dim"],
    positions: Int[Array, "batch length"],
    valid: Bool[Array, "batch length"],
) -> Float[Array, "batch keys heads dim"]:
    """The cache with `new` at each row's own `positions`; invalid entries are dropped."""
    index = jnp.where(valid, positions, cache.shape[1])

    def write_row(row: Array, at: Array, values: Array) -> Array:
        """One row's values at their places; a place outside the cache is dropped."""
        return row.at[at].set(values, mode="drop")

    return jax.vmap(write_row)(cache, index, new.astype(cache.dtype))


def cache_mask(
    positions: Int[Array, "batch length"], keys: int
) -> Bool[Array, "batch length keys"]:
    """True at the entries of a cache not later than each position.

    Rows are left-aligned, so entries 0..position are exactly what the row has written so far.
    """
    return jnp.arange(keys)[None, None, :] <= positions[:, :, None]


def within(
    positions: Int[Array, "batch length"], keys: Int[Array, "batch keys"], window: int
) -> Bool[Array, "batch length keys"]:
    """True where a key's position is fewer than `window` before the query's."""
    return positions[:, :, None] - keys[:, None, :] < window


class WithHeads(Protocol):
    """Sizes of attention."""

    @property
    def embed_dim(self) -> int:
        """Width of the states."""

    @property
    def num_heads(self) -> int:
        """How many heads share it."""


def check_heads(config: WithHeads) -> None:
    """Raises UserError if heads of no given width do not divide `embed_dim`."""
    if getattr(config, "head_dim", None) is None and config.embed_dim % config.num_heads:
        raise UserError(
            f"{type(config).__name__}.embed_dim={config.embed_dim} is not divisible by "
            f"num_heads={config.num_heads}"
        )
