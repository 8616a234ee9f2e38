"""The observed (user, item) pairs as a stream of examples, with what the history tower reads."""

import functools
import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int, Int32, Int64, UInt64

from ilm_jax.cf.interactions import Interactions


class Pairs:
    """Epoch after epoch all pairs in a new order; example i is a pure function of i.

    Attributes:
      batch_size: of the batches that epochs are filled up to: at most the number of pairs.
      steps: batches of an epoch.
    """

    def __init__(
        self, train: Interactions, batch_size: int, seed: int, history: int | None = None
    ) -> None:
        """Prepares the stream.

        Args:
          train: the pairs.
          batch_size: an epoch's last batch is filled from the epoch's start.
          seed: of the order.
          history: so many items of each user's history are drawn beside each pair, without the
            pair's own item; None: none.
        """
        self._train, self._seed, self._history = train, seed, history
        self._users = train.users
        self.batch_size = min(batch_size, len(train.items))
        self.steps = -(-len(train.items) // self.batch_size)
        self._order = functools.lru_cache(maxsize=2)(self._drawn_order)

    def rows(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """{"users", "items"[, "histories": padded with num_items]} of the examples."""
        epochs, places = np.divmod(np.asarray(indices, np.int64), self.steps * self.batch_size)
        pairs = np.empty(len(places), np.int64)
        for epoch in np.unique(epochs):
            mine = epochs == epoch
            pairs[mine] = self._order(int(epoch))[places[mine] % len(self._train.items)]
        users, items = self._users[pairs], self._train.items[pairs]
        batch = {"users": users, "items": items}
        if self._history is not None:
            keys = np.stack([np.full(len(places), self._seed), epochs, places]).astype(np.uint64)
            without = pairs - self._train.offsets[users]
            batch["histories"] = draw_histories(
                self._train, users, without, self._history, mixed(*keys)
            )
        return batch

    def record(self) -> dict[str, Any]:
        """The examples' part of a run's record."""
        digest = hashlib.sha256(self._train.offsets.tobytes() + self._train.items.tobytes())
        return {
            "pairs": digest.hexdigest(),
            "batch_size": self.batch_size,
            "history": self._history,
            "seed": self._seed,
        }

    def _drawn_order(self, epoch: int) -> Int64[np.ndarray, " pairs"]:
        draw = np.random.Generator(np.random.Philox(key=[self._seed, epoch]))
        return draw.permutation(len(self._train.items))


def draw_histories(
    train: Interactions,
    users: Int[np.ndarray, " batch"],
    without: Int[np.ndarray, " batch"],
    length: int,
    keys: UInt64[np.ndarray, " batch"],
) -> Int32[np.ndarray, "batch {length}"]:
    """At most `length` items of each user's history; the same for the same keys.

    Args:
      train: the histories.
      users: their rows.
      without: the place in each user's items of one that is left out; -1: none is.
      length: of what is drawn, without replacement, every subset alike (R. Floyd's algorithm).
      keys: of the draws, one for each user.

    Returns:
      Item rows, filled up with num_items.
    """
    there = train.lengths[users] - (without >= 0)
    places = np.tile(np.arange(length, dtype=np.int64), (len(users), 1))
    long = np.flatnonzero(there > length)
    picked = np.full((len(long), length), -1, np.int64)
    for draw in range(length if len(long) else 0):
        last = there[long] - length + draw
        place = (mixed(keys[long], np.uint64(draw)) % (last + 1).astype(np.uint64)).astype(np.int64)
        met = (picked[:, :draw] == place[:, None]).any(1)
        picked[:, draw] = np.where(met, last, place)
    places[long] = picked
    real = places < there[:, None]
    places += (without >= 0)[:, None] & (places >= without[:, None])
    found = np.full((len(users), length), train.num_items, np.int32)
    found[real] = train.items[(train.offsets[users][:, None] + places)[real]]
    return found


def mixed(*keys: UInt64[np.ndarray, "..."] | np.uint64) -> UInt64[np.ndarray, "..."]:
    """64 well-mixed bits of each tuple of keys (SplitMix64's finaliser, key after key)."""
    bits: UInt64[np.ndarray, "..."] = np.zeros((), np.uint64)
    with np.errstate(over="ignore"):
        for key in keys:
            bits = (bits ^ key) + np.uint64(0x9E3779B97F4A7C15)
            bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            bits = bits ^ (bits >> np.uint64(31))
    return bits


def pad_histories(
    histories: Sequence[Int[np.ndarray, " length"]], num_items: int
) -> Int32[np.ndarray, "users longest"]:
    """Whole histories side by side, filled up with `num_items`.

    Raises:
      ValueError: for an item outside the catalogue.
    """
    padded = np.full((len(histories), max([1, *map(len, histories)])), num_items, np.int32)
    for row, items in enumerate(histories):
        if len(items) and not (0 <= np.min(items) and np.max(items) < num_items):
            raise ValueError(
                f"history {row} has an item row outside [0, {num_items}); give rows of the "
                "training catalogue"
            )
        padded[row, : len(items)] = items
    return padded
