"""What users chose, in time order, and the rows of it that a sequential model trains on."""

import dataclasses
import functools
import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int, Int32, Int64

from ilm_jax.cf.interactions import Interactions
from ilm_jax.data.catalogue.splits import TEST, Splits
from ilm_jax.errors import UserError


@dataclasses.dataclass(frozen=True, eq=False)
class Sequences:
    """User u chose items[offsets[u] : offsets[u + 1]], oldest first; an item may come twice.

    Attributes:
      offsets: one more than there are users.
      items: item rows.
      num_items: size of the catalogue.
    """

    offsets: Int64[np.ndarray, " users+1"]
    items: Int32[np.ndarray, " interactions"]
    num_items: int

    @classmethod
    def before(cls, splits: Splits, fold: int) -> "Sequences":
        """What every user had before the target of a fold.

        Args:
          splits: of the catalogue.
          fold: TRAIN and VALID: the training interactions; TEST: the validation item too, which a
            user has met by then.
        """
        lengths = np.diff(splits.catalogue.offsets)
        there = np.where(lengths >= 3, lengths - (1 if fold == TEST else 2), lengths)
        position = np.arange(lengths.sum()) - np.repeat(splits.catalogue.offsets[:-1], lengths)
        offsets = np.concatenate([[0], np.cumsum(there)]).astype(np.int64)
        kept = splits.catalogue.items[position < np.repeat(there, lengths)]
        return cls(offsets, kept.astype(np.int32), splits.catalogue.num_items)

    @classmethod
    def of(
        cls, histories: Sequence[Sequence[int] | Int[np.ndarray, " length"]], num_items: int
    ) -> "Sequences":
        """From lists of item rows.

        Raises:
          UserError: for an item that is not of the catalogue.
        """
        for place, items in enumerate(histories):
            outside = [item for item in items if not 0 <= item < num_items]
            if outside:
                raise UserError(
                    f"history {place}: item row {outside[0]} is not in the catalogue, whose rows "
                    f"are 0 to {num_items - 1}: leave it out, or give rows of the catalogue that "
                    "the model was trained on"
                )
        flat = [np.asarray(items, np.int32) for items in histories]
        offsets = np.cumsum([0, *map(len, flat)]).astype(np.int64)
        return cls(offsets, np.concatenate([np.zeros(0, np.int32), *flat]), num_items)

    @property
    def num_users(self) -> int:
        """Number of sequences."""
        return len(self.offsets) - 1

    @functools.cached_property
    def lengths(self) -> Int64[np.ndarray, " users"]:
        """Interactions of each user."""
        return np.diff(self.offsets)

    def met(self, kept: bool = True) -> Interactions:
        """Which items each user chose; nobody any unless `kept`."""
        if not kept or not len(self.items):
            return Interactions(np.zeros_like(self.offsets), self.items[:0], self.num_items)
        users = np.repeat(np.arange(self.num_users), self.lengths)
        return Interactions.from_pairs(users, self.items, self.num_users, self.num_items)

    def item_counts(self) -> Int64[np.ndarray, " items"]:
        """How often each item was chosen."""
        return np.bincount(self.items, minlength=self.num_items).astype(np.int64)

    def last(
        self, users: Int[np.ndarray, " chosen"], length: int
    ) -> tuple[Int32[np.ndarray, "chosen length"], Int32[np.ndarray, "chosen length"]]:
        """(the last `length` items of some users from the left, 1 where there is one)."""
        there = np.minimum(self.lengths[users], length)[:, None]
        place = np.arange(length)
        real = place < there
        items = np.zeros((len(users), length), np.int32)
        items[real] = self.items[(self.offsets[users + 1][:, None] - there + place)[real]]
        return items, real.astype(np.int32)


