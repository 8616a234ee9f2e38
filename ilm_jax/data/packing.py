"""Packing: several short examples share a row, each a segment that sees itself alone.

Which examples share a row is decided once per task, from their lengths, so a row is as much a pure
function of its number as an example is: packed streams shuffle, mix and resume as others do.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from ilm_jax.data import draws
from ilm_jax.data.converters import Batch, Example, PromptConverter, index_column
from ilm_jax.data.streams import Source
from ilm_jax.errors import UserError

# Rows that are kept open for further examples while a plan is made.
OPEN_ROWS = 64


@dataclasses.dataclass(frozen=True)
class Room:
    """What a row holds at most: positions, target tokens, slots and examples."""

    positions: int
    targets: int
    entities: int
    examples: int

    @property
    def limits(self) -> np.ndarray:
        """The four, as a vector."""
        return np.array(dataclasses.astuple(self))


def plan(sizes: Sequence[tuple[int, int, int]], room: Room, seed: int) -> list[list[int]]:
    """Which examples share each row: every example once, in the first open row with room for it.

    Args:
      sizes: (positions, target tokens, slots) of each example.
      room: of a row.
      seed: of the order in which examples are placed.

    Raises:
      UserError: if an example alone is more than a row holds.
    """
    needs = np.concatenate([np.array(sizes).reshape(-1, 3), np.ones((len(sizes), 1), int)], axis=1)
    too_large = np.flatnonzero((needs > room.limits).any(axis=1))
    if len(too_large):
        raise UserError(f"example {too_large[0]} needs {needs[too_large[0]]}, a row has {room}")
    order = np.random.default_rng(draws.integer(2**31, seed, "packing")).permutation(len(sizes))
    rows: list[list[int]] = []
    open_rows: list[int] = []
    left = np.zeros((0, 4), int)
    for example in order.tolist():
        fits = np.flatnonzero((left >= needs[example]).all(axis=1))
        if len(fits):
            at = int(fits[0])
        else:
            if len(open_rows) == OPEN_ROWS:  # the fullest will hardly take another
                fullest = int(left[:, 0].argmin())
                del open_rows[fullest]
                left = np.delete(left, fullest, axis=0)
            rows.append([])
            open_rows.append(len(rows) - 1)
            left = np.concatenate([left, room.limits[None]])
            at = len(open_rows) - 1
        rows[open_rows[at]].append(example)
        left[at] -= needs[example]
    return rows


class PackedSource:
    """A source whose examples are rows: {"packed": the examples that share it}."""

    def __init__(
        self, source: Source, converter: PromptConverter, examples: int, seed: int
    ) -> None:
        """Reads every example of `source` once, for its length.

        Args:
          source: the examples.
          converter: to single rows; says how long each is and how much a row holds.
          examples: that share a row at most.
          seed: of the plan.
        """
        room = Room(
            converter.inputs_length + converter.targets_length, converter.targets_length,
            converter.max_entities, examples,
        )  # fmt: skip
        self._source = source
        self._rows = plan([_size(converter([source[i]])) for i in range(len(source))], room, seed)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"packed": [self._source[i] for i in self._rows[index]]}


def _size(row: Batch) -> tuple[int, int, int]:
    entities = int(row["slot_entity"].max()) + 1
    return int((row["segment_ids"] > 0).sum()), int(row["loss_weights"].sum()), entities


class PackingConverter:
    """Rows of a `PackedSource` to batches of a `PromptConverter`'s shapes."""

    def __init__(self, converter: PromptConverter) -> None:
        """Joins what `converter` makes of single examples."""
        self._converter = converter

    @property
    def counts(self) -> Any:
        """What was cut."""
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
        blank = {name: array[0] for name, array in self._converter([None]).items()}
        if not examples:
            return blank
        single = self._converter(examples)
        at = entities = 0
        for i in range(len(examples)):
            length, _, slots = _size({name: array[i : i + 1] for name, array in single.items()})
            where = slice(at, at + length)
            for name in ("tokens", "targets", "loss_weights", "content_weights", "positions",
                         "slot_query"):  # fmt: skip
                blank[name][where] = single[name][i, :length]
            blank["segment_ids"][where] = i + 1
            slot = single["slot_entity"][i, :length]
            blank["slot_entity"][where] = np.where(slot >= 0, slot + entities, -1)
            blank["entities"][entities : entities + slots] = single["entities"][i, :slots]
            at, entities = at + length, entities + slots
        return blank
