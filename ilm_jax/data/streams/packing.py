"""Packing: several short examples share a row, each a segment that sees itself alone.

Which examples share a row follows from their lengths (packing_plan.py), so a row is as much a pure
function of its number as an example is: packed streams shuffle, mix and resume as others do.
"""

import dataclasses
import pathlib
import sys
from collections import OrderedDict
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Int

from ilm_jax.data.examples.example import Example
from ilm_jax.data.streams.converters import Batch, PromptConverter, index_column
from ilm_jax.data.streams.local_rows import before
from ilm_jax.data.streams.packing_plan import OPEN_ROWS, Plan, Room
from ilm_jax.data.streams.streams import Epochs, Source
from ilm_jax.data.streams.task_cache import Progress
from ilm_jax.files import sha256_json

FORMAT = "ilm_jax.packing/3"
# Examples that are kept from the plan until their rows are read, which is soon if it is here.
KEPT = 4096


class PackedSource:
    """A source whose examples are rows: {"packed": the examples that share it}.

    A row is planned when it is first read, with all before it; to count the rows is to read every
    example. A task keeps its plans beside its examples, one for each way in which rows can differ.
    """

    def __init__(
        self,
        source: Source,
        converter: PromptConverter,
        row: PromptConverter,
        examples: int,
        seed: int,
        name: str = "",
    ) -> None:
        """Reads nothing yet but the plan that is stored, if there is one.

        Args:
          source: the examples.
          converter: of single examples; says how long each is.
          row: to rows of the length that is shared; says how much one holds.
          examples: that share a row at most.
          seed: of the plan.
          name: of the task, which its examples bear; "": they bear none.
        """
        self._named = {"task": name} if name else {}
        room = Room(
            row.inputs_length + row.targets_length,
            row.targets_length,
            row.max_entities,
            examples,
        )
        self._source, self._converter = source, converter
        self._kept: OrderedDict[int, Example] = OrderedDict()
        self._folder: pathlib.Path | None = getattr(source, "path", None)
        file = self._folder and self._folder / f"packing-{_key(converter, room, seed)[:12]}.npz"
        self._plan = Plan(self._size, len(source), room, seed, file)

    def _size(self, example: int) -> tuple[int, int, int]:
        made = self._kept[example] = self._source[example]
        if len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return self._converter.size(made)

    def _made(self, example: int) -> Example:
        kept = self._kept.pop(example, None)
        return self._source[example] if kept is None else kept

    def __len__(self) -> int:
        total = len(self._source)
        if self._folder is None or self._plan.placed == total:
            return self._plan.rows()
        shown = Progress(self._folder, total, "packing")
        rows = self._plan.rows(shown.show)
        shown.done(total)
        return rows

    def __getitem__(self, index: int) -> Example:
        row = self._plan.row(index)
        if row is None:
            raise IndexError(f"there is no row {index}")
        return {"packed": [{**self._made(i), **self._named} for i in row]}

    def about(self) -> float:
        """Number of rows, to a few per cent: enough to mix by."""
        return self._plan.about()

    def endless(self, seed: int | None) -> "EndlessRows":
        """Rows without end, for which they need not be counted.

        Args:
          seed: of the order; None: every epoch is in the plan's.
        """
        return EndlessRows(self, seed)

    def has(self, index: int) -> bool:
        """Whether there is such a row."""
        return self._plan.row(index) is not None


class EndlessRows:
    """Rows by number: first in the plan's order, which is random; each epoch in one of its own."""

    def __init__(self, source: PackedSource, seed: int | None) -> None:
        """As `PackedSource.endless`."""
        self._source, self._epochs = source, Epochs(source, seed)

    def __len__(self) -> int:
        return sys.maxsize

    def __getitem__(self, index: int) -> Example:
        if self._source.has(index):
            return self._source[index]
        return self._epochs[index]


def _key(converter: PromptConverter, room: Room, seed: int) -> str:
    """Hex key of all that a plan depends on beside the examples and their tokenizer."""
    how = [converter.inputs_length, converter.targets_length, converter.max_entities]
    how += [converter.num_queries, converter.truncate_targets]
    return sha256_json([FORMAT, OPEN_ROWS, how, *dataclasses.astuple(room), seed])


# Arrays with an entry for each position of a row.
_BY_POSITION = (
    "tokens",
    "targets",
    "loss_weights",
    "content_weights",
    "positions",
    "slot_query",
    "word_ids",
)


class PackingConverter:
    """Rows of a `PackedSource` to batches of a `PromptConverter`'s shapes."""

    def __init__(self, converter: PromptConverter, row: PromptConverter) -> None:
        """Joins what `converter` makes of single examples, in the shapes of `row`."""
        self._converter, self._blank = converter, row([None])

    @property
    def counts(self) -> Mapping[str, int]:
        """Number of cuts, by name."""
        return self._converter.counts

    def __call__(
        self, examples: Sequence[Example | None], indices: Sequence[int] | np.ndarray | None = None
    ) -> Batch:
        """Stacks rows; as `PromptConverter`, with segments 1, 2, … in a row."""
        batch = {name: np.repeat(row, len(examples), axis=0) for name, row in self._blank.items()}
        sharing = [row["packed"] if row else [] for row in examples]
        rows = np.repeat(np.arange(len(examples)), [len(row) for row in sharing])
        if len(rows):
            self._fill(
                batch, self._converter([example for row in sharing for example in row]), rows
            )
        batch["example_index"] = index_column(examples, indices)
        return batch

    def _fill(self, batch: Batch, single: Batch, rows: Int[np.ndarray, " examples"]) -> None:
        """Writes each example behind those in front of it in its row.

        Args:
          batch: rows of padding.
          single: the examples, each in a row of its own.
          rows: which row of the batch each goes to, ascending.
        """
        there = single["segment_ids"] > 0
        start = before(there.sum(1), rows)
        example, place = np.nonzero(there)
        where = rows[example], start[example] + place
        for name in _BY_POSITION:
            if name in single:
                batch[name][where] = single[name][there]
        batch["segment_ids"][where] = 1 + before(np.ones_like(rows), rows)[example]

        slots = single["slot_entity"].max(1) + 1
        earlier = before(slots, rows)
        slot = single["slot_entity"][there]
        batch["slot_entity"][where] = np.where(slot < 0, -1, slot + earlier[example])
        example, place = np.nonzero(np.arange(single["entities"].shape[1]) < slots[:, None])
        where = rows[example], earlier[example] + place
        batch["entities"][where] = single["entities"][example, place]

        if "item_targets" in single:
            asked = single["item_targets"] >= 0
            example, place = np.nonzero(asked)
            where = rows[example], before(asked.sum(1), rows)[example] + place
            for name in single.keys() & {"item_targets", "item_weights"}:
                batch[name][where] = single[name][asked]
            batch["item_positions"][where] = single["item_positions"][asked] + start[example]
