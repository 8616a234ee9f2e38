"""Interactions from files that people have: tables, RecBole, SASRec, one user per line.

Ids are kept as written. What does not fit is refused with file and line, and no row is dropped.

What is not there: a rating may be empty or null (unrated, counted); an id or a time may not, and
"nan", "None" or "null" is no id, which is how a lost one is written. A file without a column of
ratings or times (`Columns.timestamp = "none"`) has none for any row.
"""

import array
import math
import pathlib

import numpy as np

from ilm_jax.data.formats import columnar, columnar_interactions, encodings, notes, raw_lines
from ilm_jax.data.formats.coded import Coder
from ilm_jax.data.formats.columns import INTERACTION_FIELDS, MISSING, Columns
from ilm_jax.data.formats.interactions import (
    SEQUENCE_FILES,
    Interactions,
    checked_id,
    checked_rating,
    checked_time,
    in_time,
    is_date,
    is_table,
    table_names,
)
from ilm_jax.data.formats.tables import Table

__all__ = ["SEQUENCE_FILES", "Interactions", "interaction_columns", "is_table", "read_interactions"]


def read_interactions(path: pathlib.Path, columns: Columns) -> Interactions:
    """Reads any of the formats; the file's name says which.

    A large file is read by columns (`columnar`). What that reader does not take is read line by
    line, and is then refused with file and line or taken.

    Raises:
      UserError: with file and line, for whatever does not fit.
    """
    found = columnar.attempt(path, lambda: columnar_interactions.read(path, columns))
    return found or read_strictly(path, columns)


def read_strictly(path: pathlib.Path, columns: Columns) -> Interactions:
    """`read_interactions`, line by line: what it accepts, and what it says, holds."""
    if is_table(path):
        found = read_table(path, columns)
    else:
        columns.refuse(path, INTERACTION_FIELDS, "this form of file has no columns")
        read = read_sequences if path.name in SEQUENCE_FILES else read_pairs
        found = read(path, columns.encoding)
    if not found.user:
        raw_lines.fail(path, 1, "no interactions in the file", "put one on each line")
    return found


def read_sequences(path: pathlib.Path, encoding: str = "") -> Interactions:
    """One user per line: `user item item …`, oldest first."""
    users, items, lines = Coder(), Coder(), array.array("q")
    first: dict[str, int] = {}
    for number, text in raw_lines.lines(path, encoding or encodings.UTF_8):
        user, *chosen = _words(path, number, text)
        if not chosen:
            raw_lines.fail(path, number, f"user {user!r} without items")
        if user in first:
            raw_lines.fail(path, number, f"user {user!r} was given in line {first[user]}")
        first[user] = number
        users.extend([user] * len(chosen))
        items.extend(chosen)
        lines.extend([number] * len(chosen))
    return _untimed(path, users, items, lines)


def read_pairs(path: pathlib.Path, encoding: str = "") -> Interactions:
    """SASRec's text: `user item` per line, each user's items oldest first."""
    users, items, lines = Coder(), Coder(), array.array("q")
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
    path: pathlib.Path, users: Coder, items: Coder, lines: "array.array[int]"
) -> Interactions:
    return Interactions(
        path,
        users.done(),
        items.done(),
        np.full(len(users), np.nan, np.float32),
        np.full(len(users), -1, np.int64),
        None,
        np.array(lines, np.int64),
    )


def read_table(path: pathlib.Path, columns: Columns) -> Interactions:
    """A table with a header: `.csv`, `.tsv`, RecBole's `.inter`, `.parquet`."""
    users, items, lines = Coder(), Coder(), array.array("q")
    ratings, whole, fractions = array.array("d"), array.array("q"), array.array("d")
    dates: bool | None = None
    table = Table(path, columns.encoding)
    names = table_names(table, columns)
    for line, row in table.rows():
        users.append(checked_id(path, line, names["user"], row[names["user"]]))
        items.append(checked_id(path, line, names["item"], row[names["item"]]))
        rating = row[names["rating"]] if names["rating"] else None
        ratings.append(checked_rating(path, line, rating))
        time = row[names["timestamp"]] if names["timestamp"] else None
        seconds = checked_time(path, line, time) if names["timestamp"] else -1
        whole.append(math.floor(seconds))
        fractions.append(seconds - whole[-1])
        lines.append(line)
        dated = is_date(time)
        if dates not in (None, dated):
            raw_lines.fail(path, line, f"timestamp {time!r}: some are dates, others are numbers")
        dates = dated
    timed = bool(names["timestamp"])
    if names["rating"]:
        notes.count(sum(map(math.isnan, ratings)), len(users), f"ratings in {path.name} are empty")
    stamps = np.array(whole, np.int64)
    return Interactions(
        path,
        users.done(),
        items.done(),
        np.array(ratings, np.float32),
        stamps,
        in_time(stamps, np.array(fractions, np.float64)) if timed else None,
        np.array(lines, np.int64),
    )


def interaction_columns(path: pathlib.Path, columns: Columns) -> tuple[dict[str, str], list[str]]:
    """(column of each field, all columns) of a table; errors as `read_table`."""
    table = Table(path, columns.encoding)
    return {f: name for f, name in table_names(table, columns).items() if name}, table.names
