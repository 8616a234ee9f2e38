"""Packing: several short examples share a row, each a segment that sees itself alone.

Which examples share a row is decided once per task, from their lengths, so a row is as much a pure
function of its number as an example is: packed streams shuffle, mix and resume as others do.
"""

import contextlib
import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from ilm_jax.data import draws
from ilm_jax.data.examples.example import Example
from ilm_jax.data.streams.converters import Batch, PromptConverter, index_column
from ilm_jax.data.streams.streams import Source
from ilm_jax.data.streams.task_cache import Progress
from ilm_jax.errors import UserError
from ilm_jax.files import atomic_write, read_arrays, sha256_json

# Rows that are kept open for further examples while a plan is made.
OPEN_ROWS = 64
FORMAT = "ilm_jax.packing/2"


@dataclasses.dataclass(frozen=True)
class Room:
    """Limits of a row: positions, target tokens, slots and examples."""

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
    limits = room.limits
    needs = np.concatenate([np.array(sizes).reshape(-1, 3), np.ones((len(sizes), 1), int)], axis=1)
    too_large = np.flatnonzero((needs > limits).any(axis=1))
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
            left = np.concatenate([left, limits[None]])
            at = len(open_rows) - 1
        rows[open_rows[at]].append(example)
        left[at] -= needs[example]
    return rows


class PackedSource:
    """A source whose examples are rows: {"packed": the examples that share it}.

    A plan reads every example once, which takes minutes per million. A cached task keeps its plans
    beside its examples, one for each way in which rows can differ.
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
        """Reads every example of `source` once, for its length, unless its plan is stored.

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
        self._source = source
        folder: pathlib.Path | None = getattr(source, "path", None)
        if folder is None:
            self._rows = _Rows.of(_planned(source, converter, room, seed))
            return
        file = folder / f"packing-{_key(converter, room, seed)[:12]}.npz"
        stored = _Rows.load(file, len(source))
        if stored is None:
            shown = Progress(folder, len(source), "packing")
            stored = _Rows.of(_planned(source, converter, room, seed, shown))
            shown.done(len(source))
            with contextlib.suppress(OSError):  # a cache that may only be read
                stored.save(file)
        self._rows = stored

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Example:
        return {"packed": [{**self._source[i], **self._named} for i in self._rows[index]]}


def _planned(
    source: Source, converter: PromptConverter, room: Room, seed: int, shown: Progress | None = None
) -> list[list[int]]:
    sizes = []
    for i in range(len(source)):
        sizes.append(converter.size(source[i]))
        if shown is not None:
            shown.show(i)
    return plan(sizes, room, seed)


def _key(converter: PromptConverter, room: Room, seed: int) -> str:
    """Hex key of all that a plan depends on beside the examples and their tokenizer."""
    how = [converter.inputs_length, converter.targets_length, converter.max_entities]
    how += [converter.num_queries, converter.truncate_targets]
    return sha256_json([FORMAT, OPEN_ROWS, how, *room.limits.tolist(), seed])


@dataclasses.dataclass(frozen=True, eq=False)
class _Rows:
    """Row k holds the examples order[starts[k] : starts[k + 1]]."""

    starts: np.ndarray
    order: np.ndarray

    @classmethod
    def of(cls, rows: list[list[int]]) -> "_Rows":
        """From the lists of example numbers, one per row."""
        starts = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
        order = np.concatenate([*rows, np.zeros(0)])
        return cls(starts.astype(np.int64), order.astype(np.int64))

    @classmethod
    def load(cls, path: pathlib.Path, examples: int) -> "_Rows | None":
        """The stored rows; None if there are none, or not of so many examples."""
        try:
            arrays = read_arrays(path)
            found = cls(arrays["starts"], arrays["order"])
        except (OSError, KeyError, ValueError):
            return None
        whole = np.array_equal(np.sort(found.order), np.arange(examples))
        return found if whole and found.starts[-1] == examples else None

    def save(self, path: pathlib.Path) -> None:
        """Writes what `load` reads, atomically."""
        with atomic_write(path, "wb") as stream:
            np.savez(stream, starts=self.starts, order=self.order)

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, index: int) -> list[int]:
        return self.order[self.starts[index] : self.starts[index + 1]].tolist()


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
