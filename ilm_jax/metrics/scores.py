"""Metrics of real-valued scores: AUC, UAUC, RMSE, MAE and rank correlation; ties by mid-rank.

Scores that are equal share the mean of their ranks, so a model that scores everything alike has
an AUC of exactly 1/2 and no rank correlation at all.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Shaped


class ByUser(NamedTuple):
    """A metric of every user that has one, in ascending order of the users.

    Attributes:
      users: the users.
      values: their metrics.
      rows: how many rows each one's metric rests on.
    """

    users: Shaped[np.ndarray, " users"]
    values: Float64[np.ndarray, " users"]
    rows: Float64[np.ndarray, " users"]


def mid_ranks(scores: Shaped[np.ndarray, " rows"]) -> Float64[np.ndarray, " rows"]:
    """Ranks from 1, the lowest score first; equal scores share the mean of their ranks."""
    scores = _finite(scores)
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2.0)[inverse]


def auc(labels: Shaped[np.ndarray, " rows"], scores: Shaped[np.ndarray, " rows"]) -> float:
    """P(a positive scores above a negative), a tie counting half (Mann & Whitney 1947).

    Args:
      labels: 1 or True for positives, 0 or False for negatives.
      scores: higher for likelier positives.

    Returns:
      NaN if one of the two kinds is missing.

    Raises:
      ValueError: for other labels, a score that is not finite, or numbers that differ.
    """
    positive = _labels(labels, scores)
    ones, zeros = int(positive.sum()), int((~positive).sum())
    if not ones or not zeros:
        return math.nan
    above = mid_ranks(scores)[positive].sum() - ones * (ones + 1) / 2.0
    return float(above / (ones * zeros))


def auc_by_user(
    labels: Shaped[np.ndarray, " rows"],
    scores: Shaped[np.ndarray, " rows"],
    users: Shaped[np.ndarray, " rows"],
) -> ByUser:
    """AUC of each user; users whose rows are all positive or all negative have none.

    UAUC is `values.mean()`, every user alike (CoLLM, Zhang et al. 2023); it rests on
    `len(values)` users, which a report should name.
    """
    positive, scores = _labels(labels, scores), np.asarray(scores, np.float64)
    names, groups = _groups(users, len(scores))
    found = np.array([auc(positive[group], scores[group]) for group in groups])
    sizes = np.array([len(group) for group in groups], np.float64)
    kept = ~np.isnan(found)
    return ByUser(names[kept], found[kept], sizes[kept])


def uauc(
    labels: Shaped[np.ndarray, " rows"],
    scores: Shaped[np.ndarray, " rows"],
    users: Shaped[np.ndarray, " rows"],
) -> float:
    """Mean of `auc_by_user` over its users; NaN if no user has both kinds of rows."""
    values = auc_by_user(labels, scores, users).values
    return float(values.mean()) if len(values) else math.nan


def squared_errors(
    predicted: Shaped[np.ndarray, " rows"], ratings: Shaped[np.ndarray, " rows"]
) -> Float64[np.ndarray, " rows"]:
    """Squared error of each row; RMSE is the root of their mean (see `rmse`)."""
    return absolute_errors(predicted, ratings) ** 2


def absolute_errors(
    predicted: Shaped[np.ndarray, " rows"], ratings: Shaped[np.ndarray, " rows"]
) -> Float64[np.ndarray, " rows"]:
    """Absolute error of each row; their mean is MAE."""
    predicted, ratings = _finite(predicted), _finite(ratings)
    if predicted.shape != ratings.shape:
        raise ValueError(f"{len(predicted)} predictions and {len(ratings)} ratings: one each")
    return np.abs(predicted - ratings)


def rmse(predicted: Shaped[np.ndarray, " rows"], ratings: Shaped[np.ndarray, " rows"]) -> float:
    """Root of the mean squared error over rows, in rating units."""
    return math.sqrt(float(squared_errors(predicted, ratings).mean()))


def mae(predicted: Shaped[np.ndarray, " rows"], ratings: Shaped[np.ndarray, " rows"]) -> float:
    """Mean absolute error over rows, in rating units."""
    return float(absolute_errors(predicted, ratings).mean())


def rank_correlation(
    first: Shaped[np.ndarray, " rows"], second: Shaped[np.ndarray, " rows"]
) -> float:
    """Spearman's correlation: Pearson's of the mid-ranks; NaN if either is constant or short."""
    left, right = mid_ranks(first), mid_ranks(second)
    if left.shape != right.shape:
        raise ValueError(f"{len(left)} and {len(right)} scores: one each")
    if len(left) < 2:
        return math.nan
    left, right = left - left.mean(), right - right.mean()
    scale = math.sqrt(float(left @ left) * float(right @ right))
    return float(left @ right) / scale if scale else math.nan


def behavioural_consistency(
    predicted: Sequence[Shaped[np.ndarray, " items"]],
    observed: Sequence[Shaped[np.ndarray, " items"]],
) -> Float64[np.ndarray, " units"]:
    """Whether a text, or a vector, orders items or users as behaviour does, one unit at a time.

    For each unit (a generated text, say) the scores that follow from it, such as the dot products
    of its vector with users' vectors, against what the behaviour says of the same users: Spearman's
    correlation, after ELM's metric of that name (Tennenholtz et al. 2024, arXiv 2310.04475). NaN
    where one side is constant: leave such units out of the mean, and say how many.
    """
    if len(predicted) != len(observed):
        raise ValueError(f"{len(predicted)} and {len(observed)} units: one each")
    pairs = zip(predicted, observed, strict=True)
    return np.array([rank_correlation(a, b) for a, b in pairs], np.float64)


def _groups(
    users: Shaped[np.ndarray, " rows"], rows: int
) -> tuple[Shaped[np.ndarray, " users"], list[np.ndarray]]:
    users = np.asarray(users)
    if users.shape != (rows,):
        raise ValueError(f"{rows} rows and users {users.shape}: one each")
    names, inverse, counts = np.unique(users, return_inverse=True, return_counts=True)
    order = np.argsort(inverse, kind="stable")
    return names, np.split(order, np.cumsum(counts)[:-1])


def _labels(labels: Shaped[np.ndarray, " rows"], scores: Shaped[np.ndarray, " rows"]) -> np.ndarray:
    labels = np.asarray(labels)
    if labels.shape != np.shape(scores):
        raise ValueError(f"labels {labels.shape} and scores {np.shape(scores)}: one each")
    if not np.isin(labels, (0, 1)).all():
        raise ValueError("labels are 0 and 1: threshold ratings first")
    return labels.astype(bool)


def _finite(values: Shaped[np.ndarray, " rows"]) -> Float64[np.ndarray, " rows"]:
    values = np.asarray(values, np.float64)
    if values.ndim != 1 or not np.isfinite(values).all():
        raise ValueError(f"scores {values.shape} must be one finite number per row")
    return values
