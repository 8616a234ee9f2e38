"""Arrays in files of a scratch folder: more than memory holds, and gone with their last use."""

import contextlib
import contextvars
import os
import tempfile
from collections.abc import Iterator
from typing import IO

import numpy as np

FROM = 1 << 26
"""Bytes from which an array lies in a file; smaller ones are memory."""
_PART = 1 << 22
_FOLDER: contextvars.ContextVar[str | None] = contextvars.ContextVar("scratch", default=None)


@contextlib.contextmanager
def into(folder: str | os.PathLike) -> Iterator[None]:
    """What is made inside lies in `folder`, and not where temporary files do."""
    token = _FOLDER.set(os.fspath(folder))
    try:
        yield
    finally:
        _FOLDER.reset(token)


def folder() -> str:
    """Where the files lie."""
    return _FOLDER.get() or tempfile.gettempdir()


def empty(rows: int, dtype: np.dtype | type) -> np.ndarray:
    """A vector to be filled.

    Raises:
      OSError: if the disk lacks the room.
    """
    size = rows * np.dtype(dtype).itemsize
    if size < FROM:
        return np.empty(rows, dtype)
    with tempfile.TemporaryFile(dir=folder()) as file:  # without a name; the map keeps it
        # A write to a mapped page that the disk has no room for would kill the process.
        os.posix_fallocate(file.fileno(), 0, size)
        return np.asarray(np.memmap(file, dtype, "r+", shape=(rows,)))


def mapped(codes: np.ndarray, values: np.ndarray) -> np.ndarray:
    """values[codes], a part at a time."""
    found = empty(len(codes), values.dtype)
    for first in range(0, len(codes), _PART):
        found[first : first + _PART] = values[codes[first : first + _PART]]
    return found


def counted(rows: np.ndarray, size: int, keep: np.ndarray | None = None) -> np.ndarray:
    """How often each number below `size` is there, among those that `keep` is True for."""
    counts = np.zeros(size, np.int64)
    for first in range(0, len(rows), _PART):
        part = rows[first : first + _PART]
        part = part if keep is None else part[keep[first : first + _PART]]
        counts += np.bincount(part, minlength=size)
    return counts


def ranges(offsets: np.ndarray, most: int) -> Iterator[tuple[int, int]]:
    """Consecutive rows, cut into ranges of at most `most` entries or of one row.

    Args:
      offsets: row r has entries offsets[r] to offsets[r + 1].
      most: entries of a range.
    """
    first, rows = 0, len(offsets) - 1
    while first < rows:
        last = int(np.searchsorted(offsets, offsets[first] + most, side="right")) - 1
        last = min(max(last, first + 1), rows)
        yield first, last
        first = last


def rows_of(offsets: np.ndarray, first: int, last: int) -> np.ndarray:
    """The row of each of the entries `first` to `last`, the latter excluded."""
    if first >= last:
        return np.zeros(0, np.int32)
    begin, end = np.searchsorted(offsets, (first, last - 1), side="right") - 1
    bounds = np.clip(offsets[begin : end + 2], first, last)
    return np.repeat(np.arange(begin, end + 1, dtype=np.int32), np.diff(bounds))


class Growing:
    """A vector that parts are put behind: in memory while it is short, then in a file."""

    def __init__(self, dtype: np.dtype | type) -> None:
        """Begins with nothing."""
        self._dtype, self._bytes, self._rows = np.dtype(dtype), 0, 0
        self._parts: list[np.ndarray] = []
        self._file: IO[bytes] | None = None

    def append(self, part: np.ndarray) -> None:
        """Takes more; OSError if the disk lacks the room."""
        kept = np.ascontiguousarray(part, self._dtype)
        self._parts.append(kept)
        self._bytes += kept.nbytes
        self._rows += len(kept)
        if self._bytes >= FROM:
            self._write()

    def _write(self) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile(dir=folder())  # noqa: SIM115 - the map keeps it
        for part in self._parts:
            self._file.write(part.data)
        self._parts, self._bytes = [], 0

    def __len__(self) -> int:
        """Entries so far."""
        return self._rows

    def done(self) -> np.ndarray:
        """The vector."""
        if self._file is None:
            return np.concatenate([np.zeros(0, self._dtype), *self._parts])
        self._write()
        self._file.flush()
        found = np.memmap(self._file, self._dtype, "r", shape=(self._rows,))
        self._file.close()
        return np.asarray(found)
