"""Interactions as files have them: the columns, and what a cell may hold."""

import dataclasses
import datetime
import math
import pathlib
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64, Int64, Num

from ilm_jax.data.formats import raw_lines
from ilm_jax.data.formats.columns import INTERACTION_FIELDS, MISSING, Columns
from ilm_jax.data.formats.tables import SEQUENCE_KINDS, Table

# Files of one user per line, oldest item first, by the names that OpenP5, P5 and others give them.
SEQUENCE_FILES = ("user_sequence.txt", "sequential_data.txt", "sequences.txt")
# Columns of whole histories: RecBole's item_id_list, and what others call them.
_HISTORY = re.compile(r"item(id)?s?(list|seq|sequence|history)")
_ENDINGS = ("list", "seq", "sequence", "history")
_WHOLE = re.compile(r"-?\d{1,19}", re.ASCII)
LARGEST_RATING = float(np.finfo(np.float32).max)
_DATE = re.compile(
    r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d{1,6})?)?(Z|[+-]\d\d:\d\d)?)?", re.ASCII
)


@dataclasses.dataclass(frozen=True, eq=False)
class Interactions:
    """Interactions in file order.

    Attributes:
      path: the file.
      user, item: raw ids; `Coded`, so that none is a Python object of its own, or any list.
      rating: NaN where the file has none.
      timestamp: -1 where the file has none; fractions of seconds are cut.
      order: sorts each user's interactions by time, ties in file order; None: the file's order.
      line: of each interaction.
    """

    path: pathlib.Path
    user: Sequence[str]
    item: Sequence[str]
    rating: Float32[np.ndarray, " rows"]
    timestamp: Int64[np.ndarray, " rows"]
    order: np.ndarray | None
    line: Int64[np.ndarray, " rows"] | range


def is_table(path: pathlib.Path) -> bool:
    """Whether a file of interactions is of a form with named columns."""
    return path.name not in SEQUENCE_FILES and path.suffix != ".txt"


def table_names(table: Table, columns: Columns) -> dict[str, str]:
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


def checked_id(path: pathlib.Path, line: int, name: str, value: object) -> str:
    """An id as its file has it; UserError where it is missing or no single word."""
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


def checked_rating(path: pathlib.Path, line: int, value: Any) -> float:
    """A number, NaN where the cell is empty; UserError for anything else, and beyond float32."""
    if value is None or value == "":
        return math.nan
    try:
        rating = _number(value)
    except (TypeError, ValueError, OverflowError):
        rating = math.nan
    if not abs(rating) <= LARGEST_RATING or isinstance(value, bool):
        raw_lines.fail(path, line, f"rating {str(value)[:60]!r} is not a number")
    return rating


def checked_time(path: pathlib.Path, line: int, value: object) -> int | float:
    """Seconds since 1970 of a number or a date; UserError for anything else.

    Whole numbers are exact, whatever their unit is: nanoseconds too, which no float holds.
    """
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


def in_time(
    stamps: Int64[np.ndarray, " rows"], fractions: Float64[np.ndarray, " rows"]
) -> Num[np.ndarray, " rows"]:
    """What sorts times and tells them apart, of whole seconds and what they leave of each.

    Args:
      stamps: whole seconds.
      fractions: from 0 to less than 1; may be overwritten.
    """
    if not fractions.any():
        return stamps
    if int(stamps.max()) < 2**53:
        return np.add(stamps, fractions, out=fractions)
    # A float holds no such number and a fraction of one: ranks do.
    places = np.lexsort((fractions, stamps))
    later = (np.diff(stamps[places]) > 0) | (np.diff(fractions[places]) != 0)
    ranks = np.empty(len(places), np.int64)
    ranks[places] = np.append(0, np.cumsum(later))
    return ranks


def is_date(value: object) -> bool:
    """Whether a time is spelled as a date."""
    return bool(_DATE.fullmatch(str(value)))


def _number(value: Any) -> float:
    """A number; ValueError for Python's own spelling "1_0", which in a file is no number."""
    if isinstance(value, str) and "_" in value:
        raise ValueError(f"{value!r} is no number")
    return float(value)


def _seconds(text: str) -> int | float:
    """Seconds since 1970 of a number or of a date (ISO 8601; without a zone: UTC)."""
    if not _DATE.fullmatch(text):
        return _number(text)
    date = datetime.datetime.fromisoformat(text)
    exact = date if date.tzinfo else date.replace(tzinfo=datetime.UTC)
    return exact.timestamp() if date.microsecond else int(exact.timestamp())
