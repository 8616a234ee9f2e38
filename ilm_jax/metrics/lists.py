"""Ranked lists: the ranks of relevant items in them, coverage, and what is popular in them.

A list holds item rows, best first; -1 fills lists that are too short, and only their end. A place
that is not filled is a miss. An item counts where it stands first; a repeat of it wins nothing
and keeps its place.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float64, Int, Shaped

from ilm_jax.metrics.ranking import MISSED

EMPTY = -1
Lists = Int[np.ndarray, "users length"]
Relevant = Sequence[Int[np.ndarray, " relevant"]]


def ranks_of(ranked: Lists, relevant: Relevant) -> Float64[np.ndarray, "users most"]:
    """Rank of every relevant item from 1, ascending; infinity where it is not listed.

    Args:
      ranked: item rows, best first.
      relevant: per user, its relevant item rows; at least one. One that is named twice is one.

    Returns:
      Input of `ilm_jax.metrics.ranking`; NaN fills rows of users with fewer relevant items.

    Raises:
      ValueError: for a user without relevant items, or lists that break this module's rules.
    """
    ranked = checked_lists(ranked)
    if len(relevant) != len(ranked):
        raise ValueError(f"{len(ranked)} lists and relevant items of {len(relevant)} users")
    sets = [np.unique(items) for items in relevant]
    ranks = np.full((len(sets), max(map(len, sets), default=1)), np.nan)
    again = repeats(ranked)
    for row, items in enumerate(sets):
        if not len(items):
            raise ValueError(f"user {row} has no relevant item: leave users without one out")
        found = 1.0 + np.flatnonzero(np.isin(ranked[row], items) & ~again[row])
        ranks[row, : len(items)] = MISSED
        ranks[row, : len(found)] = found
    return ranks


def coverage(ranked: Lists, items: int, k: int) -> float:
    """Share of the catalogue's `items` that stands among the first k of any list.

    It grows with the number of users and has no interval: a resample of users repeats users, and
    so covers less.
    """
    shown = checked_lists(ranked)[:, :k]
    return len(np.unique(shown[shown != EMPTY])) / items


def popularity(
    ranked: Lists, counts: Shaped[np.ndarray, " items"], k: int
) -> Float64[np.ndarray, " users"]:
    """Mean popularity of the first k items per user; the mean is ARP (Yin et al. 2012).

    Args:
      ranked: item rows; a list without any item gives NaN, for it shows nothing to be popular.
      counts: training interactions of every item.
      k: cut-off; means are over the filled places.
    """
    shown = checked_lists(ranked)[:, :k]
    filled = shown != EMPTY
    total = np.where(filled, np.asarray(counts, np.float64)[np.maximum(shown, 0)], 0.0).sum(axis=1)
    return np.where(filled.any(axis=1), total / np.maximum(filled.sum(axis=1), 1), np.nan)


def popularity_bias(
    ranked: Lists,
    histories: Sequence[Int[np.ndarray, " history"]],
    counts: Shaped[np.ndarray, " items"],
    k: int,
) -> Float64[np.ndarray, " users"]:
    """Popularity lift per user: popularity of the list over that of the history, minus 1.

    0 keeps to what the user chose, above 0 shows more popular items (Abdollahpouri et al. 2019,
    there of groups of users). NaN where the list is empty or the history has no popularity.

    Args:
      ranked, counts, k: as in `popularity`.
      histories: per user, the item rows that it chose.
    """
    counts = np.asarray(counts, np.float64)
    own = np.array([counts[rows].mean() if len(rows) else 0.0 for rows in histories])
    lift = popularity(ranked, counts, k) / np.where(own > 0, own, np.nan)
    return lift - 1.0


def repeats(ranked: Lists) -> Bool[np.ndarray, "users length"]:
    """Where an item stands that the same list showed before."""
    ranked = checked_lists(ranked)
    order = np.argsort(ranked, axis=1, kind="stable")
    ordered = np.take_along_axis(ranked, order, axis=1)
    again = np.zeros(ranked.shape, bool)
    again[:, 1:] = (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] != EMPTY)
    back = np.zeros(ranked.shape, bool)
    np.put_along_axis(back, order, again, axis=1)
    return back


def checked_lists(ranked: Lists) -> Lists:
    """The lists as an array.

    Raises:
      ValueError: if they are no matrix, hold a number below -1, or have a gap before an item.
    """
    ranked = np.asarray(ranked)
    if ranked.ndim != 2 or not np.issubdtype(ranked.dtype, np.integer):
        raise ValueError(f"lists are integers [users, length], not {ranked.dtype} {ranked.shape}")
    if (ranked < EMPTY).any():
        raise ValueError("lists hold item rows, and -1 where they are too short")
    if ((ranked[:, :-1] == EMPTY) & (ranked[:, 1:] != EMPTY)).any():
        raise ValueError("a list has an item behind an empty place: only its end may be empty")
    return ranked
