"""What of an example has room in its row: its latest history, and its answer.

What is cut is counted; what may not be cut raises.
"""

import dataclasses
from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from ilm_jax.data.examples.example import Example
from ilm_jax.data.streams.item_targets import Fitted
from ilm_jax.errors import UserError


class Answer(NamedTuple):
    """Targets of a row, slots widened.

    Attributes:
      tokens: ids, pad at slots.
      query: which soft token of the slot stands here; -1 where a token is predicted.
      content: 1 where a token carries information.
      slots: that the row reads: those with something behind them.
    """

    tokens: np.ndarray
    query: np.ndarray
    content: np.ndarray
    slots: int


class Row(NamedTuple):
    """An example as its row has room for it.

    Attributes:
      fitted: its inputs.
      answer: behind them.
      item: local row of the item that the answer's slot stands for.
      catalogue: that local rows count in; plain texts have none.
    """

    fitted: Fitted
    answer: Answer
    item: int = -1
    catalogue: str = ""


_NOTHING = np.zeros(0, np.int32)
_UNANSWERED = Answer(_NOTHING, _NOTHING, _NOTHING, 0)
PADDING = Row(Fitted(_NOTHING, _NOTHING, _NOTHING), _UNANSWERED)


@dataclasses.dataclass(frozen=True)
class Fitting:
    """Room of a row of one example, and what is left of an example in it.

    Attributes:
      lengths: {"inputs": …, "targets": …} in positions, after widening; inputs without bos.
      num_queries: positions per slot.
      max_entities: slots at most.
      truncate_targets: over-long targets are cut; else they raise.
      answers: whether rows hold the answers; else the first token's place alone.
      pad: id that stands at slots.
      counts: examples cut so far: "history" (elements dropped), "targets" (tokens dropped).
    """

    lengths: Mapping[str, int]
    num_queries: int
    max_entities: int
    truncate_targets: bool
    answers: bool
    pad: int
    counts: Counter[str] = dataclasses.field(default_factory=Counter)

    def row(self, example: Example | None) -> Row:
        """The example's row.

        Args:
          example: None for padding.

        Raises:
          UserError: for inputs or targets that are too long and may not be cut.
        """
        if example is None:
            return PADDING
        answer = self.answer(example)
        item = example["target_item"] if answer.slots else -1
        fitted = self.inputs(example, answer.slots)
        return Row(fitted, answer, item, _catalogue(example, len(fitted.slots) + answer.slots))

    def prompt(self, example: Example | None) -> Row:
        """The row of the example's prompt alone; as `row`."""
        if example is None:
            return PADDING
        fitted = self.inputs(example)
        return Row(fitted, _UNANSWERED, catalogue=_catalogue(example, len(fitted.slots)))

    def inputs(self, example: Example, others: int = 0) -> Fitted:
        """The example without the oldest of its history, where all does not fit beside `others`.

        Raises:
          UserError: if it has other slots than its inputs say, or is too long all the same.
        """
        inputs, slots = example["inputs"], example["slots"]
        if (told := np.count_nonzero(inputs < 0)) != len(slots):
            raise UserError(
                f"{example_name(example)}: its inputs have {told} slots, and `slots` {len(slots)}"
            )
        bounds = np.asarray(example["history_bounds"], np.int64)
        most = self.max_entities - others
        wide = len(inputs) + len(slots) * (self.num_queries - 1)
        if wide <= self.lengths["inputs"] and len(slots) <= most:
            return Fitted(inputs, slots, bounds)
        # Slots and positions in front of each border of the history.
        slots_before = np.searchsorted(np.flatnonzero(inputs < 0), bounds)
        before = bounds + slots_before * (self.num_queries - 1)
        # The latest element stays: a history of nothing is another task.
        left = wide - (before[1:-1] - before[:1])
        slots_left = len(slots) - (slots_before[1:-1] - slots_before[:1])
        enough = np.flatnonzero((left <= self.lengths["inputs"]) & (slots_left <= most))
        if len(enough):
            cut = 1 + enough[0]
            first, end = bounds[0], bounds[cut]
            self.counts["history"] += 1
            inputs = np.concatenate([inputs[:first], inputs[end:]])
            slots = np.concatenate([slots[: slots_before[0]], slots[slots_before[cut] :]])
            return Fitted(inputs, slots, bounds[bounds >= end] - (end - first))
        raise UserError(
            f"{example_name(example)}: inputs take {wide} positions and {len(slots)} "
            f"slots ({self.num_queries} positions per slot), and no more history can be "
            f"dropped; there is room for {self.lengths['inputs']} and {most}: raise "
            "task_feature_lengths['inputs'] or max_entities"
        )

    def answer(self, example: Example) -> Answer:
        """The targets, their slot widened; of rows without answers the first token's place.

        Raises:
          UserError: if they are too long and may not be cut, or not as long as `targets_content`.
        """
        targets, content = example["targets"], example["targets_content"]
        if len(targets) != len(content):
            raise UserError(
                f"{example_name(example)}: {len(targets)} targets, and {len(content)} "
                "targets_content"
            )
        is_slot = targets < 0
        if self.answers and len(targets) and not is_slot.any():
            if len(targets) > (most := self.lengths["targets"]):
                self._check_cut(example, len(targets))
            return Answer(targets[:most], np.full(min(len(targets), most), -1), content[:most], 0)
        first = np.where(is_slot[:1], self.pad, targets[:1])
        if not self.answers:
            return Answer(first, np.full(len(first), -1), content[:1], 0)
        width = np.where(is_slot, self.num_queries, 1)
        kept = len(targets)
        # A slot with nothing behind it takes no position: the item is asked for, and no token.
        if (total := int(width.sum())) > self.lengths["targets"] and not is_slot.all():
            self._check_cut(example, total)
            kept = int((np.cumsum(width) <= self.lengths["targets"]).sum())
        targets, content, is_slot, width = (
            column[:kept] for column in (targets, content, is_slot, width)
        )
        if is_slot.all():
            return Answer(first, np.zeros(len(first), int), np.zeros(len(first), int), 0)
        query = np.arange(width.sum()) - np.repeat(np.cumsum(width) - width, width)
        query = np.where(np.repeat(is_slot, width), query, -1)
        return Answer(
            np.repeat(np.where(is_slot, self.pad, targets), width),
            query,
            np.repeat(np.where(is_slot, 0, content), width),
            int((query[:-1] == 0).sum()),
        )

    def _check_cut(self, example: Example, total: int) -> None:
        """Counts targets that are cut; raises where they may not be."""
        if not self.truncate_targets:
            raise UserError(
                f"{example_name(example)}: targets take {total} tokens, there is room for "
                f"{self.lengths['targets']}; raise task_feature_lengths['targets'], or set "
                "truncate_targets=True to cut and count"
            )
        self.counts["targets"] += 1


def _catalogue(example: Example, slots: int) -> str:
    """Whose rows an example's slots are; "" where it has none.

    Raises:
      UserError: if it has slots and does not say.
    """
    if not slots:
        return ""
    if "catalogue" not in example:
        raise UserError(
            f"{example_name(example)}: has slots, and no `catalogue` whose rows they are"
        )
    return str(example["catalogue"])


def example_name(example: Example) -> str:
    """Name of an example in messages."""
    return f"{example.get('task', 'task')}, example {example.get('key', '')!r}"
