"""Ranking metrics from ranks: one relevant item per user, rank 1 is best."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32, Float64, Shaped

MISSED = np.inf
"""Rank of a target that is not in a cut-off ranked list: every metric gives it 0."""


def hit_rate(ranks: Shaped[np.ndarray, " users"], k: int) -> Float64[np.ndarray, " users"]:
    """HR@k per user: 1 where rank <= k. With one relevant item it equals Recall@k."""
    return (_checked(ranks) <= k).astype(np.float64)


def ndcg(ranks: Shaped[np.ndarray, " users"], k: int) -> Float64[np.ndarray, " users"]:
    """NDCG@k per user: 1 / log2(1 + rank) where rank <= k, else 0.

    With one relevant item the ideal DCG is 1 (Järvelin & Kekäläinen 2002, binary gain).
    """
    ranks = _checked(ranks)
    return np.where(ranks <= k, 1.0 / np.log2(1.0 + ranks), 0.0)


def reciprocal_rank(
    ranks: Shaped[np.ndarray, " users"], k: int | None = None
) -> Float64[np.ndarray, " users"]:
    """1 / rank per user; its mean is MRR. With `k`, ranks beyond k count 0 (MRR@k)."""
    ranks = _checked(ranks)
    reciprocal = 1.0 / ranks
    return reciprocal if k is None else np.where(ranks <= k, reciprocal, 0.0)


def per_user(
    ranks: Shaped[np.ndarray, " users"], cutoffs: Sequence[int] = (1, 5, 10)
) -> dict[str, Float64[np.ndarray, " users"]]:
    """Per-user values of "hr@k" and "ndcg@k" for each cut-off k, and "mrr@K" for the largest K."""
    values = {}
    for k in cutoffs:
        values[f"hr@{k}"] = hit_rate(ranks, k)
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


def _checked(ranks: Shaped[np.ndarray, " users"]) -> Float64[np.ndarray, " users"]:
    ranks = np.asarray(ranks, np.float64)
    if not (ranks >= 1).all():
        raise ValueError("ranks start at 1")
    return ranks
