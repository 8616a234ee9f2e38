"""Full-catalogue ranking of a collaborative filter on held-back interactions.

Every item of the catalogue is a candidate, except those the user already had (the history before
the target); a target that the history repeats stays a candidate. Ties count against the target:
its rank is 1 + the number of other candidates that score at least as high.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Float64, Int, Int32

from ilm_jax.cf.interactions import Interactions
from ilm_jax.data.catalogue.splits import TEST, TRAIN, VALID, Splits
from ilm_jax.metrics.ranking import hit_rate, ndcg

Scorer = Callable[[Int[np.ndarray, " batch"]], Float[np.ndarray, "batch items"]]
"""Gives the scores of all items for a batch of user rows."""

_SCORES = 1 << 25
"""Bound on users * items scored at once (128 MiB in float32)."""


@dataclasses.dataclass(frozen=True, eq=False)
class CFResult:
    """Ranks of the targets and what they amount to.

    Attributes:
      users: user rows that have a target.
      ranks: the target's rank of each, from 1.
    """

    users: Int32[np.ndarray, " users"]
    ranks: Int32[np.ndarray, " users"]

    def recall(self, k: int = 20) -> Float64[np.ndarray, " users"]:
        """Recall@k per user (one target, so it equals the hit rate)."""
        return hit_rate(self.ranks, k)

    def ndcg(self, k: int = 10) -> Float64[np.ndarray, " users"]:
        """NDCG@k per user."""
        return ndcg(self.ranks, k)


def vector_scorer(
    user: Float32[np.ndarray | Array, "users dim"], item: Float32[np.ndarray | Array, "items dim"]
) -> Scorer:
    """A scorer by dot products."""
    user_vectors, item_vectors = jnp.asarray(user), jnp.asarray(item)

    @jax.jit
    def score(users: Int32[Array, " batch"]) -> Float32[Array, "batch items"]:
        """Inner products of the users with every item, in full float32."""
        highest = jax.lax.Precision.HIGHEST
        return jnp.matmul(user_vectors[users], item_vectors.T, precision=highest)

    return score


@functools.partial(jax.jit)
def target_ranks(
    scores: Float[Array, "batch items"],
    targets: Int32[Array, " batch"],
    masked: Int32[Array, "batch most"],
) -> Int32[Array, " batch"]:
    """Rank of each row's target; `masked` rows are no candidates (pad with the number of items).

    A NaN anywhere among a row's scores gives rank 0, which no valid row has.
    """
    rows = jnp.arange(len(scores))[:, None]
    best = jnp.take_along_axis(scores, targets[:, None], axis=1)
    open_ = jnp.ones(scores.shape, bool).at[rows, masked].set(False, mode="drop")
    open_ = open_.at[rows, targets[:, None]].set(False)
    ranks = 1 + jnp.sum(open_ & (scores >= best), axis=1, dtype=jnp.int32)
    return jnp.where(jnp.isnan(scores).any(axis=1), 0, ranks)


def rank_targets(
    scorer: Scorer,
    seen: Interactions,
    users: Int32[np.ndarray, " users"],
    targets: Int32[np.ndarray, " users"],
) -> Int32[np.ndarray, " users"]:
    """Full-catalogue rank of one target for each of some users, `seen` items left out.

    A block of users and the whole catalogue are scored at once, at most `_SCORES` numbers; users
    with like lengths of history share a block, so that little is padded.

    Args:
      scorer: scores all items for a batch of users; always called with full blocks of one size.
      seen: what each user row had.
      users: rows that have a target.
      targets: its item row.

    Raises:
      ValueError: if there is no user, or a score is NaN.
    """
    if not len(users):
        raise ValueError("no user has a target")
    items = seen.num_items
    size = max(1, min(len(users), _SCORES // items, 1024))
    order = np.argsort(seen.lengths[users], kind="stable")
    ranks = np.zeros(len(users), np.int32)
    for first in range(0, len(users), size):
        # The last block repeats its last user, so that there is one compiled shape a length.
        chosen = order[first : first + size]
        rows = np.concatenate([chosen, np.full(size - len(chosen), chosen[-1])])
        longest = 1 << max(3, int(seen.lengths[users[chosen]].max() - 1).bit_length())
        masked = seen.padded(users[rows], longest, items)
        found = target_ranks(scorer(users[rows]), targets[rows], masked)
        ranks[chosen] = np.asarray(found)[: len(chosen)]
    if (ranks == 0).any():
        raise ValueError("NaN among the scores")
    return ranks


def evaluate(
    scorer: Scorer, splits: Splits, fold: int = VALID, *, exclude_seen: bool = True
) -> CFResult:
    """Ranks every user's held-back target against the whole catalogue.

    Args:
      scorer: scores all items for a batch of users; always called with full blocks of one size.
      splits: of the catalogue that the scorer's rows belong to.
      fold: VALID or TEST: which of the two held-back interactions.
      exclude_seen: whether what a user had before the target is no candidate.

    Raises:
      ValueError: for fold TRAIN, or if a score is NaN.
    """
    seen, users, targets = held_back(splits, fold)
    if not exclude_seen:
        seen = Interactions(np.zeros_like(seen.offsets), seen.items[:0], seen.num_items)
    return CFResult(users, rank_targets(scorer, seen, users, targets))


def held_back(
    splits: Splits, fold: int
) -> tuple[Interactions, Int32[np.ndarray, " users"], Int32[np.ndarray, " users"]]:
    """(what every user had before the target, user rows with a target, their targets).

    Raises:
      ValueError: for fold TRAIN.
    """
    if fold == TRAIN:
        raise ValueError("ranks are of the validation or the test targets")
    offsets, items = splits.catalogue.offsets, splits.catalogue.items
    lengths = np.diff(offsets)
    judged = lengths >= 3
    before = 1 if fold == TEST else 2
    users = np.flatnonzero(judged).astype(np.int32)
    targets = items[offsets[1:][judged] - before]
    past = np.where(judged, lengths - before, lengths)
    return Interactions.first_of(splits.catalogue, past), users, targets
