"""All interactions of a catalogue by user and time, however many: users in blocks, out of files.

A block has the interactions of consecutive users, at most `BLOCK` of them (or one user's), and is
sorted in memory; columns are read and written as they lie.
"""

import dataclasses
from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float32, Int, Int32, Int64, Num

from ilm_jax.data import spill

BLOCK = 1 << 21
_CHUNK = 1 << 22


@dataclasses.dataclass(frozen=True, eq=False)
class Columns:
    """Interactions in file order.

    Attributes:
      users: row of each one's user.
      items: row of each one's item.
      ratings: NaN where there is none.
      timestamps: -1 where there is none.
      order: sorts a user's interactions, ties in file order; None: as they come.
    """

    users: Int32[np.ndarray, " rows"]
    items: Int32[np.ndarray, " rows"]
    ratings: Float32[np.ndarray, " rows"]
    timestamps: Int64[np.ndarray, " rows"]
    order: Num[np.ndarray, " rows"] | None


@dataclasses.dataclass(frozen=True, eq=False)
class Arranged:
    """Interactions by user and time, as a catalogue has them.

    Attributes:
      offsets, items, ratings, timestamps: see `Catalogue`.
      ties: users whose last two interactions nothing tells apart but their places in the file,
        which has times.
      repeats: interactions with an item that the user has chosen before.
      first_repeat: the place of the first one in the file; -1 without any.
    """

    offsets: Int64[np.ndarray, " users+1"]
    items: Int32[np.ndarray, " interactions"]
    ratings: Float32[np.ndarray, " interactions"]
    timestamps: Int64[np.ndarray, " interactions"]
    ties: int
    repeats: int
    first_repeat: int


def arrange(
    columns: Columns,
    num_items: int,
    user_row: Int[np.ndarray, " users"],
    item_row: Int[np.ndarray, " items"],
    keep: Bool[np.ndarray, " rows"] | None = None,
) -> Arranged:
    """Sorts; ties keep the file's order.

    Args:
      columns: the interactions.
      num_items: of the catalogue that they go to.
      user_row: the row that each user of `columns` has there, whence the rows' number is known; of
        those without interactions anything.
      item_row: likewise.
      keep: which interactions go there; None: all.
    """
    counts = spill.counted(columns.users, len(user_row), keep)
    there = np.flatnonzero(counts)
    num_users = int(user_row[there].max(initial=-1)) + 1
    lengths = np.zeros(num_users, np.int64)
    lengths[user_row[there]] = counts[there]
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    total = int(offsets[-1])
    items, ratings = spill.empty(total, np.int32), spill.empty(total, np.float32)
    timestamps = spill.empty(total, np.int64)
    ties, repeats, first_repeat = 0, 0, -1
    for start, rows, users in _blocks(columns, user_row, offsets, keep):
        part = slice(start, start + len(rows))
        items[part] = item_row[columns.items[rows]]
        ratings[part], timestamps[part] = columns.ratings[rows], columns.timestamps[rows]
        if columns.order is not None:
            ties += _ties(users, columns.order[rows])
        pairs = users.astype(np.int64) * num_items + items[part]
        again = np.sort(pairs)  # np.unique would hash, in five times the time
        again = again[1:][again[1:] == again[:-1]]
        if len(again):
            among = np.isin(pairs, again)
            by_pair = np.lexsort((rows[among], pairs[among]))
            second = by_pair[1:][np.diff(pairs[among][by_pair]) == 0]
            first = int(rows[among][second].min())
            first_repeat = first if first_repeat < 0 else min(first, first_repeat)
        repeats += len(again)
    return Arranged(offsets, items, ratings, timestamps, ties, repeats, first_repeat)


def _ties(users: Int[np.ndarray, " block"], times: Num[np.ndarray, " block"]) -> int:
    """Users of a block, by user and time, whose last two times are one."""
    last = np.flatnonzero(np.append(users[1:] != users[:-1], True))
    last = last[last > 0]
    mine = users[last] == users[last - 1]
    return int(np.count_nonzero(mine & (times[last] == times[last - 1])))


def _blocks(
    columns: Columns,
    user_row: Int[np.ndarray, " users"],
    offsets: Int64[np.ndarray, " rows+1"],
    keep: Bool[np.ndarray, " rows"] | None,
) -> Iterator[tuple[int, Int64[np.ndarray, " block"], Int[np.ndarray, " block"]]]:
    """(place of the first, places in the file by user and time, their users) of each block."""
    ranges = list(spill.ranges(offsets, BLOCK))
    dealt = _dealt(columns.users, user_row, np.array([last for _, last in ranges]), keep)
    for block, (first, _) in enumerate(ranges):
        rows = np.concatenate(
            # Places in the whole file may need more bits than those within a part.
            [
                order[bounds[block] : bounds[block + 1]].astype(np.int64) + start
                for start, order, bounds in dealt
            ]
        )
        users = user_row[columns.users[rows]]
        order = _sorted(users, None if columns.order is None else columns.order[rows])
        yield int(offsets[first]), rows[order], users[order]


def _dealt(
    users: Int32[np.ndarray, " rows"],
    user_row: Int[np.ndarray, " users"],
    ends: Int[np.ndarray, " blocks"],
    keep: Bool[np.ndarray, " rows"] | None,
) -> list[tuple[int, Int32[np.ndarray, " part"], Int64[np.ndarray, " blocks+2"]]]:
    """The file in parts: (place of the first, places from there by block, where blocks begin)."""
    # Sixteen bits are sorted by digits, in the order of the file.
    block = np.searchsorted(ends, user_row, side="right").astype(np.uint16)
    dealt = []
    for start in range(0, len(users), _CHUNK):
        mine = block[users[start : start + _CHUNK]]
        if keep is not None:
            mine[~keep[start : start + _CHUNK]] = len(ends)
        order = np.argsort(mine, kind="stable").astype(np.int32)
        bounds = np.append(0, np.cumsum(np.bincount(mine, minlength=len(ends) + 1)))
        dealt.append((start, order, bounds))
    return dealt


def _sorted(
    users: Int[np.ndarray, " block"], times: Num[np.ndarray, " block"] | None
) -> Int64[np.ndarray, " block"]:
    """Places by user and time; ties as they come."""
    if times is None:
        return np.argsort(users, kind="stable")
    low, high = times.min(), times.max()
    first, last = int(users.min()), int(users.max())
    if times.dtype.kind != "i" or (last - first + 1) * (int(high) - int(low) + 1) >= 2**63:
        return np.lexsort((times, users))
    both = (users - first).astype(np.int64) * (int(high) - int(low) + 1) + (times - low)
    return np.argsort(both, kind="stable")


def k_core(
    users: Int[np.ndarray, " rows"], items: Int[np.ndarray, " rows"], core: int
) -> Bool[np.ndarray, " rows"]:
    """Which interactions remain when users and items with fewer than `core` are left out.

    Repeated until nothing changes (the iterative k-core of OpenP5, S3-Rec and others).
    """
    keep = np.ones(len(users), bool)
    sizes = [int(column.max(initial=-1)) + 1 for column in (users, items)]
    before = -1
    while core > 0 and before != (now := int(np.count_nonzero(keep))):
        before = now
        for column, size in zip((users, items), sizes, strict=True):
            often = spill.counted(column, size, keep) >= core
            for start in range(0, len(column), _CHUNK):
                chunk = slice(start, start + _CHUNK)
                keep[chunk] &= often[column[chunk]]
    return keep
