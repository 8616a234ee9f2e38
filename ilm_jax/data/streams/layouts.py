"""Layouts: how a dataset's examples become the rows of a batch, as an objective says by kind.

A layout is data: an objective names one for each of its kinds (`Objective.layout`), and nothing
else knows which tasks a kind is made of. Adding one needs no change here.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np

from ilm_jax.data.examples.example import Example
from ilm_jax.data.examples.task_specs import ITEM_THEN_TEXT, TaskSpec
from ilm_jax.data.streams.alignment_converter import AlignmentConverter, Column
from ilm_jax.data.streams.converters import Batch, PromptConverter, Rows, check_lengths
from ilm_jax.data.streams.item_targets import ITEMS, ItemTargets
from ilm_jax.data.streams.packing import PackedSource, PackingConverter
from ilm_jax.data.streams.streams import Source
from ilm_jax.data.tokenizers import Tokenizer
from ilm_jax.errors import UserError

if TYPE_CHECKING:
    from ilm_jax.data.streams.dataset_config import DatasetConfig

Converter = Callable[[Sequence[Example], np.ndarray], Batch]
Sources = dict[str, Source]
TEXT_LENGTH = 64


class Layout(Protocol):
    """How examples become the rows of a batch."""

    @property
    def wraps(self) -> bool:
        """Whether a finite stream starts over past its end; else rows of padding follow."""

    def check(self, dataset: "DatasetConfig", rows: Rows | None) -> None:
        """Raises UserError for what cannot be laid out so, before data is opened."""

    def open(
        self, dataset: "DatasetConfig", tasks: Sources, tokenizer: Tokenizer, rows: Rows | None
    ) -> tuple[Sources, Converter]:
        """The sources that are read, and what turns their examples into rows.

        Args:
          dataset: lengths, and what may be cut.
          tasks: the dataset's, opened, by registered name.
          tokenizer: of the tasks.
          rows: (block, local rows) -> global rows, as `TableSet.rows`; None for text alone.
        """

    def blank(self, dataset: "DatasetConfig") -> Batch:
        """A batch of one row of padding: the shapes and types of all, with no data opened."""


@dataclasses.dataclass(frozen=True)
class Prompts:
    """Prompts and their targets, for a language model; may share rows (`DatasetConfig.pack`).

    Attributes:
      num_queries: positions that a slot takes.
      items: whether batches say which items are asked for, see item_targets.py.
      answers: whether rows hold the answers; else they end at the prompt.
      slots_in_answers: whether an answer may hold an item's soft tokens.
      word_rows: of a model's whole-word embeddings; 0: batches do not number words.
      source: batches say which places an encoder may have to read: those of the inputs, where rows
        hold one example; any, where examples share rows.
      history_weight: of the items of a history, which are asked for too; 0: they are not.
    """

    num_queries: int = 1
    items: bool = False
    answers: bool = True
    slots_in_answers: bool = True
    word_rows: int = 0
    history_weight: float = 0.0
    source: bool = False
    wraps = False

    def check(self, dataset: "DatasetConfig", rows: Rows | None) -> None:
        """See `Layout.check`."""
        check_features(dataset.specs(), ("inputs", "targets"), "prompts")
        check_lengths(dataset.task_feature_lengths)
        inputs = dataset.task_feature_lengths["inputs"]
        if 0 < self.word_rows <= inputs:
            raise UserError(
                f"task_feature_lengths['inputs'] = {inputs}: so many words need {inputs + 1} "
                f"whole-word embeddings, and there are {self.word_rows}: lower it, or raise "
                "LanguageModelling.word_rows"
            )
        if self.items and rows is None:
            raise UserError("an item head needs an embedding table; run ilm fit_cf")
        spoken = [spec.task for spec in dataset.specs() if spec.answer == ITEM_THEN_TEXT]
        if spoken and not self.slots_in_answers:
            raise UserError(
                f"{spoken[0]}: answers hold an item's soft tokens, which the decoder of an "
                "encoder-decoder does not read: give a decoder (LanguageModelling.lm)"
            )

    def open(
        self, dataset: "DatasetConfig", tasks: Sources, tokenizer: Tokenizer, rows: Rows | None
    ) -> tuple[Sources, Converter]:
        """See `Layout.open`."""
        one = self._converter(
            dataset, tokenizer, rows, self._lengths(dataset), dataset.row_entities
        )
        if not dataset.shares_rows:
            return tasks, one
        row = self._row_converter(dataset, tokenizer, rows)
        packed: Sources = {
            name: PackedSource(task, one, row, dataset.pack, dataset.seed, name)
            for name, task in tasks.items()
        }
        return packed, PackingConverter(one, row)

    def blank(self, dataset: "DatasetConfig") -> Batch:
        """See `Layout.blank`."""
        return self._row_converter(dataset, cast(Tokenizer, _NoTokenizer()), None)([None])

    def _row_converter(
        self, dataset: "DatasetConfig", tokenizer: Tokenizer, rows: Rows | None
    ) -> PromptConverter:
        """To rows as the model sees them, which several examples may share."""
        shared = dataset.shares_rows
        lengths = dataset.row_lengths if shared else self._lengths(dataset)
        slots, most = dataset.row_entities, dataset.pack if shared else 1
        if dataset.max_entities is None:
            # A slot takes `num_queries` positions: no row has more than there is room for.
            room = max(1, sum(lengths.values()) // self.num_queries)
            slots = max(slots, min(slots * most, room)) if shared else min(slots, room)
        return self._converter(dataset, tokenizer, rows, lengths, slots, most)

    def _lengths(self, dataset: "DatasetConfig") -> Mapping[str, int]:
        """Lengths of a row of one example."""
        lengths = dataset.task_feature_lengths
        return lengths if self.answers else {**lengths, "targets": 1}

    def _converter(
        self,
        dataset: "DatasetConfig",
        tokenizer: Tokenizer,
        rows: Rows | None,
        lengths: Mapping[str, int],
        slots: int,
        most: int = 1,
    ) -> PromptConverter:
        items = None
        if self.items:
            tasks = zip(dataset.rates, dataset.specs(), strict=True)
            # An example asks for its answer, and of a history for no more than its slots but one.
            asked = most + slots if self.history_weight else most
            names = frozenset(name for name, spec in tasks if spec.answer in ITEMS)
            items = ItemTargets(names, asked, self.history_weight)
        return PromptConverter(
            lengths,
            tokenizer,
            num_queries=self.num_queries,
            max_entities=slots,
            rows=rows,
            truncate_targets=dataset.truncate_targets,
            items=items,
            answers=self.answers,
            word_begins=tokenizer.word_begins if self.word_rows else None,
            source=self.source and not dataset.shares_rows,
        )


PROMPTS = Prompts()


@dataclasses.dataclass(frozen=True)
class Pairs:
    """Entities of the embedding table with each other, or with texts: contrastive batches.

    A finite stream starts over past its end: contrastive losses need whole batches, and rows of one
    item share soft targets.

    Attributes:
      columns: {array of the batch: what it is made of}.
    """

    columns: Mapping[str, Column]
    wraps = True

    def check(self, dataset: "DatasetConfig", rows: Rows | None) -> None:
        """See `Layout.check`."""
        named = [column.feature for column in self.columns.values()]
        check_features(dataset.specs(), named, " and ".join(self.columns))
        if rows is None:
            raise UserError(f"{dataset.specs()[0].task} needs an embedding table; run ilm fit_cf")

    def open(
        self, dataset: "DatasetConfig", tasks: Sources, tokenizer: Tokenizer, rows: Rows | None
    ) -> tuple[Sources, Converter]:
        """See `Layout.open`."""
        assert rows is not None
        length = dataset.task_feature_lengths.get("text", TEXT_LENGTH)
        return tasks, AlignmentConverter(
            self.columns,
            rows,
            tokenizer,
            text_length=length,
            truncate_text=dataset.truncate_targets,
        )

    def blank(self, dataset: "DatasetConfig") -> Batch:
        """See `Layout.blank`."""
        length = dataset.task_feature_lengths.get("text", TEXT_LENGTH)
        shapes = {name: (1, *column.shape(length)) for name, column in self.columns.items()}
        return {
            name: np.zeros(shape, np.int32)
            for name, shape in {"example_index": (1,), **shapes}.items()
        }


def check_features(specs: Sequence[TaskSpec], named: Sequence[str], what: str) -> None:
    """Raises UserError for a task whose examples lack a feature that a layout reads."""
    for spec in specs:
        there = {name for name, _ in spec.features}
        lacking = [name for name in named if name not in there]
        if lacking:
            raise UserError(
                f"{spec.task} cannot share a batch of {what}: its examples have no "
                f"{', '.join(lacking)}; give it a batch kind of its own"
            )


class _NoTokenizer:
    """What a converter asks of a tokenizer to lay out a row of padding."""

    pad_id, bos_id = 0, 1
    word_begins = np.zeros(1, bool)
