"""Batches of (user, item) pairs, and the histories that the history tower reads."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int, Int32

from ilm_jax.cf.interactions import Interactions


def epoch_batches(
    train: Interactions, size: int, history: int | None, seed: int, epoch: int
) -> list[dict[str, np.ndarray]]:
    """All pairs once in a random order, a pure function of the arguments.

    Args:
      train: the pairs.
      size: of a batch; the last is filled from the start of the order.
      history: length of "histories", drawn without the target; None leaves them out.
      seed, epoch: of the order.

    Returns:
      {"users": [size], "items": [size][, "histories": [size, history]]} for each batch.
    """
    draw = np.random.Generator(np.random.Philox(key=[seed, epoch]))
    order = draw.permutation(len(train.items))
    size = min(size, len(order))
    order = np.concatenate([order, order[: -len(order) % size]])
    users, found = train.users, []
    for first in range(0, len(order), size):
        rows = order[first : first + size]
        batch = {"users": users[rows], "items": train.items[rows]}
        if history is not None:
            drawn = draw_histories(train, batch["users"], batch["items"], history, draw)
            batch["histories"] = drawn
        found.append(batch)
    return found


def draw_histories(
    train: Interactions,
    users: Int32[np.ndarray, " batch"],
    without: Int[np.ndarray, " batch"],
    length: int,
    draw: np.random.Generator,
) -> Int32[np.ndarray, "batch {length}"]:
    """At most `length` items of each user's history, but not the target (-1: none is left out)."""
    chosen = np.full((len(users), length), train.num_items, np.int32)
    for row, (user, target) in enumerate(zip(users, without, strict=True)):
        items = train.of(user)
        items = items[items != target]
        if len(items) > length:
            items = draw.choice(items, length, replace=False)
        chosen[row, : len(items)] = items
    return chosen


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
            raise ValueError(f"history {row} has an item row outside [0, {num_items}); "
                             "give rows of the training catalogue")  # fmt: skip
        padded[row, : len(items)] = items
    return padded
