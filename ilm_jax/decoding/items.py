"""From scored strings to scored items: shared strings tie, an item's strings add up."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32, Int, Int32

from ilm_jax.decoding.pool import take, top
from ilm_jax.decoding.trie import Trie


def items_of_leaves(
    trie: Trie,
    leaves: Int32[Array, "batch found"],
    scores: Float32[Array, "batch found"],
    keep: int,
    excluded: Int[Array, "batch excluded"] | None = None,
) -> tuple[Int32[Array, "batch keep"], Float32[Array, "batch keep"]]:
    """The best `keep` items, best first; equal ones in the order of their rows.

    Args:
      trie: of the leaves.
      leaves: distinct in each row.
      scores: of the leaves; -inf for none.
      keep: how many items.
      excluded: item rows that are none, for leaves that several items share.

    Returns:
      (item rows, scores); -1 and -inf behind the last.
    """
    items = trie.leaf_items[leaves]
    exists = (items >= 0) & (scores > -jnp.inf)[..., None]
    if excluded is not None and items.shape[-1] > 1:
        hit = (items[..., None] == excluded[:, None, None, :]).any(axis=-1)
        exists = exists & ~hit
    scores = jnp.where(exists, scores[..., None], -jnp.inf).reshape(len(leaves), -1)
    items = jnp.where(exists, items, jnp.iinfo(jnp.int32).max).reshape(len(leaves), -1)
    # By item, so that the earlier of equal scores is the smaller row.
    order = jnp.argsort(items, axis=1)
    items, scores = take(items, order), take(scores, order)
    if trie.item_leaves.shape[1] > 1:
        scores = _sum_runs(items, scores)
    best, index = top(scores, keep)
    return jnp.where(best > -jnp.inf, take(items, index), -1), best


def _sum_runs(
    items: Int32[Array, "batch found"], scores: Float32[Array, "batch found"]
) -> Float32[Array, "batch found"]:
    """Log of the summed probabilities of each run of equal items, at its first; -inf elsewhere."""
    first = jnp.pad(items[:, 1:] != items[:, :-1], ((0, 0), (1, 0)), constant_values=True)
    run = jnp.cumsum(first, axis=1) - 1
    size = items.shape[1]

    def reduce(run: Array, scores: Array) -> Array:
        """Log of the summed probabilities of each run, at every member."""
        most = jax.ops.segment_max(scores, run, size)
        safe = jnp.where(jnp.isfinite(most), most, 0)
        total = jax.ops.segment_sum(jnp.exp(scores - safe[run]), run, size)
        return (safe + jnp.log(total))[run]

    return jnp.where(first & (scores > -jnp.inf), jax.vmap(reduce)(run, scores), -jnp.inf)
