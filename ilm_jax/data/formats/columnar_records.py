"""Files of JSON records by columns, gzip or not: some fields of each, the rest is passed over.

As `columnar`: what is taken here is a JSON object on each line for the strict readers too, and what
is not is left to them.
"""

import codecs
import gzip
import io
import pathlib
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from ilm_jax.data.formats.columnar import NotPlainError

if TYPE_CHECKING:
    import pyarrow

_BLOCK = 1 << 24
# Halves of surrogate pairs and NUL, which JSON can escape and no text holds.
ESCAPES = (b"\\ud", b"\\uD", b"\\u0000")
_HALF = re.compile(rb"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")
_LONGEST = 6  # bytes of an escape


def batches(
    path: pathlib.Path, kinds: "Mapping[str, pyarrow.DataType]", foreign: Sequence[bytes] = ()
) -> "Iterator[pyarrow.RecordBatch]":
    """Some fields of every record, a part of the file after the other; null where one lacks it.

    Args:
      path: the file; gzip where its name ends so.
      kinds: of the fields. What is passed over may hold escaped halves of surrogate pairs, and
        NUL, which no text holds; a text that is asked for and holds one, or a whole pair, is left
        to the strict reader.
      foreign: bytes that the file does not hold, such as `ESCAPES`.

    Raises:
      NotPlainError, UnicodeDecodeError, pyarrow.ArrowException: where the strict reader has to
        judge, as late as at the end of the file.
    """
    import pyarrow
    import pyarrow.json

    count = 0
    with gzip.open(path) if path.name.endswith(".gz") else open(path, "rb") as stream:
        watched = _Watched(stream, foreign)
        schema = pyarrow.schema(list(kinds.items()))
        for batch in pyarrow.json.open_json(
            watched,
            pyarrow.json.ReadOptions(use_threads=False, block_size=_BLOCK),
            pyarrow.json.ParseOptions(
                explicit_schema=schema,
                unexpected_field_behavior="ignore",
                newlines_in_values=False,
            ),
        ):
            if any(map(_holds_nul, batch.columns)):
                raise NotPlainError("an escaped half of a surrogate pair, or NUL")
            count += len(batch)
            yield batch
    if count != watched.lines():
        raise NotPlainError("another number of records than of lines")


def _holds_nul(cells: "pyarrow.Array") -> bool:
    """Whether a text holds NUL, which stands for halves of every kind: they are not told apart."""
    import pyarrow
    import pyarrow.compute

    if not pyarrow.types.is_string(cells.type):
        return False
    return bool(pyarrow.compute.any(pyarrow.compute.match_substring(cells, "\0")).as_py())


class _Watched(io.RawIOBase):
    """A stream that stops where a line is none of plain JSON objects in UTF-8.

    It stops before Arrow sees the line: where a block begins with `null`, Arrow ends the process.
    """

    def __init__(self, stream: "io.BufferedIOBase | gzip.GzipFile", signs: Sequence[bytes]) -> None:
        # Behind an escaped sign of escape, "u" and four digits are no escape.
        self._stream, self._signs = stream, (*signs, b"\0", b"\\\\u")
        self._last, self._held = b"\n", b""
        self._count = self._begun = self._ended = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")()

    def readable(self) -> bool:
        """Always."""
        return True

    def read(self, size: int = -1) -> bytes:
        """The next bytes; NotPlainError, UnicodeDecodeError if they are none of those."""
        try:
            chunk = self._stream.read(max(1, size - len(self._held)) if size > 0 else size)
        except (OSError, EOFError, zlib.error):
            raise NotPlainError("no whole gzip file") from None
        self._watch(chunk)
        whole = self._held + chunk
        # What may be the beginning of an escape waits for its end.
        cut = whole.rfind(b"\\", max(0, len(whole) - _LONGEST + 1)) if chunk else -1
        cut = len(whole) if cut < 0 else cut
        whole, self._held = whole[:cut], whole[cut:]
        found = _HALF.sub(rb"\\u0000", whole) if b"\\u" in whole else whole
        return found or (self.read(size) if chunk else b"")

    def _watch(self, chunk: bytes) -> None:
        joined = self._last + chunk
        if any(sign in joined for sign in self._signs):
            raise NotPlainError("a sign of something else")
        if b"\r" in chunk and joined[:-1].count(b"\r") != joined.count(b"\r\n"):
            raise NotPlainError("a carriage return")
        if (not chunk.isascii() or self._decoder.getstate()[0]) and (
            "\ufeff" in self._decoder.decode(chunk)
        ):
            raise NotPlainError("a byte order mark")
        self._count += chunk.count(b"\n")
        # A line's first byte follows the end of the one before.
        before = len(self._last) - 1
        self._begun += joined.count(b"\n{", max(0, before))
        # Where each line has both, no object goes over several: between "}" and "{" stands a comma.
        self._ended += joined.count(b"}\n", max(0, before))
        if b"\r" in joined:
            self._ended += joined.count(b"}\r\n", max(0, before - 1))
        begun = self._count + (not joined.endswith(b"\n"))
        if self._begun != begun or self._ended != self._count:
            raise NotPlainError("a line that is no object")
        self._last = joined[-12:]

    def lines(self) -> int:
        """Number of lines, once all are read.

        Raises:
          NotPlainError: if the last one does not end.
        """
        self._decoder.decode(b"", final=True)
        if not self._last.endswith(b"\n"):
            raise NotPlainError("a line that is not whole")
        return self._count