class Windows:
    """Epoch after epoch every step from an item to the next, in rows that are full.

    An epoch puts the users' sequences into a new order, one behind the other, and cuts them into
    rows: a row ends with the beginning of a user's sequence as a rule, whose rest begins the next.
    So every item but a user's first is a target once an epoch, rows hold no padding but for the
    last, and example i is a pure function of i.

    Attributes:
      length: of the rows.
      batch_size: of the batches that epochs are filled up to: at most the number of rows.
      steps: batches of an epoch.
    """

    def __init__(
        self,
        train: Sequences,
        length: int,
        batch_size: int,
        seed: int,
        wishes: Int32[np.ndarray, " interactions"] | None = None,
        hidden: float = 0.0,
    ) -> None:
        """Prepares the stream.

        Args:
          train: what may be seen.
          length: items that a row shows.
          batch_size: rows; an epoch's last batch is filled from the epoch's start.
          seed: of the order.
          wishes: number of what was wished before each interaction, 0 for nothing.
          hidden: share of the wishes that an epoch shows as 0.

        Raises:
          UserError: if nobody has two interactions.
        """
        self._train, self._seed, self.length = train, seed, length
        self._wishes, self._hidden = wishes, hidden
        self._shown = functools.lru_cache(maxsize=2)(self._drawn_wishes)
        self._users = np.flatnonzero(train.lengths > 1)
        if not len(self._users):
            raise UserError("no user has two training interactions: there is no next item to learn")
        self._rows = -(-int((train.lengths[self._users] - 1).sum()) // length)
        self.batch_size = min(batch_size, self._rows)
        self.steps = -(-self._rows // self.batch_size)
        self._order = functools.lru_cache(maxsize=2)(self._drawn_order)

    def rows(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """The rows of examples: "items", "targets", "segment_ids" and "positions" [rows, length].

        A target is the item behind its item; with wishes, "wishes" are those before the targets.
        Segments are users', from 1 in each row, 0 where the
        epoch has ended; positions count from 0 in each segment.
        """
        epochs, places = np.divmod(np.asarray(indices, np.int64), self.steps * self.batch_size)
        names = ["items", "targets", "segment_ids", "positions"]
        names += [] if self._wishes is None else ["wishes"]
        batch = {name: np.zeros((len(places), self.length), np.int32) for name in names}
        for epoch in np.unique(epochs):
            mine = epochs == epoch
            for name, values in self._cut(int(epoch), places[mine] % self._rows).items():
                batch[name][mine] = values
        return batch

    def record(self) -> dict[str, Any]:
        """The examples' part of a run's record."""
        digest = hashlib.sha256(self._train.offsets.tobytes() + self._train.items.tobytes())
        found = {
            "sequences": digest.hexdigest(),
            "length": self.length,
            "batch_size": self.batch_size,
            "seed": self._seed,
        }
        if self._wishes is not None:
            wished = hashlib.sha256(self._wishes.tobytes()).hexdigest()
            found |= {"wishes": wished, "hidden": self._hidden}
        return found

    def _cut(self, epoch: int, rows: np.ndarray) -> dict[str, np.ndarray]:
        users, ends = self._order(epoch)
        first = rows[:, None] * self.length
        at = first + np.arange(self.length)
        real = at < ends[-1]
        at = np.minimum(at, ends[-1] - 1)
        place = np.searchsorted(ends, at, side="right")
        starts = np.concatenate([[0], ends])[place]
        item = self._train.offsets[users[place]] + at - starts
        found = {
            "items": self._train.items[item],
            "targets": self._train.items[item + 1],
            "segment_ids": place - place[:, :1] + 1,
            "positions": at - np.maximum(starts, first),
        }
        if self._wishes is not None:
            found["wishes"] = self._shown(epoch)[item + 1]
        return {name: np.where(real, values, 0) for name, values in found.items()}

    def _drawn_wishes(self, epoch: int) -> Int32[np.ndarray, " interactions"]:
        """The wishes that an epoch shows."""
        assert self._wishes is not None
        # A stream of its own: the order of users has the counters before it.
        bits = np.random.Philox(key=[self._seed, epoch], counter=[0, 0, 0, 1])
        draw = np.random.Generator(bits)
        return np.where(draw.random(len(self._wishes)) < self._hidden, 0, self._wishes)

    def _drawn_order(
        self, epoch: int
    ) -> tuple[Int64[np.ndarray, " users"], Int64[np.ndarray, " users"]]:
        """(users in the epoch's order, where each one's steps end)."""
        draw = np.random.Generator(np.random.Philox(key=[self._seed, epoch]))
        users = draw.permutation(self._users)
        return users, np.cumsum(self._train.lengths[users] - 1)
