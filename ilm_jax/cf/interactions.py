"""Who met which item, as rows of a sparse matrix, and the ways to split or read it."""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int, Int32, Int64, Num

from ilm_jax.data import spill
from ilm_jax.data.catalogue.catalogue import Catalogue
from ilm_jax.data.catalogue.splits import Splits
from ilm_jax.data.formats import raw_lines
from ilm_jax.errors import UserError

PAIRS = 1 << 23
"""Pairs that are sorted at once where there are more."""
Rows = Int[np.ndarray, " pairs"] | Sequence[int]


@dataclasses.dataclass(frozen=True, eq=False)
class Interactions:
    """Row u met items[offsets[u] : offsets[u + 1]], ascending and each once.

    Attributes:
      offsets: one more than there are rows (users, as a rule).
      items: item rows.
      num_items: size of the other side.
    """

    offsets: Int64[np.ndarray, " rows+1"]
    items: Int32[np.ndarray, " pairs"]
    num_items: int

    @classmethod
    def from_pairs(
        cls,
        users: Rows,
        items: Rows,
        num_users: int,
        num_items: int,
        counts: Num[np.ndarray, " pairs"] | Sequence[float] | None = None,
    ) -> "Interactions":
        """Sorts the pairs; a pair given several times counts once, and so does a count above 1.

        Args:
          users, items: rows of each pair, in any order; arrays or lists.
          num_users, num_items: sizes, rows without a pair included.
          counts: how often each was seen; pairs with 0 are left out.

        Raises:
          ValueError: if lengths differ, a row is no whole number or out of range, a count is
            negative or NaN, or no pair is left.
        """
        user_rows = _checked("user", users, num_users)
        item_rows = _checked("item", items, num_items)
        if len(user_rows) != len(item_rows):
            raise ValueError(
                f"{len(user_rows)} user rows and {len(item_rows)} item rows: give one each a pair"
            )
        if counts is not None:
            seen = _seen(user_rows, item_rows, np.asarray(counts))
            user_rows, item_rows = user_rows[seen], item_rows[seen]
        if not len(user_rows):
            what = "the lists are empty" if counts is None else "none has a count above 0"
            raise ValueError(f"no pairs to make rows of: {what}")
        keys = user_rows * num_items + item_rows
        keys.sort()
        keys = keys[np.append(True, keys[1:] != keys[:-1])]
        lengths = np.bincount(keys // num_items, minlength=num_users)
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        return cls(offsets, (keys % num_items).astype(np.int32), num_items)

    @classmethod
    def first_of(cls, catalogue: Catalogue, counts: Int64[np.ndarray, " users"]) -> "Interactions":
        """Each user's first interactions, read from the catalogue some users at a time.

        Args:
          catalogue: as it lies on disk, as a rule.
          counts: how many of each user's are taken; an item among them several times counts once.

        Raises:
          ValueError: if that is none.
        """
        offsets, lengths, num_items = (
            catalogue.offsets,
            np.diff(catalogue.offsets),
            catalogue.num_items,
        )
        items = spill.empty(int(counts.sum()), np.int32)
        distinct = np.zeros(len(lengths), np.int64)
        at = 0
        for first, last in spill.ranges(offsets, PAIRS):
            begin, end = int(offsets[first]), int(offsets[last])
            rows = spill.rows_of(offsets, begin, end)
            taken = np.arange(begin, end) < (offsets[:-1] + counts)[rows]
            keys = (rows[taken] - first).astype(np.int64) * num_items + catalogue.items[begin:end][
                taken
            ]
            keys.sort()
            keys = keys[np.append(True, keys[1:] != keys[:-1])] if len(keys) else keys
            distinct[first:last] = np.bincount(keys // num_items, minlength=last - first)
            items[at : at + len(keys)] = keys % num_items
            at += len(keys)
        if not at:
            raise ValueError("no pairs to make rows of: nobody has an interaction")
        return cls(np.append(0, np.cumsum(distinct)), items[:at], num_items)

    @property
    def num_users(self) -> int:
        """Number of rows."""
        return len(self.offsets) - 1

    @functools.cached_property
    def lengths(self) -> Int64[np.ndarray, " rows"]:
        """Items of each row."""
        return np.diff(self.offsets)

    @property
    def users(self) -> Int32[np.ndarray, " pairs"]:
        """The row of each pair."""
        return np.repeat(np.arange(self.num_users, dtype=np.int32), self.lengths)

    def of(self, user: int) -> Int32[np.ndarray, " items"]:
        """Items of one row (a view)."""
        return self.items[self.offsets[user] : self.offsets[user + 1]]

    def item_counts(self) -> Int64[np.ndarray, " items"]:
        """Number of rows with each item."""
        return spill.counted(self.items, self.num_items)

    def transposed(self) -> "Interactions":
        """The same seen from the items."""
        offsets = np.append(0, np.cumsum(self.item_counts()))
        users = spill.empty(len(self.items), np.int32)
        for first, last in spill.ranges(offsets, PAIRS):
            parts = []
            for begin in range(0, len(self.items), PAIRS):
                end = min(begin + PAIRS, len(self.items))
                items = self.items[begin:end]
                mine = (items >= first) & (items < last)
                parts.append((items[mine], spill.rows_of(self.offsets, begin, end)[mine]))
            items, rows = (np.concatenate(column) for column in zip(*parts, strict=True))
            users[offsets[first] : offsets[last]] = rows[np.argsort(items, kind="stable")]
        return Interactions(offsets, users, self.num_users)

    def padded(
        self, rows: Int[np.ndarray, " chosen"], length: int, fill: int
    ) -> Int32[np.ndarray, "chosen length"]:
        """Items of some rows, each cut or filled up to one length."""
        inside = np.arange(length) < self.lengths[rows, None]
        padded = np.full((len(rows), length), fill, np.int32)
        padded[inside] = self.items[(self.offsets[rows, None] + np.arange(length))[inside]]
        return padded


def _checked(name: str, rows: Rows, size: int) -> Int64[np.ndarray, " pairs"]:
    """The rows of one side as an array.

    Raises:
      ValueError: unless they are a list of whole numbers in [0, size).
    """
    given = np.asarray(rows)
    if given.ndim != 1:
        raise ValueError(f"{name} rows of shape {given.shape}: give a list, one entry a pair")
    if len(given) and given.dtype.kind not in "iu":
        raise ValueError(f"{name} rows are {given.dtype}: give row numbers, whole and from 0")
    outside = np.flatnonzero((given < 0) | (given >= size))
    if len(outside):
        raise ValueError(
            f"pair {outside[0]} has {name} row {given[outside[0]]}; {len(outside)} of {len(given)} "
            f"pairs have a {name} row outside [0, {size}): give the sizes that the rows are of"
        )
    return given.astype(np.int64)


def _seen(
    users: Int64[np.ndarray, " pairs"],
    items: Int64[np.ndarray, " pairs"],
    counts: Num[np.ndarray, " pairs"],
) -> Bool[np.ndarray, " pairs"]:
    """Which pairs have a count above 0.

    Raises:
      ValueError: if there is not one count a pair, or one is negative or NaN.
    """
    if counts.shape != users.shape:
        raise ValueError(f"counts of shape {counts.shape} for {len(users)} pairs: give one a pair")
    wrong = np.flatnonzero(~(counts >= 0))
    if len(wrong):
        pair = wrong[0]
        raise ValueError(
            f"pair {pair} (user row {users[pair]}, item row {items[pair]}) has count "
            f"{counts[pair]}: interactions are counted from 0; leave dislikes and gaps out"
        )
    return counts > 0


def train_interactions(splits: Splits) -> Interactions:
    """The training pairs of a split."""
    lengths = np.diff(splits.catalogue.offsets)
    return Interactions.first_of(splits.catalogue, np.where(lengths >= 3, lengths - 2, lengths))


def hold_out(
    interactions: Interactions, share: float = 0.2, seed: int = 0
) -> tuple[Interactions, Interactions]:
    """Splits every row at random: (what is left, what is held out).

    floor(share * length) items of a row are held out, drawn without regard to time.

    Raises:
      ValueError: if the share is outside (0, 1), or nothing would be held out.
    """
    if not 0 < share < 1:
        raise ValueError(f"share={share}: give a number in (0, 1)")
    draws = np.random.Generator(np.random.Philox(seed)).random(len(interactions.items))
    order = np.lexsort((draws, interactions.users))
    place = np.arange(len(order)) - np.repeat(interactions.offsets[:-1], interactions.lengths)
    most = np.repeat((share * interactions.lengths).astype(np.int64), interactions.lengths)
    held = np.zeros(len(order), bool)
    held[order] = place < most
    if not held.any():
        raise ValueError(
            f"share={share} of histories of at most {interactions.lengths.max(initial=0)} items is "
            "less than one item each: nothing would be held out; give a larger share"
        )
    users, sizes = interactions.users, (interactions.num_users, interactions.num_items)
    parts = [
        Interactions.from_pairs(users[part], interactions.items[part], *sizes)
        for part in (~held, held)
    ]
    return parts[0], parts[1]


def catalogue_from_sequences(path: str | os.PathLike, name: str) -> Catalogue:
    """Reads "user item item …" lines, oldest item first: the shape of OpenP5's and P5's files.

    Items get rows in the order in which training (all but a user's last two) first shows them,
    the rest after them by id: ids of such files may run along each user's sequence, test item
    included, and a row number must not carry that on. There are no texts, ratings or times.

    Raises:
      UserError: for an absent or empty file, a line without an item, or a user met twice.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file; give lines of `user item item …`, oldest first")
    sequences: dict[str, list[str]] = {}
    for number, line in raw_lines.lines(path):
        words = line.split()
        if len(words) < 2:
            raise UserError(f"{path}, line {number}: a user without items; remove the line")
        if words[0] in sequences:
            raise UserError(
                f"{path}, line {number}: user {words[0]!r} has a line already; "
                "give each user one line, oldest item first"
            )
        sequences[words[0]] = words[1:]
    if not sequences:
        raise UserError(f"{path}: empty; give lines of `user item item …`, oldest first")
    rows: dict[str, int] = {}
    for items in sequences.values():
        for item in items[:-2] if len(items) >= 3 else items:
            rows.setdefault(item, len(rows))
    for item in sorted({item for items in sequences.values() for item in items} - set(rows)):
        rows[item] = len(rows)
    met = np.array([rows[item] for items in sequences.values() for item in items], np.int32)
    return Catalogue(
        name=name,
        version="1.0.0",
        item_ids=list(rows),
        user_ids=list(sequences),
        titles=[""] * len(rows),
        texts=[""] * len(rows),
        content=[[] for _ in rows],
        categories=[[] for _ in rows],
        offsets=np.cumsum([0, *map(len, sequences.values())]).astype(np.int64),
        items=met,
        ratings=np.full(len(met), np.nan, np.float32),
        timestamps=np.full(len(met), -1, np.int64),
        ties=0,
        extras={},
    )
