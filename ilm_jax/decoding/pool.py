"""Finished continuations of a beam search, and when to stop: Hugging Face's rules.

As in `GenerationMixin._beam_search` of transformers 4.50 and later, row by row: a continuation that
ends among the `beams` best candidates enters the pool with its length-normalised score, the pool
keeps the best, and the beams go on with the best candidates that do not end.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float32, Int, PyTree

from ilm_jax.decoding.config import EarlyStopping


class Pool(NamedTuple):
    """The best finished continuations, best first; -inf where there is none yet.

    Attributes:
      scores: normalised by length.
      what: arrays that tell the continuations, [batch, beams, ...].
    """

    scores: Float32[Array, "batch beams"]
    what: PyTree[Array]


def take(what: PyTree[Array], index: Int[Array, "batch keep"]) -> PyTree[Array]:
    """Those of the second axis, of every array."""

    def one(leaf: Array) -> Array:
        """The chosen beams of one leaf [batch, beams, ...]."""
        return jnp.take_along_axis(leaf, index.reshape(*index.shape, *(1,) * (leaf.ndim - 2)), 1)

    return jax.tree.map(one, what)


def top(
    scores: Float32[Array, "batch candidates"], keep: int
) -> tuple[Float32[Array, "batch keep"], Int[Array, "batch keep"]]:
    """The `keep` best and their indices; the earlier of equal ones first. Filled up with -inf."""
    short = keep - scores.shape[1]
    if short > 0:
        scores = jnp.pad(scores, ((0, 0), (0, short)), constant_values=-jnp.inf)
    best, index = jax.lax.top_k(scores, keep)
    return best, jnp.minimum(index, scores.shape[1] - max(short, 0) - 1)


def add(
    pool: Pool,
    scores: Float32[Array, "batch candidates"],
    what: PyTree[Array],
    length: Int[Array, ""] | int,
    length_penalty: float,
    done: Bool[Array, " batch"],
) -> Pool:
    """The pool with candidates of `length` tokens; -inf are none. Rows that are done stay."""
    scores = scores / norm(length, length_penalty)
    scores = jnp.where(done[:, None], -jnp.inf, scores)
    merged = jnp.concatenate([pool.scores, scores], axis=1)
    joined = jax.tree.map(lambda a, b: jnp.concatenate([a, b], axis=1), pool.what, what)
    best, index = top(merged, pool.scores.shape[1])
    return Pool(best, take(joined, index))


def is_done(
    pool: Pool,
    running: Float32[Array, "batch lanes"],
    length: Int[Array, ""] | int,
    most: int,
    length_penalty: float,
    early_stopping: EarlyStopping,
) -> Bool[Array, " batch"]:
    """Rows whose pool no longer changes.

    Args:
      pool: the finished.
      running: log-probabilities of the beams that go on, best first; -inf for none.
      length: their number of tokens.
      most: number of tokens at most.
      length_penalty, early_stopping: as in `DecodingConfig`.
    """
    full = jnp.all(pool.scores > -jnp.inf, axis=1)
    stuck = running[:, 0] == -jnp.inf
    if early_stopping is True:
        # The rule of False holds here too: it never stops a row later than this one.
        stuck = stuck | full
    reach = most if early_stopping == "never" and length_penalty > 0 else length
    hopeless = running[:, 0] / norm(reach, length_penalty) <= pool.scores[:, -1]
    return stuck | (full & hopeless)


def norm(length: Array | int, length_penalty: float) -> Float32[Array, "..."]:
    """The divisor of log-probabilities of strings of `length` tokens."""
    return jnp.asarray(length, jnp.float32) ** length_penalty
