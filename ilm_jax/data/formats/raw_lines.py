"""Strict reading of raw text files: every complaint names the file, the line and a remedy.

`encodings` finds out what the bytes stand for; tables with a header are read by `tables`.
"""

import csv
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import NoReturn

from ilm_jax.data.formats import encodings
from ilm_jax.data.formats.failing import fail
from ilm_jax.errors import UserError

__all__ = ["check_header", "check_width", "csv_rows", "fail", "lines", "split_rows", "whole_number"]


def lines(path: str | os.PathLike, form: str = encodings.UTF_8) -> Iterator[tuple[int, str]]:
    """Yields (line number from 1, line without its end) of a text file; LF and CRLF both end one.

    Args:
      path: the file.
      form: which encodings it may be in, see `encodings.decide`.

    Raises:
      UserError: if the file is absent, is not of the encoding, holds NUL characters or a byte order
        mark within, or stops within a line (a file cut off in transfer would otherwise end in a
        wrong but well-formed number).
    """
    path = pathlib.Path(path)
    try:
        codec = encodings.decide(path, form)
        yield from _wide_lines(path, codec) if encodings.is_wide(codec) else _lines(path, codec)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; point --data_dir at its folder") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error


def _lines(path: pathlib.Path, codec: str) -> Iterator[tuple[int, str]]:
    with open(path, "rb") as stream:
        for number, raw in enumerate(stream, 1):
            if not raw.endswith(b"\n"):
                _cut_off(path, number)
            yield number, decoded(path, number, raw.removesuffix(b"\n").removesuffix(b"\r"), codec)


def decoded(path: pathlib.Path, number: int, raw: bytes, codec: str = encodings.UTF_8) -> str:
    """The text of a line without its end; a byte order mark that opens line 1 is taken off.

    Raises:
      UserError: as `lines`.
    """
    try:
        text = raw.decode(codec)
    except UnicodeDecodeError as error:
        fail(
            path,
            number,
            f"not {codec} at byte {error.start + 1} of the line",
            f"save the file as {codec}",
        )
    return _checked(path, number, text.removeprefix("\ufeff") if number == 1 else text)


def _wide_lines(path: pathlib.Path, codec: str) -> Iterator[tuple[int, str]]:
    number = 0
    try:
        with open(path, encoding=codec, newline="\n") as stream:
            for number, text in enumerate(stream, 1):
                if not text.endswith("\n"):
                    _cut_off(path, number)
                text = text.removesuffix("\n").removesuffix("\r")
                yield number, _checked(path, number, text)
    except UnicodeDecodeError:
        fail(path, number + 1, f"not {codec.upper()} from here on", "save the file as UTF-8")


def whole_text(path: str | os.PathLike) -> str:
    """The text of a small file, such as one of JSON: UTF-8, or UTF-16 with its mark.

    Raises:
      UserError: as `lines`, but for a last line without its end.
    """
    path = pathlib.Path(path)
    try:
        codec = encodings.decide(path)
        text = path.read_bytes().decode(codec).removeprefix("\ufeff")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        fail(path, line, f"not {error.encoding}", f"save the file as {error.encoding}")
    if "\0" in text:
        fail(path, text[: text.index("\0")].count("\n") + 1, "a NUL character")
    return text


def _cut_off(path: pathlib.Path, number: int) -> NoReturn:
    fail(
        path,
        number,
        "the last line has no line end, so the file is cut off",
        "take the file again, or end it with a line end if it is whole",
    )


def _checked(path: pathlib.Path, number: int, text: str) -> str:
    if "\0" in text:
        fail(
            path,
            number,
            "a NUL character, which no text holds",
            "save the file as UTF-8; if it was damaged, take it again",
        )
    if text.startswith("\ufeff"):
        fail(
            path,
            number,
            "a byte order mark within the file: files that were joined?",
            "take the mark out (U+FEFF), and headers that came with it",
        )
    return text


def check_header(path: str | os.PathLike, found: Sequence[str], wanted: Sequence[str]) -> None:
    """Checks the names in line 1.

    Raises:
      UserError: unless the columns are `wanted`, in that order.
    """
    missing = [name for name in wanted if name not in found]
    if missing:
        fail(
            path,
            1,
            f"no column {missing[0]!r} in the header {','.join(found)!r}",
            f"the header is {','.join(wanted)!r}",
        )
    if list(found) != list(wanted):
        fail(path, 1, f"header {','.join(found)!r}", f"the header is {','.join(wanted)!r}")


def csv_rows(path: str | os.PathLike, header: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    """Yields (line number, fields) of a UTF-8 CSV file with quotes, after checking its header.

    Raises:
      UserError: as `lines` and `check_header`; on a wrong number of columns or a broken quote.
    """
    # The reader strips ends itself, and needs them to keep a line break inside quotes.
    reader = csv.reader((f"{text}\n" for _, text in lines(path)), strict=True)
    try:
        check_header(path, next(reader, []), header)
        for row in reader:
            check_width(path, reader.line_num, row, len(header))
            yield reader.line_num, row
    except csv.Error as error:
        fail(path, reader.line_num, f"not valid CSV ({error})")


def split_rows(
    path: str | os.PathLike, separator: str, width: int, form: str
) -> Iterator[tuple[int, list[str]]]:
    """Yields (line number, fields) of a file without quotes or header.

    Raises:
      UserError: as `lines`; on a wrong number of columns.
    """
    for number, text in lines(path, form):
        row = text.split(separator)
        check_width(path, number, row, width)
        yield number, row


def check_width(path: str | os.PathLike, line: int, row: Sequence[str], width: int) -> None:
    """Raises UserError unless `row` has `width` fields."""
    if not any(row) and width > 1:
        fail(path, line, "an empty line", "take it out")
    if len(row) != width:
        fail(
            path,
            line,
            f"{len(row)} columns instead of {width}",
            "mend the line; a cell with the separator in it stands in quotes (CSV)",
        )


def whole_number(path: str | os.PathLike, line: int, name: str, text: str) -> int:
    """A non-negative integer in plain ASCII digits that fits 64 bits, or UserError."""
    if not (text.isascii() and text.isdecimal() and len(text) <= 18):
        fail(path, line, f"{name} {text!r} is not a whole number")
    return int(text)
