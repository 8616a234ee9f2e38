"""Interactions from files that people have: tables, RecBole, SASRec, one user per line.

Ids are kept as written. What does not fit is refused with file and line, and no row is dropped.

What is not there: a rating may be empty or null (unrated, counted); an id or a time may not, and
"nan", "None" or "null" is no id, which is how a lost one is written. A file without a column of
ratings or times (`Columns.timestamp = "none"`) has none for any row.
"""

import dataclasses
import datetime
import math
import pathlib
import re
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64

from ilm_jax.data.formats import encodings, notes, raw_lines
from ilm_jax.data.formats.columns import INTERACTION_FIELDS, MISSING, Columns
from ilm_jax.data.formats.tables import SEQUENCE_KINDS, Table

# Files of one user per line, oldest item first, by the names that OpenP5, P5 and others give them.
SEQUENCE_FILES = ("user_sequence.txt", "sequential_data.txt", "sequences.txt")
# Columns of whole histories: RecBole's item_id_list, and what others call them.
_HISTORY = re.compile(r"item(id)?s?(list|seq|sequence|history)")
_ENDINGS = ("list", "seq", "sequence", "history")
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
    if is_table(path):
        found = read_table(path, columns)
    else:
        columns.refuse(path, INTERACTION_FIELDS, "this form of file has no columns")
        read = read_sequences if path.name in SEQUENCE_FILES else read_pairs
        found = read(path, columns.encoding)
    if not found.user:
        raw_lines.fail(path, 1, "no interactions in the file", "put one on each line")
    return found


def is_table(path: pathlib.Path) -> bool:
    """Whether a file of interactions is of a form with named columns."""
    return path.name not in SEQUENCE_FILES and path.suffix != ".txt"


def read_sequences(path: pathlib.Path, encoding: str = "") -> Interactions:
    """One user per line: `user item item …`, oldest first."""
    users: list[str] = []
    items: list[str] = []
    lines: list[int] = []
    first: dict[str, int] = {}
    for number, text in raw_lines.lines(path, encoding or encodings.UTF_8):
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


def read_pairs(path: pathlib.Path, encoding: str = "") -> Interactions:
    """SASRec's text: `user item` per line, each user's items oldest first."""
    users: list[str] = []
    items: list[str] = []
    lines: list[int] = []
    for number, text in raw_lines.lines(path, encoding or encodings.UTF_8):
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
    if lost := [word for word in words if word in MISSING]:
        raw_lines.fail(path, number, f"{lost[0]!r} is no id but how a missing one is written")
    if not text.isprintable() and not text.replace("\t", " ").isprintable():
        raw_lines.fail(path, number, "a character that cannot be printed")
    return words


def _untimed(
    path: pathlib.Path, users: list[str], items: list[str], lines: list[int]
) -> Interactions:
    return Interactions(
        path,
        users,
        items,
        np.full(len(users), np.nan, np.float32),
        np.full(len(users), -1, np.int64),
        None,
        np.array(lines, np.int64),
    )


def read_table(path: pathlib.Path, columns: Columns) -> Interactions:
    """A table with a header: `.csv`, `.tsv`, RecBole's `.inter`, `.parquet`."""
    users: list[str] = []
    items: list[str] = []
    ratings: list[float] = []
    times: list[int | float] = []
    lines: list[int] = []
    dates: bool | None = None
    table = Table(path, columns.encoding)
    names = _names(table, columns)
    for line, row in table.rows():
        users.append(_id(path, line, names["user"], row[names["user"]]))
        items.append(_id(path, line, names["item"], row[names["item"]]))
        ratings.append(_rating(path, line, row[names["rating"]]) if names["rating"] else math.nan)
        time = row[names["timestamp"]] if names["timestamp"] else None
        times.append(_time(path, line, time) if names["timestamp"] else -1)
        lines.append(line)
        dated = bool(_DATE.fullmatch(str(time)))
        if dates not in (None, dated):
            raw_lines.fail(path, line, f"timestamp {time!r}: some are dates, others are numbers")
        dates = dated
    timed = bool(names["timestamp"])
    if names["rating"]:
        notes.count(sum(map(math.isnan, ratings)), len(users), f"ratings in {path.name} are empty")
    exact = all(type(time) is int for time in times)
    order = np.array(times, np.int64 if exact else np.float64) if timed else None
    whole = np.array([math.floor(time) for time in times], np.int64)
    return Interactions(
        path, users, items, np.array(ratings, np.float32), whole, order, np.array(lines, np.int64)
    )


def interaction_columns(path: pathlib.Path, columns: Columns) -> tuple[dict[str, str], list[str]]:
    """(column of each field, all columns) of a table; errors as `read_table`."""
    table = Table(path, columns.encoding)
    return {f: name for f, name in _names(table, columns).items() if name}, table.names


def _names(table: Table, columns: Columns) -> dict[str, str]:
    """The column of every field, "" for those that are not there.

    Raises:
      UserError: if one is missing; for a file whose rows hold whole histories.
    """
    if not table.names:
        return dict.fromkeys(INTERACTION_FIELDS, "")
    for name, kind in table.kinds.items():
        plain = re.sub(r"[\s_-]", "", name).lower()
        listed = kind in (*SEQUENCE_KINDS, "list")
        if _HISTORY.fullmatch(plain) or (
            listed and (plain.endswith(_ENDINGS) or plain.startswith("item"))
        ):
            raw_lines.fail(
                table.path,
                1,
                f"column {name!r} holds whole histories: rows of such files (as "
                "RecBole cuts them for sequential models) are no single interactions",
                "give the file with one interaction a row, such as RecBole's own .inter before it "
                "is cut, or user_sequence.txt with a line `user item item …` for each user",
            )
    return columns.names(table.path, table.names, INTERACTION_FIELDS)


def _id(path: pathlib.Path, line: int, name: str, value: object) -> str:
    text = str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
    if not text or text.split() != [text] or not text.isprintable():
        raw_lines.fail(path, line, f"{name} {str(value)[:60]!r}", "an id is a word without spaces")
    if text in MISSING:
        raw_lines.fail(
            path,
            line,
            f"{name} {text!r} is no id but how a missing one is written",
            "mend the line or take it out",
        )
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


def _time(path: pathlib.Path, line: int, value: object) -> int | float:
    text = "null" if value is None else str(value)
    try:
        time: float = int(text) if _WHOLE.fullmatch(text) else _seconds(text)
    except ValueError:
        time = math.nan
    if not 0 <= time < 2**63:
        remedy = 'mend it, or take the order of the file: Columns.timestamp = "none" in columns.gin'
        raw_lines.fail(
            path,
            line,
            f"timestamp {text[:60]!r} is neither a number of seconds nor a date such "
            "as 2021-03-04 10:00:00",
            remedy,
        )
    return time


def _seconds(text: str) -> int | float:
    """Seconds since 1970 of a number or of a date (ISO 8601; without a zone: UTC)."""
    if not _DATE.fullmatch(text):
        return float(text)
    date = datetime.datetime.fromisoformat(text)
    exact = date if date.tzinfo else date.replace(tzinfo=datetime.UTC)
    return exact.timestamp() if date.microsecond else int(exact.timestamp())
