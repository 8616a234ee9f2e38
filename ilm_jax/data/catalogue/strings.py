"""Columns of texts, and of lists, as arrays end to end: what a snapshot maps from disk.

They read like the lists that they stand for; an entry becomes a Python object when it is taken.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

import numpy as np
from jaxtyping import Int, Int32, Int64, UInt8

if TYPE_CHECKING:
    import pyarrow

Entry = TypeVar("Entry")
V = TypeVar("V")
CHUNK = 1 << 16
"""Entries that become Python objects at once where a column is walked through."""


class Column(Sequence[Entry], Generic[Entry]):
    """What the columns have in common: they are indexed, sliced, walked and compared as lists."""

    def __init__(self, bounds: Int64[np.ndarray, " entries+1"], size: int) -> None:
        """Entry i lies from bounds[i] to bounds[i + 1] of the `size` that the subclass holds.

        Raises:
          ValueError: unless the bounds start at 0, rise, and end at `size`.
        """
        if len(bounds) == 0 or bounds[0] != 0 or (np.diff(bounds) < 0).any():
            raise ValueError("bounds must start at 0 and rise")
        if bounds[-1] != size:
            raise ValueError("bounds must end with what they bound")
        self.bounds = bounds
        # An entry's bounds take a twentieth of the time that an array takes for them.
        self._places, self._count = memoryview(np.asarray(bounds)), len(bounds) - 1

    def part(self, first: int, last: int) -> list[Entry]:
        """Entries `first` to `last`, the latter excluded."""
        raise NotImplementedError

    def __len__(self) -> int:
        """Number of entries."""
        return self._count

    @overload
    def __getitem__(self, at: int) -> Entry: ...
    @overload
    def __getitem__(self, at: slice) -> list[Entry]: ...
    def __getitem__(self, at: int | slice) -> Entry | list[Entry]:
        """An entry, or a list of some."""
        if isinstance(at, slice):
            first, last, step = at.indices(self._count)
            if step == 1:
                return self.part(first, max(first, last))
            return [self._one(place) for place in range(first, last, step)]
        if not -self._count <= at < self._count:
            raise IndexError(f"entry {at} of {self._count}")
        return self._one(at if at >= 0 else at + self._count)

    def _one(self, place: int) -> Entry:
        return self.part(place, place + 1)[0]

    def __iter__(self) -> Iterator[Entry]:
        """Every entry, a chunk of them in memory at once."""
        return itertools.chain.from_iterable(self.chunks())

    def chunks(self, size: int = CHUNK) -> Iterator[list[Entry]]:
        """The entries in lists of at most `size`."""
        for first in range(0, len(self), size):
            yield self.part(first, min(first + size, len(self)))

    def __eq__(self, other: object) -> bool:
        """Whether another column or list has the same entries."""
        if not isinstance(other, Sequence) or isinstance(other, str):
            return NotImplemented
        return len(self) == len(other) and all(
            mine == other[k * CHUNK : k * CHUNK + len(mine)] for k, mine in enumerate(self.chunks())
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        """The first entries."""
        more = f", … {len(self)} in all" if len(self) > 3 else ""
        return f"{type(self).__name__}({', '.join(map(repr, self[:3]))}{more})"


class Strings(Column[str]):
    """Texts in UTF-8, one behind the other.

    Attributes:
      data: their bytes.
      bounds: text i is data[bounds[i] : bounds[i + 1]].
    """

    def __init__(
        self, data: UInt8[np.ndarray, " bytes"], bounds: Int64[np.ndarray, " entries+1"]
    ) -> None:
        """See the attributes.

        Raises:
          ValueError: if the bounds are not those of the data.
        """
        super().__init__(bounds, len(data))
        self.data = data
        self._bytes = memoryview(data)

    def __reduce__(self) -> tuple[Any, ...]:
        """Copied where another process gets it."""
        return Strings, (np.array(self.data), np.array(self.bounds))

    def _one(self, place: int) -> str:
        return str(self._bytes[self._places[place] : self._places[place + 1]], "utf-8")

    @classmethod
    def of(cls, texts: Iterable[str]) -> "Strings":
        """From texts, of which only the bytes are kept.

        Raises:
          ValueError: for a text that UTF-8 cannot write (half of a surrogate pair).
        """
        if isinstance(texts, cls):
            return texts
        data, lengths = bytearray(), []
        for chunk in _chunks(texts):
            encoded = [text.encode() for text in chunk]
            data += b"".join(encoded)
            lengths.append(np.fromiter(map(len, encoded), np.int64, len(encoded)))
        return cls(np.frombuffer(data, np.uint8), bounds_of(lengths))

    def part(self, first: int, last: int) -> list[str]:
        """See `Column.part`."""
        bounds = self.bounds[first : last + 1]
        start = int(bounds[0])
        raw = self.data[start : int(bounds[-1])].tobytes()
        ends = (bounds - start).tolist()
        if raw.isascii():
            text = raw.decode("ascii")
            return [text[s:e] for s, e in itertools.pairwise(ends)]
        return [raw[s:e].decode() for s, e in itertools.pairwise(ends)]

    def take(self, rows: Int[np.ndarray, " chosen"]) -> "Strings":
        """The texts of some rows, in their order."""
        data, lengths = [], []
        for first in range(0, len(rows), CHUNK):
            chosen = rows[first : first + CHUNK]
            starts = np.asarray(self.bounds[chosen])
            counts = np.asarray(self.bounds[chosen + 1]) - starts
            ends = np.cumsum(counts)
            place = np.repeat(starts - ends + counts, counts) + np.arange(ends[-1])
            data.append(self.data[place])
            lengths.append(counts)
        joined = np.concatenate([np.zeros(0, np.uint8), *data])
        return Strings(joined, bounds_of(lengths))

    def arrow(self) -> "pyarrow.LargeStringArray":
        """The same as an Arrow array, without a copy."""
        import pyarrow

        buffers = [pyarrow.py_buffer(np.ascontiguousarray(a)) for a in (self.bounds, self.data)]
        return pyarrow.LargeStringArray.from_buffers(len(self), *buffers)


class Lists(Column[list[Entry]]):
    """Lists of entries, one behind the other; of texts, or of pairs of numbers.

    Attributes:
      values: all entries.
      bounds: list i is values[bounds[i] : bounds[i + 1]].
    """

    def __init__(
        self,
        values: "Strings | Int32[np.ndarray, 'values 2']",
        bounds: Int64[np.ndarray, " entries+1"],
    ) -> None:
        """See the attributes.

        Raises:
          ValueError: if the bounds are not those of the values.
        """
        super().__init__(bounds, len(values))
        self.values = values

    @classmethod
    def of_texts(cls, lists: Iterable[Sequence[str]]) -> "Lists[str]":
        """From lists of texts."""
        return cls._of(lists, Strings.of)

    @classmethod
    def of_pairs(cls, lists: Iterable[Sequence[tuple[int, int]]]) -> "Lists[tuple[int, int]]":
        """From lists of pairs of numbers below 2^31."""

        def pairs(values: Iterable[tuple[int, int]]) -> Int32[np.ndarray, "values 2"]:
            """All pairs as one array."""
            parts = [np.array(chunk, np.int32) for chunk in _chunks(values)]
            return np.concatenate([np.zeros((0, 2), np.int32), *parts])

        return cls._of(lists, pairs)

    @staticmethod
    def _of(
        lists: Iterable[Sequence[V]],
        gathered: Callable[[Iterable[V]], "Strings | Int32[np.ndarray, 'values 2']"],
    ) -> "Lists[V]":
        if isinstance(lists, Lists):
            return lists
        lengths: list[np.ndarray] = []

        def values() -> Iterator[V]:
            """Every entry of every list; how many each has goes to `lengths`."""
            for chunk in _chunks(lists):
                lengths.append(np.fromiter(map(len, chunk), np.int64, len(chunk)))
                yield from itertools.chain.from_iterable(chunk)

        found = gathered(values())
        return Lists(found, bounds_of(lengths))

    def _one(self, place: int) -> list[Entry]:
        start, end = self._places[place], self._places[place + 1]
        if isinstance(self.values, Strings):
            return [self.values._one(k) for k in range(start, end)]  # type: ignore[misc]
        return [tuple(pair) for pair in self.values[start:end].tolist()]  # type: ignore[misc]

    def part(self, first: int, last: int) -> list[list[Entry]]:
        """See `Column.part`."""
        bounds = self.bounds[first : last + 1]
        start, end = int(bounds[0]), int(bounds[-1])
        values: list[Any] = (
            self.values.part(start, end)
            if isinstance(self.values, Strings)
            else list(map(tuple, self.values[start:end].tolist()))
        )
        return [values[s:e] for s, e in itertools.pairwise((bounds - start).tolist())]


def distinct(texts: Sequence[str]) -> bool:
    """Whether no text is there twice."""
    if not isinstance(texts, Strings) or len(texts) <= CHUNK:
        return len(set(texts)) == len(texts)
    import pyarrow.compute

    return bool(pyarrow.compute.count_distinct(texts.arrow()).as_py() == len(texts))


def bounds_of(lengths: Sequence[np.ndarray]) -> Int64[np.ndarray, " entries+1"]:
    """Where entries of these lengths begin, and the last one ends; lengths come in parts."""
    return np.cumsum(np.concatenate([np.zeros(1, np.int64), *lengths]))


def _chunks(values: Iterable[V]) -> Iterator[list[V]]:
    walk = iter(values)
    while chunk := list(itertools.islice(walk, CHUNK)):
        yield chunk
