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

from ilm_jax.data.splits import TEST, TRAIN, VALID, Splits
from ilm_jax.evaluation.metrics import hit_rate, ndcg

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
    user: Float32[np.ndarray, "users dim"], item: Float32[np.ndarray, "items dim"]
) -> Scorer:
    """A scorer by dot products."""
    user_vectors, item_vectors = jnp.asarray(user), jnp.asarray(item)

    @jax.jit
    def score(users: Int32[Array, " batch"]) -> Float32[Array, "batch items"]:
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


def evaluate(scorer: Scorer, splits: Splits, fold: int = VALID) -> CFResult:
    """Ranks every user's held-back target against the whole catalogue.

    Args:
      scorer: scores all items for a batch of users; always called with full blocks of one size.
      splits: of the catalogue that the scorer's rows belong to.
      fold: VALID or TEST: which of the two held-back interactions.

    Raises:
      ValueError: for fold TRAIN, or if a score is NaN.
    """
    if fold == TRAIN:
        raise ValueError("ranks are of the validation or the test targets")
    of = splits.test_target if fold == TEST else splits.valid_target
    found = [(user, *pair) for user in range(splits.catalogue.num_users) if (pair := of(user))]
    items = splits.catalogue.num_items
    longest = max(len(history) for _, history, _ in found)
    size = max(1, min(len(found), _SCORES // items, 1024))
    users = np.array([user for user, _, _ in found], np.int32)
    ranks = np.zeros(len(found), np.int32)
    for first in range(0, len(found), size):
        # The last block repeats its last user, so that there is one compiled shape.
        block = found[first : first + size]
        padded = block + [block[-1]] * (size - len(block))
        masked = np.full((size, longest), items, np.int32)
        for row, (_, history, _) in enumerate(padded):
            masked[row, : len(history)] = history
        scores = scorer(np.array([user for user, _, _ in padded], np.int32))
        targets = np.array([target for _, _, target in padded], np.int32)
        ranks[first : first + size] = target_ranks(scores, targets, masked)[: len(block)]
    if (ranks == 0).any():
        raise ValueError("NaN among the scores")
    return CFResult(users, ranks)
