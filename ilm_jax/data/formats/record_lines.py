"""Files with one record per line, as corpora of reviews are published: JSON or CSV, gzip or not.

Some (Amazon 2014, Steam) are lines of Python dictionaries, `{u'id': u'7'}`: they are parsed as
literals and never evaluated.
"""

import ast
import csv
import gzip
import json
import pathlib
import warnings
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

from ilm_jax.data.formats import raw_lines

Record = dict[str, Any]


def text_lines(path: pathlib.Path) -> Iterator[tuple[int, str]]:
    """(line number from 1, line without its end) of a UTF-8 file, gzip where its name says so.

    Raises:
      UserError: with file and line, as `raw_lines.lines`; for what is no whole gzip file.
    """
    if not path.name.endswith(".gz"):
        yield from raw_lines.lines(path)
        return
    number = 0
    try:
        with gzip.open(path, "rb") as stream:
            for number, raw in enumerate(stream, 1):
                yield number, raw_lines.decoded(path, number, raw.rstrip(b"\r\n"))
    except (OSError, EOFError, zlib.error) as error:
        raw_lines.fail(path, number + 1, f"not a whole gzip file ({error})")


def json_records(path: pathlib.Path, *, literals: bool = False) -> Iterator[tuple[int, Record]]:
    """(line, record) of every line.

    Args:
      path: the file.
      literals: whether lines may be Python dictionaries, too.

    Raises:
      UserError: with file and line, for anything else.
    """
    for number, line in text_lines(path):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            record = literal(line) if literals else None
            if record is None:
                form = "neither JSON nor a Python dictionary" if literals else "not a JSON object"
                raw_lines.fail(path, number, form)
        if not isinstance(record, dict):
            raw_lines.fail(path, number, f"a {type(record).__name__} instead of an object")
        yield number, record


def literal(line: str) -> object:
    """A line as a Python literal; None for anything else, calls among them.

    Sets, bytes, complex numbers and integers too long to print are something else, too: no record
    of JSON holds them, and readers may write what they hold.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes that Python does not know
            found = ast.literal_eval(line)
        json.dumps(found)
        return found
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None


def csv_records(path: pathlib.Path, headers: Sequence[str]) -> Iterator[tuple[int, Record]]:
    """(line, record of texts) of a CSV file.

    Args:
      path: the file.
      headers: the lines that its first may be.

    Raises:
      UserError: with file and line, for another header, a wrong number of columns, a broken quote.
    """
    reader = csv.reader((f"{text}\n" for _, text in text_lines(path)), strict=True)
    try:
        names = next(reader, [])
        if ",".join(names) not in headers:
            remedy = f"the header is {headers[0]!r}; put it there if the file has none"
            raw_lines.fail(path, 1, f"header {','.join(names)[:100]!r}", remedy)
        for row in reader:
            raw_lines.check_width(path, reader.line_num, row, len(names))
            yield reader.line_num, dict(zip(names, row, strict=True))
    except csv.Error as error:
        raw_lines.fail(path, reader.line_num, f"not valid CSV ({error})")
