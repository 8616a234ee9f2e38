"""The best k items of every user over the whole catalogue, without users x items in memory.

Users go in blocks and items in blocks; what is kept of a block of users is its best k so far.
Items that a user already had are no candidates. Ties go to the lower row number.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Float64, Int32, Int64

from ilm_jax.cf.interactions import Interactions

USER_BLOCK, ITEM_BLOCK = 512, 16384
"""Scores that exist at once: 32 MiB in float32."""


def best_items(
    user: Float32[np.ndarray, "users dim"],
    item: Float32[np.ndarray, "items dim"],
    seen: Interactions,
    k: int,
    *,
    user_block: int = USER_BLOCK,
    item_block: int = ITEM_BLOCK,
) -> Int32[np.ndarray, "users k"]:
    """Rows of the k items with the highest <user, item>, best first; -1 where there are no more.

    Args:
      user, item: vectors.
      seen: items of each user that are left out (training interactions).
      k: length of the lists; no users give no lists.
      user_block, item_block: sizes of the blocks.

    Raises:
      ValueError: if `seen` is of other sizes, a vector is not finite, k < 1, or there is no item.
    """
    if (seen.num_users, seen.num_items) != (len(user), len(item)):
        raise ValueError(
            f"interactions of {seen.num_users} x {seen.num_items} and vectors of "
            f"{len(user)} x {len(item)}: give those of one split"
        )
    if not (np.isfinite(user).all() and np.isfinite(item).all()):
        raise ValueError("a vector is not finite")
    if k < 1 or not len(item):
        raise ValueError(f"k={k} of {len(item)} items: give k and items of at least 1")
    items, biases = in_blocks(jnp.asarray(item, jnp.float32), jnp.zeros(len(item)), item_block)
    found = np.full((len(user), k), -1, np.int32)
    # Users of like history lengths share a block, so that little is padded.
    order = np.argsort(seen.lengths, kind="stable")
    size = max(1, min(user_block, len(user)))
    for first in range(0, len(order), size):
        chosen = order[first : first + size]
        longest = 1 << max(3, int(seen.lengths[chosen].max() - 1).bit_length())
        rows = np.concatenate([chosen, np.full(size - len(chosen), chosen[-1])])
        masked = seen.padded(rows, longest, len(item))
        best = _scan(jnp.asarray(user[rows]), items, biases, masked, k=k)[0]
        found[chosen] = np.asarray(best)[: len(chosen)]
    return found


def in_blocks(
    vectors: Float32[Array, "items dim"], biases: Float32[Array, " items"], block: int
) -> tuple[Float32[Array, "blocks block dim"], Float32[Array, "blocks block"]]:
    """Items in blocks of one size, the last filled up with items whose bias is -inf."""
    block = min(block, len(vectors))
    short = -len(vectors) % block
    vectors = jnp.pad(vectors, ((0, short), (0, 0)))
    biases = jnp.pad(biases, (0, short), constant_values=-jnp.inf)
    return vectors.reshape(-1, block, vectors.shape[1]), biases.reshape(-1, block)


def best_scored(
    user: Float32[Array, "batch dim"],
    blocks: Float32[Array, "blocks block dim"],
    biases: Float32[Array, "blocks block"],
    masked: Int32[Array, "batch most"],
    *,
    k: int,
) -> tuple[Int32[Array, "batch k"], Float32[Array, "batch k"]]:
    """(rows, scores) of the k items with the highest <user, item> + bias, best first; traced.

    Args:
      user: vectors.
      blocks, biases: of the items, see `in_blocks`; one whose bias is -inf is no candidate.
      masked: per user, rows of items that are no candidates; what is no row is none.
      k: length of the lists, filled up with -1 and -inf.
    """
    batch, block = len(user), blocks.shape[1]
    rows = jnp.arange(batch)[:, None]

    def merge(
        best: tuple[Array, Array], part: tuple[Array, Array, Array]
    ) -> tuple[tuple[Array, Array], None]:
        """The k best of those known and one more block; masked items are -inf."""
        vectors, bias, start = part
        scores = jnp.matmul(user, vectors.T, precision=jax.lax.Precision.HIGHEST) + bias
        column = masked - start
        column = jnp.where((column >= 0) & (column < block), column, block)
        scores = scores.at[rows, column].set(-jnp.inf, mode="drop")
        top, where = top_k(scores, min(k, block))
        # The earlier blocks stand first, so that ties go to lower rows.
        values = jnp.concatenate([best[0], top], axis=1)
        ids = jnp.concatenate([best[1], (where + start).astype(jnp.int32)], axis=1)
        values, place = jax.lax.top_k(values, k)
        return (values, jnp.take_along_axis(ids, place, axis=1)), None

    start = (jnp.full((batch, k), -jnp.inf), jnp.full((batch, k), -1, jnp.int32))
    starts = jnp.arange(len(blocks), dtype=jnp.int32) * block
    (values, ids), _ = jax.lax.scan(merge, start, (blocks, biases, starts))
    return jnp.where(jnp.isneginf(values), -1, ids), values


_scan = jax.jit(best_scored, static_argnames="k")


def top_k(
    scores: Float32[Array, "batch items"], k: int, group: int = 32
) -> tuple[Float32[Array, "batch k"], Int32[Array, "batch k"]]:
    """`jax.lax.top_k` by way of the maxima of groups, among which the best k must lie.

    Exact, with ties to the lower column; where columns are many it sorts a small part of them.
    """
    batch, columns = scores.shape
    if columns <= 4 * k * group:
        return jax.lax.top_k(scores, k)
    short = -columns % group
    padded = jnp.pad(scores, ((0, 0), (0, short)), constant_values=-jnp.inf)
    groups = padded.reshape(batch, -1, group)
    chosen = jnp.sort(top_k(groups.max(2), k, group)[1], axis=1)
    few = jnp.take_along_axis(groups, chosen[:, :, None], axis=1).reshape(batch, -1)
    values, place = jax.lax.top_k(few, k)
    column = jnp.take_along_axis(chosen, place // group, axis=1) * group + place % group
    return values, column


def list_metrics(
    lists: Int32[np.ndarray, "users k"], held: Interactions, k: int
) -> tuple[
    Int64[np.ndarray, " judged"], Float64[np.ndarray, " judged"], Float64[np.ndarray, " judged"]
]:
    """(users with held-out items, their Recall@k, their NDCG@k), several targets each.

    Recall@k = hits / min(k, held-out items): 1 is reachable (Liang et al. 2018). NDCG@k = DCG over
    that of min(k, held-out items) hits at the top.

    Raises:
      ValueError: if the lists are shorter than k, or nobody has a held-out item.
    """
    if lists.shape != (held.num_users, max(k, lists.shape[1])):
        raise ValueError(f"lists {lists.shape} for {held.num_users} users at k={k}")
    users = np.flatnonzero(held.lengths > 0)
    if not len(users):
        raise ValueError("nobody has a held-out item")
    keys = held.users.astype(np.int64) * (held.num_items + 1) + held.items
    asked = users[:, None].astype(np.int64) * (held.num_items + 1) + lists[users, :k]
    hits = np.isin(asked, keys) & (lists[users, :k] >= 0)
    most = np.minimum(held.lengths[users], k)
    discount = 1.0 / np.log2(np.arange(2, k + 2))
    ideal = np.cumsum(discount)[most - 1]
    return users, hits.sum(1) / most, (hits * discount).sum(1) / ideal
