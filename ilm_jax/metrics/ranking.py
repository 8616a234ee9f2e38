"""Ranking metrics from the ranks of the relevant items; rank 1 is best, infinity not listed.

Ranks are [users], where each user has one relevant item, or [users, most], where they have
several: NaN fills the rows of users with fewer. `ilm_jax.metrics.lists` makes either from ranked
lists. A metric at k divides by what the ideal list could hold, never by the length of a short list.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32, Float64, Shaped

MISSED = np.inf
"""Rank of a relevant item that is not in a cut-off ranked list: every metric gives it 0."""

Ranks = Shaped[np.ndarray, " users"] | Shaped[np.ndarray, "users most"]


def hit_rate(ranks: Ranks, k: int) -> Float64[np.ndarray, " users"]:
    """HR@k per user: 1 where any relevant item has rank <= k."""
    return np.asarray((_checked(ranks) <= k).any(axis=1), np.float64)


def recall(ranks: Ranks, k: int) -> Float64[np.ndarray, " users"]:
    """Recall@k per user: relevant items of rank <= k over all its relevant items.

    With one relevant item it equals HR@k.
    """
    ranks = _checked(ranks)
    return np.asarray((ranks <= k).sum(axis=1) / _known(ranks))


def ndcg(ranks: Ranks, k: int) -> Float64[np.ndarray, " users"]:
    """NDCG@k per user, binary gain: sum of 1 / log2(1 + rank) over that of the ideal list.

    The ideal list has min(k, relevant items) hits at its head (Järvelin & Kekäläinen 2002); with
    one relevant item its gain is 1.
    """
    ranks = _checked(ranks)
    gained = np.where(ranks <= k, 1.0 / np.log2(1.0 + ranks), 0.0).sum(axis=1)
    ideal = np.cumsum(1.0 / np.log2(np.arange(2, k + 2)))
    return np.asarray(gained / ideal[np.minimum(_known(ranks), k) - 1])


def reciprocal_rank(ranks: Ranks, k: int | None = None) -> Float64[np.ndarray, " users"]:
    """1 / rank of each user's best relevant item; its mean is MRR.

    With `k`, ranks beyond k count 0 (MRR@k).
    """
    best = np.nanmin(_checked(ranks), axis=1)
    return np.where(best <= (MISSED if k is None else k), 1.0 / best, 0.0)


def per_user(
    ranks: Ranks, cutoffs: Sequence[int] = (1, 5, 10)
) -> dict[str, Float64[np.ndarray, " users"]]:
    """Per-user values by name: "hr@k" and "ndcg@k" for each cut-off k, "mrr@K" for the largest K.

    Where users have several relevant items, also "recall@k": with one it is "hr@k".
    """
    values = {}
    for k in cutoffs:
        values[f"hr@{k}"] = hit_rate(ranks, k)
        if np.ndim(ranks) == 2:
            values[f"recall@{k}"] = recall(ranks, k)
        values[f"ndcg@{k}"] = ndcg(ranks, k)
    values[f"mrr@{max(cutoffs)}"] = reciprocal_rank(ranks, max(cutoffs))
    return values


def rank_of_target(
    scores: Float32[np.ndarray, " items"], target: int, masked: Shaped[np.ndarray, " masked"]
) -> int:
    """Full-catalogue rank of `target` with the rows in `masked` (except the target) left out.

    Ties count against the target: rank = 1 + number of other unmasked items that score at least
    as high. A model that scores everything alike therefore earns nothing. NaN scores raise.
    This is the readable definition; `ilm_jax.cf.evaluation` computes the same in blocks.
    """
    if np.isnan(scores).any():
        raise ValueError("NaN among the scores")
    open_ = np.ones(len(scores), bool)
    open_[masked] = False
    open_[target] = False
    return 1 + int(np.sum(scores[open_] >= scores[target]))


def _known(ranks: Float64[np.ndarray, "users most"]) -> Shaped[np.ndarray, " users"]:
    return (~np.isnan(ranks)).sum(axis=1)


def _checked(ranks: Ranks) -> Float64[np.ndarray, "users most"]:
    ranks = np.asarray(ranks, np.float64)
    ranks = ranks[:, None] if ranks.ndim == 1 else ranks
    if ranks.ndim != 2 or not ((ranks >= 1) | np.isnan(ranks)).all():
        raise ValueError("ranks start at 1")
    if not _known(ranks).all():
        raise ValueError("ranks start at 1, and a user without a relevant item has none")
    return ranks
