"""Interactions by columns: the strict reader's rules, seen by every different cell once."""

import math
import pathlib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from ilm_jax.data import spill
from ilm_jax.data.formats import columnar, notes
from ilm_jax.data.formats.coded import Coded
from ilm_jax.data.formats.columnar import NotPlainError, Texts
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

if TYPE_CHECKING:
    import pyarrow


def read(path: pathlib.Path, columns: Columns) -> Interactions:
    """A plain file of interactions.

    Raises:
      NotPlainError, UserError, pyarrow.ArrowException: where the strict reader has to judge.
    """
    if columns.encoding not in ("", "utf-8"):
        raise NotPlainError("another encoding")
    if path.suffix == ".parquet":
        return _parquet(path, columns)
    lines = columnar.lines_of(path)
    if not is_table(path):
        columns.refuse(path, INTERACTION_FIELDS, "this form of file has no columns")
        read_form = _sequences if path.name in SEQUENCE_FILES else _pairs
        return read_form(path, lines)
    table = Table(path, "utf-8", plain=True)
    named = table_names(table, columns)
    places = {field: table.names.index(name) for field, name in named.items() if name}
    form = columnar.batches(
        path, table.separator, len(table.names), list(places.values()), header=True
    )
    return _table(path, range(2, lines + 1), form, list(places))


def _parquet(path: pathlib.Path, columns: Columns) -> Interactions:
    import pyarrow
    import pyarrow.parquet

    places = {f: name for f, name in table_names(Table(path), columns).items() if name}
    if len(set(places.values())) < len(places):
        raise NotPlainError("a column of two fields")
    file, types = pyarrow.parquet.ParquetFile(path), pyarrow.types
    for field in ("user", "item"):
        kind = file.schema_arrow.field(places[field]).type
        kind = kind.value_type if types.is_dictionary(kind) else kind
        if not (types.is_string(kind) or types.is_integer(kind)):
            raise NotPlainError("ids are neither texts nor whole numbers")

    def parts() -> "Iterator[pyarrow.RecordBatch]":
        """The columns in the fields' order, ids as texts."""
        for batch in file.iter_batches(1 << 18, columns=list(places.values())):
            found = [_plain(batch.column(name)) for name in places.values()]
            ids = [cells.cast(pyarrow.string()) for cells in found[:2]]
            if any(cells.null_count for cells in ids):
                raise NotPlainError("an id is null")
            yield pyarrow.record_batch([*ids, *found[2:]], names=list(places))

    return _table(path, range(1, file.metadata.num_rows + 1), parts(), list(places))


def _plain(cells: "pyarrow.Array") -> "pyarrow.Array":
    """The column's values, where it gives numbers of different ones, as pandas' categories do."""
    import pyarrow

    numbered = pyarrow.types.is_dictionary(cells.type)
    return cells.dictionary_decode() if numbered else cells


def _table(
    path: pathlib.Path, lines: range, form: "Iterable[pyarrow.RecordBatch]", fields: list[str]
) -> Interactions:
    users, items, ratings, times = Texts(), Texts(), Numbers(path), Times(path)
    takers = {"user": users, "item": items, "rating": ratings, "timestamp": times}
    for batch in form:
        for field, column in zip(fields, batch.columns, strict=True):
            takers[field].append(column)  # type: ignore[attr-defined]
    user, item = (checked(path, column.coded()) for column in (users, items))
    count = len(user)
    if count != len(lines) or len(item) != count or not count:
        raise NotPlainError("another number of rows than of lines")
    rating = np.broadcast_to(np.float32(np.nan), count)
    if "rating" in fields:
        rating = ratings.done()
        notes.count(int(np.isnan(rating).sum()), count, f"ratings in {path.name} are empty")
    stamps, order = np.broadcast_to(np.int64(-1), count), None
    if "timestamp" in fields:
        stamps, order = times.done()
    return Interactions(path, user, item, rating, stamps, order, lines)


def checked(path: pathlib.Path, ids: Coded) -> Coded:
    """The same, if each is an id.

    Raises:
      UserError: if one is none.
    """
    values = ids.values
    for first in range(0, len(values), 1 << 14):
        part = values[first : first + (1 << 14)]
        whole = "".join(part)
        plain = whole.isascii() and whole.isprintable() and " " not in whole and "" not in part
        if not plain or not MISSING.isdisjoint(part):
            for text in part:
                checked_id(path, 1, "id", text)
    return ids


