"""Interactions from files that people have: tables, RecBole, SASRec, one user per line.

Ids are kept as written. What does not fit is refused with file and line, and no row is dropped.
"""

import dataclasses
import datetime
import math
import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64

from ilm_jax.data import raw_lines
from ilm_jax.data.columns import Columns
from ilm_jax.errors import UserError

# Files of one user per line, oldest item first, by the names that OpenP5, P5 and others give them.
SEQUENCE_FILES = ("user_sequence.txt", "sequential_data.txt", "sequences.txt")
_WHOLE = re.compile(r"-?\d{1,18}", re.ASCII)
_DATE = re.compile(
    r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d{1,6})?)?(Z|[+-]\d\d:\d\d)?)?", re.ASCII
)


@dataclasses.dataclass(frozen=True, eq=False)
class Interactions:
    """Interactions in file order.

    Attributes:
      path: the file.
      user, item: raw ids.
      rating: NaN where the file has none.
      timestamp: -1 where the file has none; fractions of seconds are cut.
      order: sorts each user's interactions by time, ties in file order; None: the file's order.
      line: of each interaction.
    """

    path: pathlib.Path
    user: list[str]
    item: list[str]
    rating: Float32[np.ndarray, " rows"]
    timestamp: Int64[np.ndarray, " rows"]
    order: np.ndarray | None
    line: Int64[np.ndarray, " rows"]


def read_interactions(path: pathlib.Path, columns: Columns) -> Interactions:
    """Reads any of the formats; the file's name says which.

    Raises:
      UserError: with file and line, for whatever does not fit.
    """
    if path.name in SEQUENCE_FILES:
        found = read_sequences(path)
    elif path.suffix == ".txt":
        found = read_pairs(path)
    else:
        found = read_table(path, columns)
    if not found.user:
        raw_lines.fail(path, 1, "no interactions in the file", "put one on each line")
    return found


def read_sequences(path: pathlib.Path) -> Interactions:
    """One user per line: `user item item …`, oldest first."""
    users: list[str] = []
    items: list[str] = []
    lines: list[int] = []
    first: dict[str, int] = {}
    for number, text in raw_lines.lines(path):
        user, *chosen = _words(path, number, text)
        if not chosen:
            raw_lines.fail(path, number, f"user {user!r} without items")
        if user in first:
            raw_lines.fail(path, number, f"user {user!r} was given in line {first[user]}")
        first[user] = number
        users += [user] * len(chosen)
        items += chosen
        lines += [number] * len(chosen)
    return _untimed(path, users, items, lines)


def read_pairs(path: pathlib.Path) -> Interactions:
    """SASRec's text: `user item` per line, each user's items oldest first."""
    users: list[str] = []
    items: list[str] = []
    lines: list[int] = []
    for number, text in raw_lines.lines(path):
        words = _words(path, number, text)
        if len(words) != 2:
            raw_lines.fail(path, number, f"{len(words)} words instead of 'user item'")
        users.append(words[0])
        items.append(words[1])
        lines.append(number)
    return _untimed(path, users, items, lines)


def _words(path: pathlib.Path, number: int, text: str) -> list[str]:
    words = text.split()
    if not words:
        raw_lines.fail(path, number, "an empty line")
    if not text.isprintable() and not text.replace("\t", " ").isprintable():
        raw_lines.fail(path, number, "a character that cannot be printed")
    return words


def _untimed(
    path: pathlib.Path, users: list[str], items: list[str], lines: list[int]
) -> Interactions:
    return Interactions(
        path, users, items, np.full(len(users), np.nan, np.float32),
        np.full(len(users), -1, np.int64), None, np.array(lines, np.int64),
    )  # fmt: skip


