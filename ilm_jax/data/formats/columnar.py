"""Large files by columns, through Arrow: fast, and of plain files alone.

Arrow cuts lines into cells and numbers the different ones; what a cell may hold is decided by the
rules of the strict readers, which see every different cell once. Whatever is not plain is left to
them: quotes, a byte order mark, another encoding than UTF-8, an empty line, a wrong number of
columns. So a file that is taken here is taken there, as the same rows; and one that is not is
refused there, with file and line.

Arrow was chosen by measurement (`python -m tests.benchmarks.bench_catalogue engines`): to cut a row
of text ids and number them takes it 0.9 µs of a core, Polars 1.0 and DuckDB 2.3; and Polars fills
cells that a line lacks in silence.
"""

import codecs
import pathlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from ilm_jax.data import spill
from ilm_jax.data.catalogue.strings import Strings
from ilm_jax.data.formats import notes
from ilm_jax.data.formats.coded import Coded
from ilm_jax.errors import UserError

if TYPE_CHECKING:
    import pyarrow

FROM = 1 << 20
"""Bytes of a file from which it is read by columns."""
_BLOCK = 1 << 24
_LINE = 1 << 16  # every line is shorter than two of these: csv's limit of a cell is 131,072
Found = TypeVar("Found")


class NotPlainError(Exception):
    """A file that the strict reader has to judge."""


# What a value that Python has no type for makes Arrow raise is for the strict reader, too.
_LEFT = (NotPlainError, UserError, ValueError, OverflowError, TypeError)


def attempt(path: pathlib.Path, read: Callable[[], Found]) -> Found | None:
    """What `read` gives of a large file; None where the strict reader has to read it.

    What a failed attempt notes is forgotten.
    """
    if not path.is_file() or path.stat().st_size < FROM:
        return None
    import pyarrow

    with notes.collected() as said:
        try:
            found = read()
        except (*_LEFT, pyarrow.ArrowException):
            return None
    for note in said:
        notes.say(note)
    return found


def lines_of(path: pathlib.Path) -> int:
    """Number of lines of a plain text file; Arrow has to give as many rows.

    Raises:
      NotPlainError: for a quote, a NUL, a byte order mark, an early end, a line of 64 KiB or more.
      UnicodeDecodeError: for bytes that are not UTF-8.
    """
    count, last = 0, b""
    decoder = codecs.getincrementaldecoder("utf-8")()
    with open(path, "rb") as stream:
        while chunk := stream.read(1 << 22):
            if any(sign in chunk for sign in (b'"', b"\0")):
                raise NotPlainError("quotes or NUL")
            for first in range(0, len(chunk) - _LINE, _LINE):
                if chunk.find(b"\n", first, first + _LINE) < 0:
                    raise NotPlainError("a long line")
            if not chunk.isascii() or decoder.getstate()[0]:
                if "\ufeff" in decoder.decode(chunk):
                    raise NotPlainError("a byte order mark")
            count += int(np.count_nonzero(np.frombuffer(chunk, np.uint8) == 10))
            last = chunk[-1:]
    decoder.decode(b"", final=True)
    if last != b"\n":
        raise NotPlainError("no last line end")
    return count


def batches(
    path: pathlib.Path, separator: str, width: int, chosen: Sequence[int], *, header: bool
) -> "Iterator[pyarrow.RecordBatch]":
    """Some columns' cells as texts, a part of the file after the other; see `lines_of` first.

    Args:
      path: the file.
      separator: between cells, one character.
      width: number of columns.
      chosen: those that are given, by number.
      header: whether the first line is one.

    Raises:
      pyarrow.ArrowException: for a line of another width.
    """
    import pyarrow
    import pyarrow.csv

    names = [str(column) for column in range(width)]
    return pyarrow.csv.open_csv(
        path,
        pyarrow.csv.ReadOptions(
            block_size=_BLOCK, column_names=names, skip_rows=int(header), use_threads=False
        ),
        pyarrow.csv.ParseOptions(
            delimiter=separator,
            quote_char=False,
            double_quote=False,
            escape_char=False,
            ignore_empty_lines=False,
        ),
        pyarrow.csv.ConvertOptions(
            column_types=dict.fromkeys(names, pyarrow.string()),
            include_columns=[names[column] for column in chosen],
            strings_can_be_null=False,
        ),
    )


def whole_numbers(cells: "pyarrow.Array", digits: int = 18) -> np.ndarray | None:
    """A column's numbers if each is one of so many ASCII digits at most; else None.

    Raises:
      pyarrow.ArrowInvalid: for a text of 19 digits that is no 64-bit number.
    """
    import pyarrow
    import pyarrow.compute

    if pyarrow.types.is_integer(cells.type):
        bounds = pyarrow.compute.min_max(cells)
        low, high = bounds["min"].as_py(), bounds["max"].as_py()
        few = cells.null_count == 0 and (
            low is None or (low >= 0 and high < min(10**digits, 2**63))
        )
        return cells.cast(pyarrow.int64()).to_numpy() if few else None
    if not pyarrow.types.is_string(cells.type):
        return None
    found = pyarrow.compute.match_substring_regex(cells, f"^[0-9]{{1,{digits}}}$")
    if not pyarrow.compute.all(found, min_count=0).as_py():
        return None
    return cells.cast(pyarrow.int64()).to_numpy()


class Texts:
    """A column of texts on its way to numbers: on disk, where it is long."""

    def __init__(self) -> None:
        """Begins with none."""
        self._parts: list[pyarrow.Array] = []
        self._bytes = 0
        self._file: Any = None
        self._writer: pyarrow.RecordBatchFileWriter | None = None

    def append(self, part: "pyarrow.Array") -> None:
        """Takes more."""
        import pyarrow

        self._bytes += part.nbytes
        self._parts.append(part)
        if self._bytes < spill.FROM:
            return
        if self._writer is None:
            self._file = tempfile.NamedTemporaryFile(dir=spill.folder())  # noqa: SIM115
            schema = pyarrow.schema([("", part.type)])
            self._writer = pyarrow.ipc.new_file(self._file.name, schema)
        for kept in self._parts:
            self._writer.write_batch(pyarrow.record_batch([kept], names=[""]))
        self._parts, self._bytes = [], 0

    def coded(self) -> Coded:
        """Their numbers, in the order of first places."""
        import pyarrow

        parts, mapped = self._parts, None
        if self._writer is not None:
            for kept in parts:
                self._writer.write_batch(pyarrow.record_batch([kept], names=[""]))
            self._writer.close()
            mapped = pyarrow.memory_map(self._file.name)
            parts = pyarrow.ipc.open_file(mapped).read_all().column(0).chunks
        self._parts = []
        found = coded(pyarrow.chunked_array(parts, pyarrow.string()))
        if mapped is not None:
            del parts
            mapped.close()
            self._file.close()
        return found


def coded(column: "pyarrow.ChunkedArray") -> Coded:
    """The numbers of a column's texts, in the order of first places."""
    import pyarrow

    numbered = column.dictionary_encode()
    if not numbered.num_chunks:
        return Coded(np.zeros(0, np.int32), [])
    texts = numbered.chunk(0).dictionary.cast(pyarrow.large_string())
    codes = spill.empty(len(column), np.int32)
    at = 0
    for chunk in numbered.chunks:
        codes[at : at + len(chunk)] = chunk.indices.to_numpy()
        at += len(chunk)
    _, bounds, data = texts.buffers()
    places = np.frombuffer(bounds, np.int64)[: len(texts) + 1]
    raw = np.frombuffer(data or b"", np.uint8)[: int(places[-1])]
    return Coded(codes, Strings(raw.copy(), places.copy()))
