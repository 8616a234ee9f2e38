"""Strict reading of raw text files: every complaint names the file, the line and a remedy."""

import csv
import os
import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import NoReturn

from ilm_jax.errors import UserError

LONGEST = 400


def fail(path: str | os.PathLike, line: int, what: str, remedy: str = "") -> NoReturn:
    """Raises the UserError `path:line: what; remedy`; what a huge line brings in is cut."""
    what = what if len(what) <= LONGEST else f"{what[:LONGEST]}…"
    remedy = remedy or "mend the line, or take the file from its publisher again"
    raise UserError(f"{path}:{line}: {what}; {remedy}")


def lines(path: str | os.PathLike, encoding: str = "utf-8") -> Iterator[tuple[int, str]]:
    """Yields (line number from 1, line without its end) of a text file; LF and CRLF both end one.

    Raises:
      UserError: if the file is absent, is not of the encoding, or stops within a line (a file cut
        off in transfer would otherwise end in a wrong but well-formed number).
    """
    path = pathlib.Path(path)
    try:
        stream = open(path, "rb")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; point --data_dir at its folder") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    with stream:
        for number, raw in enumerate(stream, 1):
            if not raw.endswith(b"\n"):
                fail(path, number, "the last line has no line end, so the file is cut off",
                     "take the file again, or end it with a line end if it is whole")  # fmt: skip
            raw = raw.removesuffix(b"\n").removesuffix(b"\r")
            if number == 1 and encoding == "utf-8":
                raw = raw.removeprefix(b"\xef\xbb\xbf")
            try:
                yield number, raw.decode(encoding)
            except UnicodeDecodeError as error:
                fail(path, number, f"not {encoding} at byte {error.start + 1} of the line",
                     f"save the file as {encoding}")  # fmt: skip


def check_header(path: str | os.PathLike, found: Sequence[str], wanted: Sequence[str]) -> None:
    """Checks the names in line 1.

    Raises:
      UserError: unless the columns are `wanted`, in that order.
    """
    missing = [name for name in wanted if name not in found]
    if missing:
        fail(path, 1, f"no column {missing[0]!r} in the header {','.join(found)!r}",
             f"the header is {','.join(wanted)!r}")  # fmt: skip
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
    path: str | os.PathLike, separator: str, width: int, encoding: str
) -> Iterator[tuple[int, list[str]]]:
    """Yields (line number, fields) of a file without quotes or header.

    Raises:
      UserError: as `lines`; on a wrong number of columns.
    """
    for number, text in lines(path, encoding):
        row = text.split(separator)
        check_width(path, number, row, width)
        yield number, row


def table_rows(path: str | os.PathLike) -> Iterator[tuple[int, dict[str, str]]]:
    """Yields (line number, cells by column) of a `.csv`, or of a tab-separated file otherwise.

    RecBole's column types ("item_id:token") are dropped from the names.

    Raises:
      UserError: as `lines`; on a column given twice, a wrong number of columns or a broken quote.
    """
    path = pathlib.Path(path)
    header: list[str] = []
    for number, row in _csv_lines(path) if path.suffix == ".csv" else _tab_lines(path):
        if header:
            check_width(path, number, row, len(header))
            yield number, dict(zip(header, row, strict=True))
            continue
        header = [cell.split(":")[0].strip() for cell in row] or [""]
        twice = [name for name in header if header.count(name) > 1 or not name]
        if twice:
            remedy = "name each column once"
            if not twice[0]:
                remedy += "; pandas writes its index so, unless to_csv(index=False)"
            fail(path, number, f"column {twice[0]!r} is empty or given twice in the header", remedy)
        if len(header) == 1 and (others := re.findall(r"[;,\t|]", header[0])):
            wanted = "commas" if path.suffix == ".csv" else "tabs"
            fail(path, number, f"one column, {header[0]!r}: cells are set apart by {others[0]!r}",
                 f"set them apart by {wanted}")  # fmt: skip


def _csv_lines(path: pathlib.Path) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader((f"{text}\n" for _, text in lines(path)), strict=True)
    try:
        for row in reader:
            yield reader.line_num, row
    except csv.Error as error:
        fail(path, reader.line_num, f"not valid CSV ({error})")


def _tab_lines(path: pathlib.Path) -> Iterator[tuple[int, list[str]]]:
    for number, text in lines(path):
        yield number, text.split("\t")


def check_width(path: str | os.PathLike, line: int, row: Sequence[str], width: int) -> None:
    """Raises UserError unless `row` has `width` fields."""
    if not any(row) and width > 1:
        fail(path, line, "an empty line", "take it out")
    if len(row) != width:
        fail(path, line, f"{len(row)} columns instead of {width}",
             "mend the line; a cell with the separator in it stands in quotes (CSV)")  # fmt: skip


def whole_number(path: str | os.PathLike, line: int, name: str, text: str) -> int:
    """A non-negative integer in plain ASCII digits that fits 64 bits, or UserError."""
    if not (text.isascii() and text.isdecimal() and len(text) <= 18):
        fail(path, line, f"{name} {text!r} is not a whole number")
    return int(text)
