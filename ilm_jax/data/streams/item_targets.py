"""Which items the rows of a batch ask for, and where: arrays for heads that score items."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, Int64

from ilm_jax.data.examples.example import Example
from ilm_jax.data.examples.prompts import ITEM_SLOT
from ilm_jax.data.examples.task_specs import ITEM_THEN_TEXT

Rows = Callable[[str, Int[np.ndarray, " rows"]], Int64[np.ndarray, " rows"]]
# Kinds of answers (`TaskSpec.answer`) that are an item, or begin with one.
ITEMS = ("items", "item_and_text", ITEM_THEN_TEXT)


class Fitted(NamedTuple):
    """An example as its row has room for it.

    Attributes:
      inputs: tokens; negative ones are slots.
      slots: the slots' local rows, in order.
      bounds: the history's elements start and end there (`history_bounds`).
    """

    inputs: Int[np.ndarray, " length"]
    slots: Int[np.ndarray, " slots"]
    bounds: Int[np.ndarray, " bounds"]


def history_items(
    fitted: Fitted, num_queries: int, opening: int
) -> tuple[Int[np.ndarray, " asked"], Int[np.ndarray, " asked"]]:
    """(places, local rows) of the items of a history but its first, for `ItemTargets.columns`.

    An item's place is the one before its mention, which has read nothing of it; an item that is
    mentioned without a slot is not asked for.

    Args:
      fitted: the example.
      num_queries: positions that a slot takes.
      opening: positions in front of the inputs.
    """
    inputs, slots, bounds = fitted
    before = np.concatenate([[0], np.cumsum(np.where(inputs < 0, num_queries, 1))])
    numbers = np.concatenate([[0], np.cumsum(inputs < 0)])
    asked = []
    for first, end in zip(bounds[1:-1], bounds[2:], strict=True):
        at = np.flatnonzero(inputs[first:end] == ITEM_SLOT)
        if len(at):
            asked.append((opening + before[first] - 1, slots[numbers[first + at[0]]]))
    places, items = np.array(asked, int).reshape(-1, 2).T
    return places, items


@dataclasses.dataclass(frozen=True)
class ItemTargets:
    """Makes `item_positions` and `item_targets` from the local rows that caches hold.

    Attributes:
      tasks: registered names of the tasks that ask for an item; the others' rows ask for none.
      most: items that a row asks for at most.
      history_weight: of the items of a row's history, which it asks for too, each where those
        before it have been read (all but the first, which nothing comes before); 0: it does not.
    """

    tasks: frozenset[str]
    most: int = 1
    history_weight: float = 0.0

    def asks(self, example: Example | None) -> bool:
        """Whether an example's answer is an item."""
        return example is not None and example.get("task") in self.tasks

    def columns(
        self,
        examples: Sequence[Example | None],
        places: Int[np.ndarray, " batch"],
        earlier: Mapping[int, tuple[Int[np.ndarray, " asked"], Int[np.ndarray, " asked"]]],
        rows: Rows | None,
    ) -> dict[str, np.ndarray]:
        """The two arrays, int32, -1 where nothing is asked for; a row's answer comes first.

        Of histories `item_weights` too, float32: 1 for an answer, `history_weight` for the others.

        Args:
          examples: one to a row; None for padding.
          places: the last place of each row's prompt, whose hidden state predicts the answer.
          earlier: of a row, (places, local rows) of the items of its history that it asks for.
          rows: global rows of local ones.
        """
        empty = np.full((len(examples), self.most), -1, np.int32)
        positions, targets = empty, empty.copy()
        found: dict[str, list[tuple[int, int, int, int]]] = {}
        for row, example in enumerate(examples):
            if example is None or not self.asks(example) or places[row] < 0:
                continue
            if example["target_item"] < 0:
                continue
            asked = [(int(places[row]), int(example["target_item"]))]
            if row in earlier:
                asked += zip(*(part.tolist() for part in earlier[row]), strict=True)
            block = f"{example['catalogue']}/item"
            for column, (place, item) in enumerate(asked):
                found.setdefault(block, []).append((row, column, place, item))
        for block, entries in found.items():
            assert rows is not None, "a layout with items checks that there is a table"
            at, numbers, where, items = np.array(entries).T
            targets[at, numbers] = rows(block, items)
            positions[at, numbers] = where
        columns = {"item_positions": positions, "item_targets": targets}
        if self.history_weight:
            answers = np.arange(self.most) == 0
            weights = np.where(answers, 1.0, self.history_weight) * (targets >= 0)
            columns["item_weights"] = weights.astype(np.float32)
        return columns
