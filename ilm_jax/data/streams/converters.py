"""Prompt examples to language-model batches, in NumPy.

What is cut is counted; what may not be cut raises.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int, Int64

from ilm_jax.data.examples.example import Example
from ilm_jax.data.streams.item_targets import Fitted, ItemTargets, history_items
from ilm_jax.data.streams.local_rows import LocalRows
from ilm_jax.data.tokenizers import Tokenizer
from ilm_jax.errors import UserError

Batch = dict[str, np.ndarray]
# (block such as "toy/item", local rows) -> global rows: `TableSet.rows`.
Rows = Callable[[str, Int[np.ndarray, " rows"]], Int64[np.ndarray, " rows"]]


class PromptConverter:
    """Prompt examples (and corpus texts) to language-model batches.

    A row reads [bos] inputs targets, without the last token, and its labels are the same shifted
    by one. A model that was trained without bos reads none: then nothing predicts a row's first
    token, which costs a corpus text one target. A slot is widened to `num_queries` positions that
    hold pad ids. Inputs that are too long lose whole elements of their history, the oldest first,
    and never a part of a slot. Targets may have a slot, which is `target_item`'s: it is read and
    never predicted, by no token's loss; what predicts it is an item head, at the place before it.

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
        word_begins: Bool[np.ndarray, " ids"] | None = None,
        source: bool = False,
    ) -> None:
        """Fixes the shapes.

        Args:
          lengths: {"inputs": …, "targets": …} in positions, after widening; inputs without bos.
          tokenizer: gives bos and pad.
          num_queries: positions per slot.
          max_entities: slots per row at most.
          rows: global rows of local ones; None where no example has a slot.
          truncate_targets: cut over-long targets (and count them) instead of raising.
          items: which tasks ask for items; None: batches say nothing of it.
          answers: whether rows hold the answers; else they end at the prompt, whose last place
            predicts an answer's first token alone.
          word_begins: the tokenizer's; None: batches do not number their words.
          source: batches say which places an encoder may have to read.

        Raises:
          UserError: if a length is missing or not positive.
        """
        check_lengths(lengths)
        self._tokenizer, self._pad = tokenizer, tokenizer.pad_id
        self._opening = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
        self.inputs_length, self.targets_length = lengths["inputs"], lengths["targets"]
        self.num_queries = num_queries
        self.max_entities = max(1, max_entities)
        self.truncate_targets = truncate_targets
        self._rows, self._items, self._answers = rows, items, answers
        self._word_begins, self._source = word_begins, source
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
        """Stacks prompt or corpus examples; None gives a row of padding, with example_index -1.

        `indices` are their numbers in the stream; default 0, 1, ….

        Returns:
          int32 unless said, with L = inputs + targets length and E = max_entities:
          tokens[B, L], targets[B, L] (the next token), loss_weights f32[B, L] (1 where that is a
          target token), content_weights f32[B, L] (1 where it carries information), positions
          [B, L], segment_ids[B, L] (1 real, 0 pad), entities[B, E] (global rows, -1 none),
          slot_entity[B, L] (number into E, -1 none), slot_query[B, L] (-1 none),
          example_index[B] (modulo 2**31). Of items that are asked for, if batches say so, M of a
          row at most: item_targets[B, M] (global rows, -1 none), item_positions[B, M] (places
          whose hidden states predict them, -1 none). Of words, if batches number them, word_ids
          [B, L]: how many words of the inputs have begun, as P5 counts (Geng et al. 2022); -1 where
          no inputs stand. For an encoder, if batches say so, source[B, S]: `_source_places`.

        Raises:
          UserError: for inputs or targets that are too long and may not be cut.
        """
        batch = self._empty(len(examples), length := self.inputs_length + self.targets_length)
        batch["targets"] = np.full((len(examples), length), self._pad, np.int32)
        for name in ("loss_weights", "content_weights"):
            batch[name] = np.zeros((len(examples), length), np.float32)
        local, places = LocalRows(len(examples), self.max_entities), np.full(len(examples), -1)
        earlier: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        for row, example in enumerate(examples):
            if example is None:
                continue
            answer = self._answer(example)
            fitted = self._fitted(example, answer.slots)
            read = self._write_inputs(batch, row, example, fitted, local)
            places[row] = read - 1
            if self._items and self._items.history_weight and self._items.asks(example):
                earlier[row] = history_items(fitted, self.num_queries, len(self._opening))
            end = read + len(answer.tokens) - 1
            batch["tokens"][row, read:end] = answer.tokens[:-1]
            if answer.slots:
                number = local.put_item(row, example["catalogue"], example["target_item"])
                batch["slot_query"][row, read:end] = query = answer.query[:-1]
                batch["slot_entity"][row, read:end] = np.where(query >= 0, number, -1)
            if not read:  # nothing stands in front of the first target: nothing predicts it
                read, answer = 1, _Answer(*(column[1:] for column in answer[:3]), answer.slots)
            batch["targets"][row, : read - 1] = batch["tokens"][row, 1:read]
            batch["targets"][row, read - 1 : end] = answer.tokens
            batch["loss_weights"][row, read - 1 : end] = answer.query < 0
            batch["content_weights"][row, read - 1 : end] = answer.content
            batch["positions"][row, :end] = np.arange(end)
            batch["segment_ids"][row, :end] = 1
        batch["entities"] = local.to_global(self._rows)
        batch["example_index"] = index_column(examples, indices)
        if self._source:
            batch["source"] = self._source_places(len(examples))
        if self._items:
            batch |= self._items.columns(examples, places, earlier, self._rows)
        return batch

    def _source_places(self, rows: int) -> np.ndarray:
        """Places of each row among which its inputs stand, bos included."""
        return np.tile(np.arange(self.inputs_length + 1, dtype=np.int32), (rows, 1))

    def prompts(
        self,
        examples: Sequence[Example | None],
        indices: Sequence[int] | np.ndarray | None = None,
    ) -> Batch:
        """Prompts alone, for decoding: [bos] inputs, right-padded to inputs length (+ 1 with bos).

        Returns:
          tokens, positions, segment_ids, slot_entity, slot_query [B, that], entities [B, E],
          example_index[B] as above, word_ids[B, that] if batches have them, and lengths[B]: real
          tokens of each row.
        """
        batch = self._empty(len(examples), len(self._opening) + self.inputs_length)
        local = LocalRows(len(examples), self.max_entities)
        for row, example in enumerate(examples):
            if example is not None:
                end = self._write_inputs(batch, row, example, self._fitted(example), local)
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
            answer = self._answer(example)
            inputs, slots, _ = self._fitted(example, answer.slots)
        finally:
            self.counts = counts
        read = len(self._opening) + len(inputs) + len(slots) * (self.num_queries - 1)
        # Hidden states are read at every target, and where a slot is to be predicted.
        targets = int((answer.query <= 0).sum())
        # With nothing in front of it, the first target has no prediction.
        return read + len(answer.tokens) - 1, targets - (not read), len(slots) + answer.slots

    def _empty(self, rows: int, length: int) -> Batch:
        fills = {
            "tokens": self._pad,
            "positions": 0,
            "segment_ids": 0,
            "slot_entity": -1,
            "slot_query": -1,
        }
        fills |= {} if self._word_begins is None else {"word_ids": -1}
        return {name: np.full((rows, length), fill, np.int32) for name, fill in fills.items()}

    def with_room_for_an_item(self) -> "PromptConverter":
        """One whose prompts may be longer by a slot, for what continues behind an item."""
        return PromptConverter(
            {"inputs": self.inputs_length + self.num_queries, "targets": self.targets_length},
            self._tokenizer,
            num_queries=self.num_queries,
            max_entities=self.max_entities + 1,
            rows=self._rows,
            truncate_targets=self.truncate_targets,
            word_begins=self._word_begins,
            source=self._source,
        )

    def _write_inputs(
        self, batch: Batch, row: int, example: Example, fitted: Fitted, local: LocalRows
    ) -> int:
        """Writes bos and the widened inputs; returns the number of positions."""
        inputs, slots, _ = fitted
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
        end = start + total
        if self._word_begins is not None:
            batch["word_ids"][row, :end] = np.cumsum(self._word_begins[batch["tokens"][row, :end]])
        return end

    def _fitted(self, example: Example, others: int = 0) -> Fitted:
        """The example without the oldest of its history, where all does not fit beside `others`."""
        inputs, slots = example["inputs"], example["slots"]
        bounds = np.asarray(example["history_bounds"], np.int64)
        most = self.max_entities - others
        wide = len(inputs) + len(slots) * (self.num_queries - 1)
        if wide <= self.inputs_length and len(slots) <= most:
            return Fitted(inputs, slots, bounds)
        is_slot = inputs < 0
        # Positions and slots before each token; differences give those of any span.
        before = np.concatenate([[0], np.cumsum(np.where(is_slot, self.num_queries, 1))])
        slots_before = np.concatenate([[0], np.cumsum(is_slot)])
        # The latest element stays: a history of nothing is another task.
        start, cuts = bounds[:1], bounds[1:-1]
        left = before[-1] - (before[cuts] - before[start])
        slots_left = slots_before[-1] - (slots_before[cuts] - slots_before[start])
        enough = np.flatnonzero((left <= self.inputs_length) & (slots_left <= most))
        if len(enough):
            first, cut = bounds[0], cuts[enough[0]]
            self.counts["history"] += 1
            inputs = np.concatenate([inputs[:first], inputs[cut:]])
            gone = slice(slots_before[first], slots_before[cut])
            kept = bounds[bounds >= cut] - (cut - first)
            return Fitted(inputs, np.delete(slots, gone), kept)
        raise UserError(
            f"{example_name(example)}: inputs take {before[-1]} positions and {slots_before[-1]} "
            f"slots ({self.num_queries} positions per slot), and no more history can be "
            f"dropped; there is room for {self.inputs_length} and {most}: raise "
            "task_feature_lengths['inputs'] or max_entities"
        )

    def _answer(self, example: Example) -> "_Answer":
        """The targets, their slot widened; of rows without answers the first token's place."""
        targets, content = example["targets"], example["targets_content"]
        is_slot = targets < 0
        if self._answers and len(targets) and not is_slot.any():
            if len(targets) > (most := self.targets_length):
                self._check_cut(example, len(targets))
            return _Answer(targets[:most], np.full(min(len(targets), most), -1), content[:most], 0)
        first = np.where(is_slot[:1], self._pad, targets[:1])
        if not self._answers:
            return _Answer(first, np.full(1, -1), content[:1], 0)
        width = np.where(is_slot, self.num_queries, 1)
        kept = len(targets)
        # A slot with nothing behind it takes no position: the item is asked for, and no token.
        if (total := int(width.sum())) > self.targets_length and not is_slot.all():
            self._check_cut(example, total)
            kept = int((np.cumsum(width) <= self.targets_length).sum())
        targets, content, is_slot, width = (
            column[:kept] for column in (targets, content, is_slot, width)
        )
        if is_slot.all():
            return _Answer(first, np.zeros(1, int), np.zeros(1, int), 0)
        query = np.arange(width.sum()) - np.repeat(np.cumsum(width) - width, width)
        query = np.where(np.repeat(is_slot, width), query, -1)
        return _Answer(
            np.repeat(np.where(is_slot, self._pad, targets), width),
            query,
            np.repeat(np.where(is_slot, 0, content), width),
            int((query[:-1] == 0).sum()),
        )

    def _check_cut(self, example: Example, total: int) -> None:
        """Counts targets that are cut; raises where they may not be."""
        if not self.truncate_targets:
            raise UserError(
                f"{example_name(example)}: targets take {total} tokens, there is room for "
                f"{self.targets_length}; raise task_feature_lengths['targets'], or set "
                "truncate_targets=True to cut and count"
            )
        self.counts["targets"] += 1


class _Answer(NamedTuple):
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