class Numbers:
    """A column of ratings."""

    def __init__(self, path: pathlib.Path) -> None:
        """Begins with none."""
        self._path, self._parts = path, spill.Growing(np.float32)
        self._known: dict[object, float] = {}

    def append(self, part: "pyarrow.Array") -> None:
        """Takes more; UserError for what is no number."""
        found = part.dictionary_encode(null_encoding="encode")
        texts = found.dictionary.to_pylist()
        for text in texts:
            if text not in self._known:
                self._known[text] = checked_rating(self._path, 1, text)
        values = np.array([self._known[text] for text in texts], np.float32)
        self._parts.append(values[found.indices.to_numpy()])

    def done(self) -> np.ndarray:
        """The column."""
        return self._parts.done()


class Times:
    """A column of times: whole seconds as they come, anything else by its different cells."""

    def __init__(self, path: pathlib.Path) -> None:
        """Begins with none."""
        self._path, self._stamps = path, spill.Growing(np.int64)
        self._fractions: dict[int, np.ndarray] = {}
        self._dated: set[bool] = set()

    def append(self, part: "pyarrow.Array") -> None:
        """Takes more; UserError for what is no time, NotPlainError for dates among numbers."""
        whole = columnar.whole_numbers(part, digits=19)
        if whole is None:
            self._spelled(part)
        else:
            self._dated.add(False)
            self._stamps.append(whole)
        if len(self._dated) > 1:
            raise NotPlainError("dates and numbers")

    def _spelled(self, part: "pyarrow.Array") -> None:
        found = part.dictionary_encode(null_encoding="encode")
        texts, codes = found.dictionary.to_pylist(), found.indices.to_numpy()
        seconds = [checked_time(self._path, 1, text) for text in texts]
        self._dated.update(map(is_date, texts))
        if any(type(time) is float for time in seconds):
            left = [time - math.floor(time) for time in seconds]
            self._fractions[len(self._stamps)] = np.array(left, np.float64)[codes]
        self._stamps.append(np.array(list(map(math.floor, seconds)), np.int64)[codes])

    def done(self) -> tuple[np.ndarray, np.ndarray]:
        """(whole seconds, what sorts)."""
        stamps = self._stamps.done()
        if not self._fractions:
            return stamps, stamps
        fractions = np.zeros(len(stamps))
        for first, part in self._fractions.items():
            fractions[first : first + len(part)] = part
        return stamps, in_time(stamps, fractions)


def _pairs(path: pathlib.Path, lines: int) -> Interactions:
    users, items = Texts(), Texts()
    for batch in columnar.batches(path, " ", 2, (0, 1), header=False):
        users.append(batch.column(0))
        items.append(batch.column(1))
    user, item = (checked(path, column.coded()) for column in (users, items))
    return _untimed(path, user, item, range(1, lines + 1))


def _sequences(path: pathlib.Path, lines: int) -> Interactions:
    """`user item item …` lines, whose words are set apart by single spaces."""
    import pyarrow
    import pyarrow.compute

    users, items, lengths = Texts(), Texts(), []
    # Each line is one cell; one with this sign in it is for the strict reader.
    for batch in columnar.batches(path, "\x1f", 1, (0,), header=False):
        words = pyarrow.compute.split_pattern(batch.column(0), " ")
        count = words.value_lengths().to_numpy()
        flat, starts = words.flatten(), np.cumsum(count) - count
        if (count < 2).any():
            raise NotPlainError("a user without items")
        user = flat.take(pyarrow.array(starts))
        users.append(user.take(pyarrow.array(np.repeat(np.arange(len(count)), count - 1))))
        mine = np.ones(len(flat), bool)
        mine[starts] = False
        items.append(flat.filter(pyarrow.array(mine)))
        lengths.append(count - 1)
    user, item = (checked(path, column.coded()) for column in (users, items))
    whole = np.concatenate(lengths)
    if len(user.values) != lines or len(whole) != lines:
        raise NotPlainError("a user with two lines")
    return _untimed(path, user, item, np.repeat(np.arange(1, lines + 1), whole))


def _untimed(
    path: pathlib.Path, user: Coded, item: Coded, lines: "range | np.ndarray"
) -> Interactions:
    count = len(user)
    if len(lines) != count or len(item) != count:
        raise NotPlainError("another number of rows than of lines")
    return Interactions(
        path,
        user,
        item,
        np.broadcast_to(np.float32(math.nan), count),
        np.broadcast_to(np.int64(-1), count),
        None,
        lines,
    )
