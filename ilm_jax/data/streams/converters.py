"""Prompt examples to language-model batches, in NumPy.

What is cut is counted; what may not be cut raises.
"""

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Int, Int64

from ilm_jax.data.examples.example import Example
from ilm_jax.data.streams.fitting import Fitting, Row
from ilm_jax.data.streams.item_targets import ItemTargets, history_items
from ilm_jax.data.streams.local_rows import Entities, global_rows
from ilm_jax.data.streams.writing import number_places, write_answers, write_inputs
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
        self._fitting = Fitting(
            dict(lengths), num_queries, max(1, max_entities), truncate_targets, answers, self._pad
        )
        self._uncounted = dataclasses.replace(self._fitting, counts=Counter())
        self._rows, self._items = rows, items
        self._word_begins, self._source = word_begins, source

    @property
    def inputs_length(self) -> int:
        """Positions of the inputs, after widening, without bos."""
        return self._fitting.lengths["inputs"]

    @property
    def targets_length(self) -> int:
        """Positions of the answer."""
        return self._fitting.lengths["targets"]

    @property
    def num_queries(self) -> int:
        """Positions per slot."""
        return self._fitting.num_queries

    @property
    def max_entities(self) -> int:
        """Slots per row at most."""
        return self._fitting.max_entities

    @property
    def truncate_targets(self) -> bool:
        """Whether over-long targets are cut."""
        return self._fitting.truncate_targets

    @property
    def counts(self) -> Counter[str]:
        """Examples cut so far: "history" (elements dropped), "targets" (tokens dropped)."""
        return self._fitting.counts

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
        length = self.inputs_length + self.targets_length
        laid = [self._fitting.row(example) for example in examples]
        batch, read, entities = self._with_inputs(examples, laid, length)
        # The label of a place is the token behind it; an answer's labels are written over these.
        behind = np.arange(length) < read[:, None] - 1
        batch["targets"] = np.where(behind, np.roll(batch["tokens"], -1, axis=1), self._pad)
        for name in ("loss_weights", "content_weights"):
            batch[name] = np.zeros((len(examples), length), np.float32)
        answered = write_answers(batch, laid, read)
        number_places(batch, read + [len(row.answer.tokens) - 1 for row in laid])
        self._write_rest(batch, examples, indices, laid, [entities, answered])
        if self._source:
            batch["source"] = self._source_places(len(examples))
        if self._items:
            earlier = self._histories(examples, laid) if self._items.history_weight else {}
            batch |= self._items.columns(examples, read - 1, earlier, self._rows)
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
        length = len(self._opening) + self.inputs_length
        laid = [self._fitting.prompt(example) for example in examples]
        batch, read, entities = self._with_inputs(examples, laid, length)
        number_places(batch, read)
        batch["lengths"] = read.astype(np.int32)
        self._write_rest(batch, examples, indices, laid, [entities])
        return batch

    def size(self, example: Example) -> tuple[int, int, int]:
        """(positions, target tokens, slots) that an example takes in its row; nothing is counted.

        Raises:
          UserError: as a call with this example.
        """
        (inputs, slots, _), answer, *_ = self._uncounted.row(example)
        read = len(self._opening) + len(inputs) + len(slots) * (self.num_queries - 1)
        # Hidden states are read at every target, and where a slot is to be predicted.
        targets = int((answer.query <= 0).sum()) if answer.slots else len(answer.tokens)
        # With nothing in front of it, the first target has no prediction.
        positions, predicted = read + len(answer.tokens) - 1, targets - (not read)
        return max(0, positions), max(0, predicted), len(slots) + answer.slots

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

    def _with_inputs(
        self, examples: Sequence[Example | None], laid: Sequence[Row], length: int
    ) -> tuple[Batch, Int[np.ndarray, " rows"], Entities]:
        """Rows that hold their inputs, the places that each has read, and their entities."""
        batch = self._empty(len(examples), length)
        opening = len(self._opening)
        taken, entities = write_inputs(
            batch, laid, opening=opening, num_queries=self.num_queries, pad=self._pad
        )
        there = np.array([example is not None for example in examples], bool)
        batch["tokens"][there, :opening] = self._opening
        read = np.where(there, opening + taken, 0)
        if self._word_begins is not None:
            begun = np.cumsum(self._word_begins[batch["tokens"]], axis=1)
            words = np.where(np.arange(length) < read[:, None], begun, -1)
            batch["word_ids"] = words.astype(np.int32)
        return batch, read, entities

    def _write_rest(
        self,
        batch: Batch,
        examples: Sequence[Example | None],
        indices: Sequence[int] | np.ndarray | None,
        laid: Sequence[Row],
        entities: Sequence[Entities],
    ) -> None:
        catalogues = [row.catalogue for row in laid]
        batch["entities"] = global_rows(entities, catalogues, self.max_entities, self._rows)
        batch["example_index"] = index_column(examples, indices)

    def _histories(
        self, examples: Sequence[Example | None], laid: Sequence[Row]
    ) -> dict[int, tuple[np.ndarray, np.ndarray]]:
        """(places, local rows) of earlier items that a row asks for, of rows that ask."""
        assert self._items is not None
        opening = len(self._opening)
        return {
            number: history_items(row.fitted, self.num_queries, opening)
            for number, row in enumerate(laid)
            if self._items.asks(examples[number])
        }


def check_lengths(lengths: Mapping[str, int]) -> None:
    """Raises UserError unless "inputs" and "targets" are there and of use."""
    for name in ("inputs", "targets"):
        least = 1 if name == "targets" else 0
        if lengths.get(name, -1) < least:
            raise UserError(f"task_feature_lengths lacks {name!r} of at least {least}")


def index_column(
    examples: Sequence[Example | None], indices: Sequence[int] | np.ndarray | None
) -> np.ndarray:
    """Column example_index: the numbers, -1 where there is no example."""
    numbers = np.arange(len(examples)) if indices is None else np.asarray(indices)
    absent = np.array([example is None for example in examples], bool)
    return np.where(absent, -1, numbers % 2**31).astype(np.int32)
