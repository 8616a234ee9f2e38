"""Who met which item, as rows of a sparse matrix, and the ways to split or read it."""

import dataclasses
import functools
import os
import pathlib

import numpy as np
from jaxtyping import Int, Int32, Int64

from ilm_jax.data.catalogue import Catalogue
from ilm_jax.errors import UserError


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
        users: Int[np.ndarray, " pairs"],
        items: Int[np.ndarray, " pairs"],
        num_users: int,
        num_items: int,
        counts: Int[np.ndarray, " pairs"] | None = None,
    ) -> "Interactions":
        """Sorts the pairs; a pair given several times counts once, and so does a count above 1.

        Args:
          users, items: rows of each pair, in any order.
          num_users, num_items: sizes, rows without a pair included.
          counts: how often each was seen; pairs with 0 are left out.

        Raises:
          ValueError: if a row is out of range, a count is negative, or no pair is left.
        """
        if counts is not None:
            if len(counts) and counts.min() < 0:
                worst = int(np.argmin(counts))
                raise ValueError(
                    f"pair {worst} (user row {users[worst]}, item row {items[worst]}) has count "
                    f"{counts[worst]}: interactions cannot be negative; leave dislikes out"
                )
            users, items = users[counts > 0], items[counts > 0]
        for name, rows, size in (("user", users, num_users), ("item", items, num_items)):
            if not len(rows) or rows.min() < 0 or rows.max() >= size:
                raise ValueError(f"no pairs, or a {name} row outside [0, {size})")
        keys = users.astype(np.int64) * num_items + items
        keys.sort()
        keys = keys[np.append(True, keys[1:] != keys[:-1])]
        lengths = np.bincount(keys // num_items, minlength=num_users)
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        return cls(offsets, (keys % num_items).astype(np.int32), num_items)

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
        """How many rows met each item."""
        return np.bincount(self.items, minlength=self.num_items).astype(np.int64)

    def transposed(self) -> "Interactions":
        """The same seen from the items."""
        return Interactions.from_pairs(self.items, self.users, self.num_items, self.num_users)

    def padded(
        self, rows: Int[np.ndarray, " chosen"], length: int, fill: int
    ) -> Int32[np.ndarray, "chosen length"]:
        """Items of some rows, each cut or filled up to one length."""
        inside = np.arange(length) < self.lengths[rows, None]
        padded = np.full((len(rows), length), fill, np.int32)
        padded[inside] = self.items[(self.offsets[rows, None] + np.arange(length))[inside]]
        return padded


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
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
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
        name=name, version="1.0.0", item_ids=list(rows), user_ids=list(sequences),
        titles=[""] * len(rows), texts=[""] * len(rows),
        content=[[] for _ in rows], categories=[[] for _ in rows],
        offsets=np.cumsum([0, *map(len, sequences.values())]).astype(np.int64), items=met,
        ratings=np.full(len(met), np.nan, np.float32), timestamps=np.full(len(met), -1, np.int64),
        ties=0, extras={},
    )  # fmt: skip
