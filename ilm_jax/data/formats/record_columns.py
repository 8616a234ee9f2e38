"""Interactions from plain files of records, by columns: `record_values`' rules, once a value."""

import math
import pathlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ilm_jax.data import spill
from ilm_jax.data.formats import columnar, columnar_records, raw_lines, record_values
from ilm_jax.data.formats.coded import Coded
from ilm_jax.data.formats.columnar import NotPlainError
from ilm_jax.data.formats.record_forms import InteractionForm
from ilm_jax.data.formats.record_rows import Rows

if TYPE_CHECKING:
    import pyarrow

_DIGITS = 17  # that a time may have


def read(paths: Sequence[pathlib.Path], form: InteractionForm) -> Rows:
    """All interactions, in the order of the files.

    Raises:
      NotPlainError, UserError, UnicodeDecodeError, pyarrow.ArrowException: where the strict reader
        has to judge.
    """
    users, items = columnar.Texts(), columnar.Texts()
    ratings, times = spill.Growing(np.float32), spill.Growing(np.int64)
    lines = spill.Growing(np.int64)
    for path in paths:
        is_csv = path.name.removesuffix(".gz").endswith(".csv")
        count = 0
        for batch in (_table if is_csv else _records)(path, form):
            if any(column.null_count for column in batch.columns):
                raise NotPlainError("a field is missing")
            named = dict(zip(batch.schema.names, batch.columns, strict=True))
            users.append(named[form.user])
            items.append(named[form.item])
            ratings.append(_ratings(path, form, named, len(batch)))
            times.append(_times(path, form, named[form.time]))
            count += len(batch)
        lines.append(np.arange(1 + is_csv, 1 + is_csv + count))
    user, item = users.coded(), items.coded()
    if not len(user):
        raise NotPlainError("no interactions")
    known = {form.item: item.values} | ({} if form.display_names else {form.user: user.values})
    for name, values in known.items():
        for raw in values:
            record_values.word(paths[0], 1, {name: raw}, name)
    if form.display_names:
        names = [_shown(paths[0], form, raw) for raw in user.values]
        user = Coded(user.codes, names)
    return Rows(user, item, ratings.done(), times.done(), lines.done())


def _shown(path: pathlib.Path, form: InteractionForm, raw: str) -> str:
    return record_values.display_name(path, 1, {form.user: raw}, form.user)


def _records(path: pathlib.Path, form: InteractionForm) -> "Iterator[pyarrow.RecordBatch]":
    import pyarrow

    whole = form.time_form in ("seconds", "milliseconds")
    kinds = {form.user: pyarrow.string(), form.item: pyarrow.string()}
    kinds |= {form.time: pyarrow.int64() if whole else pyarrow.string()}
    kinds |= {form.rating: pyarrow.float64()} if form.rating else {}
    return columnar_records.batches(path, kinds)


def _table(path: pathlib.Path, form: InteractionForm) -> "Iterator[pyarrow.RecordBatch]":
    if path.name.endswith(".gz"):
        raise NotPlainError("a packed table")
    lines = columnar.lines_of(path)
    header = next(raw_lines.lines(path), (1, ""))[1]
    names = header.split(",")
    fields = [form.user, form.item, form.time, *([form.rating] if form.rating else [])]
    if header not in form.headers or not set(fields) <= set(names):
        raise NotPlainError("another header")
    places = [names.index(field) for field in fields]
    count = 0
    for batch in columnar.batches(path, ",", len(names), places, header=True):
        count += len(batch)
        yield batch.rename_columns(fields)
    if count != lines - 1:
        raise NotPlainError("another number of rows than of lines")


def _ratings(
    path: pathlib.Path, form: InteractionForm, named: "dict[str, pyarrow.Array]", count: int
) -> np.ndarray:
    if not form.rating:
        return np.full(count, np.nan, np.float32)
    found = named[form.rating].dictionary_encode()
    values = [
        record_values.rating(path, 1, {form.rating: value}, form.rating, form.highest)
        for value in found.dictionary.to_pylist()
    ]
    values = [math.nan if value == form.unrated else value for value in values]
    return np.array(values, np.float32)[found.indices.to_numpy()]


def _times(path: pathlib.Path, form: InteractionForm, cells: "pyarrow.Array") -> np.ndarray:
    import pyarrow
    import pyarrow.compute

    def checked(value: object) -> int:
        """A time; UserError for what is none."""
        return record_values.time(path, 1, {form.time: value}, form.time, form.time_form)

    whole = columnar.whole_numbers(cells)
    if whole is None or form.time_form not in ("seconds", "milliseconds"):
        found = cells.dictionary_encode()
        read = [checked(value) for value in found.dictionary.to_pylist()]
        return np.array(read, np.int64)[found.indices.to_numpy()]
    if pyarrow.types.is_string(cells.type):
        longest = pyarrow.compute.max(pyarrow.compute.binary_length(cells)).as_py() or 0
        if longest > _DIGITS:
            raise NotPlainError("a number of many digits")
    for bound in {int(whole.min()), int(whole.max())} if len(whole) else ():
        checked(bound)
    return whole
