"""Prompt examples to language-model batches, in NumPy.

What is cut is counted; what may not be cut raises.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int, Int64

from ilm_jax.data.examples.prompts import ITEM_SLOT, USER_SLOT
from ilm_jax.data.streams.item_targets import ItemTargets
from ilm_jax.data.tokenizers import Tokenizer
from ilm_jax.errors import UserError

Example = Mapping[str, Any]
Batch = dict[str, np.ndarray]
# (block such as "toy/item", local rows) -> global rows: `TableSet.rows`.
Rows = Callable[[str, Int[np.ndarray, " rows"]], Int64[np.ndarray, " rows"]]
_BLOCKS = {ITEM_SLOT: "item", USER_SLOT: "user"}


class PromptConverter:
    """Prompt examples (and corpus texts) to language-model batches.

    A row reads [bos] inputs targets, without the last token, and its labels are the same shifted
    by one. A model that was trained without bos reads none: then nothing predicts a row's first
    token, which costs a corpus text one target. A slot is widened to `num_queries` positions that
    hold pad ids. Inputs that are too long lose whole elements of their history, the oldest first,
    and never a part of a slot.

    Attributes:
      counts: examples cut so far: "history" (elements dropped), "targets" (tokens dropped).
    """

    def __init__(
        self,
        lengths: Mapping[str, int],
        tokenizer: Tokenizer,
        *,
        num_queries: int = 1,
        max_entities: int = 1,
        rows: Rows | None = None,
        truncate_targets: bool = False,
        items: ItemTargets | None = None,
        answers: bool = True,
    ) -> None:
        """Fixes the shapes.

        Args:
          lengths: {"inputs": …, "targets": …} in positions; inputs after widening, without bos.
          tokenizer: gives bos and pad.
          num_queries: positions per slot.
          max_entities: slots per row at most.
          rows: global rows of local ones; None where no example has a slot.
          truncate_targets: cut over-long targets (and count them) instead of raising.
          items: which tasks ask for items; None: batches say nothing of it.
          answers: whether rows hold the answers; else they end at the prompt, whose last place
            predicts an answer's first token alone.

        Raises:
          UserError: if a length is missing or not positive.
        """
        check_lengths(lengths)
        self._pad = tokenizer.pad_id
        self._opening = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
        self.inputs_length, self.targets_length = lengths["inputs"], lengths["targets"]
        self.num_queries = num_queries
        self.max_entities = max(1, max_entities)
        self.truncate_targets = truncate_targets
        self._rows, self._items, self._answers = rows, items, answers
        self.counts: Counter[str] = Counter()

    @property
    def entity_rows(self) -> Rows | None:
        """Global rows of local ones; None where no example has a slot."""
        return self._rows

    def __call__(
        self,
        examples: Sequence[Example | None],
        indices: Sequence[int] | np.ndarray | None = None,
    ) -> Batch:
        """Stacks examples; None gives a row of padding, with example_index -1.

        Args:
          examples: prompt or corpus examples.
          indices: their numbers in the stream; default 0, 1, ….

        Returns:
          int32 unless said, with L = inputs + targets length and E = max_entities:
          tokens[B, L], targets[B, L] (the next token), loss_weights f32[B, L] (1 where that is a
          target token), content_weights f32[B, L] (1 where it carries information), positions
          [B, L], segment_ids[B, L] (1 real, 0 pad), entities[B, E] (global rows, -1 none),
          slot_entity[B, L] (number into E, -1 none), slot_query[B, L] (-1 none),
          example_index[B] (modulo 2**31). Of items that are asked for, if batches say so, M of a
          row at most: item_targets[B, M] (global rows, -1 none), item_positions[B, M] (places
          whose hidden states predict them, -1 none).

        Raises:
          UserError: for inputs or targets that are too long and may not be cut.
        """
        length = self.inputs_length + self.targets_length
        batch = self._empty(len(examples), length)
        batch["targets"] = np.full((len(examples), length), self._pad, np.int32)
        batch["loss_weights"] = np.zeros((len(examples), length), np.float32)
        batch["content_weights"] = np.zeros((len(examples), length), np.float32)
        local = _LocalRows(len(examples), self.max_entities)
        places = np.full(len(examples), -1)
        for row, example in enumerate(examples):
            if example is None:
                continue
            targets = self._targets(example)
            content = example["targets_content"][: len(targets)]
            read = self._write_inputs(batch, row, example, local)
            places[row] = read - 1
            end = read + len(targets) - 1
            batch["tokens"][row, read:end] = targets[:-1]
            if not read:  # nothing stands in front of the first target: nothing predicts it
                read, targets, content = 1, targets[1:], content[1:]
            batch["targets"][row, : read - 1] = batch["tokens"][row, 1:read]
            batch["targets"][row, read - 1 : end] = targets
            batch["loss_weights"][row, read - 1 : end] = 1
            batch["content_weights"][row, read - 1 : end] = content
            batch["positions"][row, :end] = np.arange(end)
            batch["segment_ids"][row, :end] = 1
        batch["entities"] = local.to_global(self._rows)
        batch["example_index"] = index_column(examples, indices)
        return batch | (self._items.columns(examples, places, self._rows) if self._items else {})

    def prompts(
        self,
        examples: Sequence[Example | None],
        indices: Sequence[int] | np.ndarray | None = None,
    ) -> Batch:
        """Prompts alone, for decoding: [bos] inputs, right-padded to inputs length (+ 1 with bos).

        Returns:
          tokens, positions, segment_ids, slot_entity, slot_query [B, that], entities [B, E],
          example_index[B] as above, and lengths[B]: real tokens of each row.
        """
        batch = self._empty(len(examples), len(self._opening) + self.inputs_length)
        local = _LocalRows(len(examples), self.max_entities)
        for row, example in enumerate(examples):
            if example is not None:
                end = self._write_inputs(batch, row, example, local)
                batch["positions"][row, :end] = np.arange(end)
                batch["segment_ids"][row, :end] = 1
        batch["entities"] = local.to_global(self._rows)
        batch["lengths"] = batch["segment_ids"].sum(1, dtype=np.int32)
        batch["example_index"] = index_column(examples, indices)
        return batch

    def size(self, example: Example) -> tuple[int, int, int]:
        """(positions, target tokens, slots) that an example takes in its row; nothing is counted.

        Raises:
          UserError: as a call with this example.
        """
        counts, self.counts = self.counts, Counter()
        try:
            inputs, slots = self._fitted(example)
            targets = len(self._targets(example))
        finally:
            self.counts = counts
        read = len(self._opening) + len(inputs) + len(slots) * (self.num_queries - 1)
        # With nothing in front of it, the first target has no prediction.
        return read + targets - 1, targets - (not read), len(slots)

    def _empty(self, rows: int, length: int) -> Batch:
        fills = {
            "tokens": self._pad,
            "positions": 0,
            "segment_ids": 0,
            "slot_entity": -1,
            "slot_query": -1,
        }
        return {name: np.full((rows, length), fill, np.int32) for name, fill in fills.items()}

    def _write_inputs(self, batch: Batch, row: int, example: Example, local: "_LocalRows") -> int:
        """Writes bos and the widened inputs; returns the number of positions."""
        inputs, slots = self._fitted(example)
        is_slot = inputs < 0
        width = np.where(is_slot, self.num_queries, 1)
        total, start = int(width.sum()), len(self._opening)
        where = slice(start, start + total)
        batch["tokens"][row, :start] = self._opening
        batch["tokens"][row, where] = np.repeat(np.where(is_slot, self._pad, inputs), width)
        if len(slots):
            wide = np.repeat(is_slot, width)
            number = np.repeat(np.cumsum(is_slot) - 1, width)
            query = np.arange(total) - np.repeat(np.cumsum(width) - width, width)
            batch["slot_entity"][row, where] = np.where(wide, number, -1)
            batch["slot_query"][row, where] = np.where(wide, query, -1)
            local.put(row, example["catalogue"], inputs[is_slot], slots)
        return start + total

    def _fitted(self, example: Example) -> tuple[np.ndarray, np.ndarray]:
        """Inputs and slots, without as many of the oldest history elements as do not fit."""
        inputs, slots = example["inputs"], example["slots"]
        if not len(slots) and len(inputs) <= self.inputs_length:
            return inputs, slots
        is_slot = inputs < 0
        # Positions and slots before each token; differences give those of any span.
        before = np.concatenate([[0], np.cumsum(np.where(is_slot, self.num_queries, 1))])
        slots_before = np.concatenate([[0], np.cumsum(is_slot)])
        if before[-1] <= self.inputs_length and slots_before[-1] <= self.max_entities:
            return inputs, slots
        bounds = example["history_bounds"]
        # The latest element stays: a history of nothing is another task.
        for cut in bounds[1:-1]:
            start = bounds[0]
            left = before[-1] - (before[cut] - before[start])
            slots_left = slots_before[-1] - (slots_before[cut] - slots_before[start])
            if left <= self.inputs_length and slots_left <= self.max_entities:
                self.counts["history"] += 1
                inputs = np.concatenate([inputs[:start], inputs[cut:]])
                gone = slice(slots_before[start], slots_before[cut])
                return inputs, np.delete(slots, gone)
        raise UserError(
            f"{example_name(example)}: inputs take {before[-1]} positions and {slots_before[-1]} "
            f"slots ({self.num_queries} positions per slot), and no more history can be "
            f"dropped; there is room for {self.inputs_length} and {self.max_entities}: raise "
            "task_feature_lengths['inputs'] or max_entities"
        )

    def _targets(self, example: Example) -> np.ndarray:
        targets = example["targets"]
        if not self._answers:
            return targets[:1]
        if len(targets) <= self.targets_length:
            return targets
        if not self.truncate_targets:
            raise UserError(
                f"{example_name(example)}: targets take {len(targets)} tokens, there is room for "
                f"{self.targets_length}; raise task_feature_lengths['targets'], or set "
                "truncate_targets=True to cut and count"
            )
        self.counts["targets"] += 1
        return targets[: self.targets_length]


class _LocalRows:
    """Entities of a batch, by catalogue and kind, mapped to global rows in few calls."""

    def __init__(self, batch: int, entities: int) -> None:
        self._shape = (batch, entities)
        self._found: dict[str, list[tuple[int, np.ndarray, np.ndarray]]] = {}

    def put(self, row: int, catalogue: str, kinds: np.ndarray, locals_: np.ndarray) -> None:
        """Row's entities in order of their slots."""
        for kind, name in _BLOCKS.items():
            columns = np.flatnonzero(kinds == kind)
            if len(columns):
                entry = (row, columns, locals_[columns])
                self._found.setdefault(f"{catalogue}/{name}", []).append(entry)

    def to_global(self, rows: Rows | None) -> np.ndarray:
        """Rows of the embedding table [batch, entities], -1 where a slot is empty."""
        entities = np.full(self._shape, -1, np.int32)
        for block, entries in self._found.items():
            if rows is None:
                raise UserError(f"a prompt has slots of {block}, but no embedding table is given")
            at = np.concatenate([np.full(len(columns), row) for row, columns, _ in entries])
            columns = np.concatenate([columns for _, columns, _ in entries])
            entities[at, columns] = rows(block, np.concatenate([found for *_, found in entries]))
        return entities


def check_lengths(lengths: Mapping[str, int]) -> None:
    """Raises UserError unless "inputs" and "targets" are there and of use."""
    for name in ("inputs", "targets"):
        least = 1 if name == "targets" else 0
        if lengths.get(name, -1) < least:
            raise UserError(f"task_feature_lengths lacks {name!r} of at least {least}")


def example_name(example: Example) -> str:
    """Name of an example in messages."""
    return f"{example.get('task', 'task')}, example {example['key']!r}"


def index_column(
    examples: Sequence[Example | None], indices: Sequence[int] | np.ndarray | None
) -> np.ndarray:
    """Column example_index: the numbers, -1 where there is no example."""
    numbers = np.arange(len(examples)) if indices is None else np.asarray(indices)
    absent = np.array([example is None for example in examples], bool)
    return np.where(absent, -1, numbers % 2**31).astype(np.int32)
