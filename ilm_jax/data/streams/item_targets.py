"""Which items the rows of a batch ask for, and where: arrays for heads that score items."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int, Int64

from ilm_jax.data.examples.task_specs import ITEM_THEN_TEXT

Rows = Callable[[str, Int[np.ndarray, " rows"]], Int64[np.ndarray, " rows"]]
# Kinds of answers (`TaskSpec.answer`) that are an item, or begin with one.
ITEMS = ("items", "item_and_text", ITEM_THEN_TEXT)


@dataclasses.dataclass(frozen=True)
class ItemTargets:
    """Makes `item_positions` and `item_targets` from the local rows that caches hold.

    Attributes:
      tasks: registered names of the tasks that ask for an item; the others' rows ask for none.
      most: items that a row asks for at most.
    """

    tasks: frozenset[str]
    most: int = 1

    def columns(
        self,
        examples: Sequence[Mapping[str, Any] | None],
        places: Int[np.ndarray, " batch"],
        rows: Rows | None,
    ) -> dict[str, Int[np.ndarray, "batch most"]]:
        """The two arrays, int32, -1 where nothing is asked for.

        Args:
          examples: one to a row; None for padding.
          places: the last place of each row's prompt, whose hidden state predicts the answer.
          rows: global rows of local ones.
        """
        empty = np.full((len(examples), self.most), -1, np.int32)
        positions, targets = empty, empty.copy()
        asking: dict[str, list[int]] = {}
        for row, example in enumerate(examples):
            if example is None or example.get("task") not in self.tasks or places[row] < 0:
                continue
            if example["target_item"] >= 0:
                asking.setdefault(example["catalogue"], []).append(row)
        for catalogue, asked in asking.items():
            assert rows is not None, "a layout with items checks that there is a table"
            wanted = [examples[row]["target_item"] for row in asked]  # type: ignore[index]
            targets[asked, 0] = rows(f"{catalogue}/item", np.array(wanted))
            positions[asked, 0] = places[asked]
        return {"item_positions": positions, "item_targets": targets}