def read_table(path: pathlib.Path, columns: Columns) -> Interactions:
    """A table with a header: `.csv`, `.tsv`, RecBole's `.inter`, `.parquet`."""
    users: list[str] = []
    items: list[str] = []
    ratings: list[float] = []
    times: list[int | float] = []
    lines: list[int] = []
    names: dict[str, str] = {}
    dates: bool | None = None
    rows = _parquet_rows(path) if path.suffix == ".parquet" else raw_lines.table_rows(path)
    for line, row in rows:
        if not names:
            names = _names(path, list(row), columns)
        users.append(_id(path, line, names["user"], row[names["user"]]))
        items.append(_id(path, line, names["item"], row[names["item"]]))
        ratings.append(_rating(path, line, _cell(row, names["rating"])))
        time = _cell(row, names["timestamp"])
        times.append(_time(path, line, time))
        lines.append(line)
        dated = bool(_DATE.fullmatch(str(time)))
        if dates not in (None, dated):
            raw_lines.fail(path, line, f"timestamp {time!r}: some are dates, others are numbers")
        dates = dated
    timed = bool(names.get("timestamp"))
    exact = all(type(time) is int for time in times)
    order = np.array(times, np.int64 if exact else np.float64) if timed else None
    whole = np.array([math.floor(time) for time in times], np.int64)
    return Interactions(
        path, users, items, np.array(ratings, np.float32), whole, order, np.array(lines, np.int64)
    )


def interaction_header(path: pathlib.Path) -> list[str]:
    """Columns of a table's first row; none if it has no rows."""
    rows = _parquet_rows(path) if path.suffix == ".parquet" else raw_lines.table_rows(path)
    return next((list(row) for _, row in rows), [])


def _names(path: pathlib.Path, header: list[str], columns: Columns) -> dict[str, str]:
    names = {f: columns.find(f, header) for f in ("user", "item", "timestamp", "rating")}
    for field in ("user", "item", "timestamp", "rating"):
        wanted = getattr(columns, field)
        optional = field == "rating" or (field == "timestamp" and wanted == "none")
        if not names[field] and (not optional or wanted not in ("", "none")):
            raw_lines.fail(path, 1, *columns.missing(field, header))
    return names


def _cell(row: Mapping[str, Any], name: str) -> Any:
    return row[name] if name else None


def _id(path: pathlib.Path, line: int, name: str, value: Any) -> str:
    text = str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
    if not text or text.split() != [text]:
        raw_lines.fail(path, line, f"{name} {str(value)[:60]!r}", "an id is a word without spaces")
    return text


def _rating(path: pathlib.Path, line: int, value: Any) -> float:
    if value is None or value == "":
        return math.nan
    try:
        rating = float(value)
    except (TypeError, ValueError):
        rating = math.nan
    if not math.isfinite(rating) or isinstance(value, bool):
        raw_lines.fail(path, line, f"rating {str(value)[:60]!r} is not a number")
    return rating


def _time(path: pathlib.Path, line: int, value: Any) -> int | float:
    if value is None:
        return -1
    text = str(value)
    try:
        time: float = int(text) if _WHOLE.fullmatch(text) else _seconds(text)
    except ValueError:
        time = math.nan
    if not 0 <= time < 2**63:
        remedy = 'mend it, or take the order of the file: Columns.timestamp = "none" in columns.gin'
        raw_lines.fail(
            path, line, f"timestamp {text[:60]!r} is neither a number of seconds nor a date such "
            "as 2021-03-04 10:00:00", remedy,
        )  # fmt: skip
    return time


def _seconds(text: str) -> int | float:
    """Seconds since 1970 of a number or of a date (ISO 8601; without a zone: UTC)."""
    if not _DATE.fullmatch(text):
        return float(text)
    date = datetime.datetime.fromisoformat(text)
    exact = date if date.tzinfo else date.replace(tzinfo=datetime.UTC)
    return exact.timestamp() if date.microsecond else int(exact.timestamp())


def _parquet_rows(path: pathlib.Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """(row number from 1, cells); a parquet file has no lines."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise UserError(f"{path}: reading parquet needs pyarrow: pip install pyarrow") from None
    try:
        stream = pyarrow.parquet.ParquetFile(path)
        number = 0
        for batch in stream.iter_batches():
            for row in batch.to_pylist():
                number += 1
                yield number, row
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise UserError(f"{path}: not a whole parquet file ({str(error)[:120]})") from error
