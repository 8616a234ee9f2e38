"""Packing: several short examples share a row, each a segment that sees itself alone.

Which examples share a row follows from their lengths (packing_plan.py), so a row is as much a pure
function of its number as an example is: packed streams shuffle, mix and resume as others do.
"""

import pathlib
import sys
from collections import OrderedDict
from collections.abc import Mapping, Sequence

import numpy as np

from ilm_jax.data.examples.example import Example
from ilm_jax.data.streams.converters import Batch, PromptConverter, index_column
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
    return sha256_json([FORMAT, OPEN_ROWS, how, *room.limits.tolist(), seed])


def _size(row: Batch) -> tuple[int, int, int]:
    entities = int(row["slot_entity"].max()) + 1
    return int((row["segment_ids"] > 0).sum()), int(row["loss_weights"].sum()), entities


class PackingConverter:
    """Rows of a `PackedSource` to batches of a `PromptConverter`'s shapes."""

    def __init__(self, converter: PromptConverter, row: PromptConverter) -> None:
        """Joins what `converter` makes of single examples, in the shapes of `row`."""
        self._converter, self._shapes = converter, row

    @property
    def counts(self) -> Mapping[str, int]:
        """Number of cuts, by name."""
        return self._converter.counts

    def __call__(
        self, examples: Sequence[Example | None], indices: Sequence[int] | np.ndarray | None = None
    ) -> Batch:
        """Stacks rows; as `PromptConverter`, with segments 1, 2, … in a row."""
        rows = [self._row(row["packed"] if row else []) for row in examples]
        batch = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
        batch["example_index"] = index_column(examples, indices)
        return batch

    def _row(self, examples: Sequence[Example]) -> Batch:
        blank = {name: array[0] for name, array in self._shapes([None]).items()}
        if not examples:
            return blank
        single = self._converter(examples)
        at = entities = asked = 0
        for i in range(len(examples)):
            length, _, slots = _size({name: array[i : i + 1] for name, array in single.items()})
            where = slice(at, at + length)
            for name in (
                "tokens",
                "targets",
                "loss_weights",
                "content_weights",
                "positions",
                "slot_query",
                *({"word_ids"} & single.keys()),
            ):
                blank[name][where] = single[name][i, :length]
            blank["segment_ids"][where] = i + 1
            slot = single["slot_entity"][i, :length]
            blank["slot_entity"][where] = np.where(slot >= 0, slot + entities, -1)
            blank["entities"][entities : entities + slots] = single["entities"][i, :slots]
            if "item_targets" in single:
                here = single["item_targets"][i] >= 0
                some = slice(asked, asked + int(here.sum()))
                blank["item_targets"][some] = single["item_targets"][i, here]
                blank["item_positions"][some] = single["item_positions"][i, here] + at
                if "item_weights" in single:
                    blank["item_weights"][some] = single["item_weights"][i, here]
                asked = some.stop
            at, entities = at + length, entities + slots
        return blank
