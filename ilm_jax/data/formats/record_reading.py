"""Interactions and items from files of records, by the forms that say what their fields are."""

import array
import collections
import math
import pathlib
from collections.abc import Iterator, Sequence, Set

import numpy as np

from ilm_jax.data.formats import columnar, markup, notes, record_columns, record_values
from ilm_jax.data.formats.coded import Coder
from ilm_jax.data.formats.interaction_files import Interactions
from ilm_jax.data.formats.items import Item
from ilm_jax.data.formats.record_forms import InteractionForm, ItemForm
from ilm_jax.data.formats.record_lines import Record, csv_records, json_records
from ilm_jax.data.formats.record_rows import Rows
from ilm_jax.errors import UserError

LONGEST_TEXT = 600
LONGEST_ATTRIBUTE = 40


def read_interactions(
    paths: Sequence[pathlib.Path], form: InteractionForm, *, literals: bool = False
) -> tuple[Interactions, int]:
    """(interactions in the order of the files, how many were left out as repeats).

    Of several interactions of a user with an item the earliest stays, the first of equally early
    ones: as in the published 5-core files of Amazon 2023.

    Raises:
      UserError: with file and line, for whatever does not fit the form; if there are none.
    """
    largest = max(paths, key=lambda path: path.stat().st_size)
    found = columnar.attempt(largest, lambda: record_columns.read(paths, form))
    rows = found or read_strictly(paths, form, literals)
    total, nobody = len(rows.user), np.array([not user for user in rows.user.values], bool)
    named = ~nobody[rows.user.codes]
    notes.count(
        total - int(named.sum()), total, f"interactions have an empty {form.user}, and are left out"
    )
    rows = rows if named.all() else rows.kept(named)
    if not len(rows.user):
        raise UserError(f"{paths[0]}: no interactions in it")
    earliest = rows.earliest()
    left = rows if earliest.all() else rows.kept(earliest)
    interactions = Interactions(
        paths[0],
        left.user,
        left.item,
        left.rating,
        left.time // (1000 if form.time_form == "milliseconds" else 1),
        left.time,
        left.line,
    )
    return interactions, len(rows.user) - len(left.user)


def read_strictly(
    paths: Sequence[pathlib.Path], form: InteractionForm, literals: bool = False
) -> Rows:
    """All interactions, line by line; errors as `read_interactions`, but for an empty file."""
    users, items = Coder(), Coder()
    ratings, times, lines = array.array("d"), array.array("q"), array.array("q")
    for path in paths:
        for line, record in _records(path, form, literals):
            users.append(_user(path, line, record, form))
            items.append(record_values.word(path, line, record, form.item))
            ratings.append(_rating(path, line, record, form))
            times.append(record_values.time(path, line, record, form.time, form.time_form))
            lines.append(line)
    return Rows(
        users.done(),
        items.done(),
        np.array(ratings, np.float32),
        np.array(times, np.int64),
        np.array(lines, np.int64),
    )


def _records(
    path: pathlib.Path, form: InteractionForm, literals: bool
) -> Iterator[tuple[int, Record]]:
    if path.name.removesuffix(".gz").endswith(".csv"):
        return csv_records(path, form.headers)
    return json_records(path, literals=literals)


def _user(path: pathlib.Path, line: int, record: Record, form: InteractionForm) -> str:
    read = record_values.display_name if form.display_names else record_values.word
    return read(path, line, record, form.user)


def _rating(path: pathlib.Path, line: int, record: Record, form: InteractionForm) -> float:
    if not form.rating:
        return math.nan
    found = record_values.rating(path, line, record, form.rating, form.highest)
    return math.nan if found == form.unrated else found


def read_items(
    path: pathlib.Path, form: ItemForm, wanted: Set[str], *, literals: bool = False
) -> dict[str, Item]:
    """The wanted items by id, in file order; of an id that stands twice the first.

    Raises:
      UserError: with file and line, for whatever does not fit the form.
    """
    reader = _Items(path, form)
    for line, record in json_records(path, literals=literals):
        if form.may_lack_id and not record_values.texts(path, line, record, form.id):
            reader.without_id += 1
            continue
        raw = record_values.word(path, line, record, form.id)
        if raw in reader.items:
            reader.again += 1
        elif raw in wanted:
            reader.items[raw] = reader.item(raw, line, record)
    reader.note()
    return reader.items


class _Items:
    """One file of items: what was read of it, and what is to be said of it."""

    def __init__(self, path: pathlib.Path, form: ItemForm) -> None:
        self.path, self.form = path, form
        self.items: dict[str, Item] = {}
        self.without_id = self.again = 0
        self.lost: collections.Counter[str] = collections.Counter()

    def item(self, raw: str, line: int, record: Record) -> Item:
        """The record as an item; one without a title is titled by its id."""
        form = self.form
        title = " ".join(self._first(line, record, form.title)) or raw
        parts = [text for field in form.text for text in self._plain(line, record, field)]
        text = shortened(" ".join(parts))
        named = [
            (name, ", ".join(self._first(line, record, fields))) for name, fields in form.attributes
        ]
        return Item(
            title=title,
            text=text if text != title else "",
            categories=tuple(self._categories(line, record)),
            attributes=tuple((name, value) for name, value in named if says_something(value)),
            line=line,
        )

    def _first(self, line: int, record: Record, fields: Sequence[str]) -> list[str]:
        return next((found for f in fields if (found := self._plain(line, record, f))), [])

    def _plain(self, line: int, record: Record, field: str) -> list[str]:
        """A field's texts without markup, on one line each; what was nothing else is counted."""
        given = record_values.texts(self.path, line, record, field)
        found = [text for text in map(markup.plain, given) if text]
        self.lost[field] += bool(given) and not found
        return found

    def _categories(self, line: int, record: Record) -> list[str]:
        form = self.form
        found = self._first(line, record, form.categories)
        if form.separator and len(found) == 1:
            found = [name for text in found for name in cut(text, form.separator, form.whole)]
        kept = [name for name in dict.fromkeys(found) if name not in form.left_out]
        return kept[: form.most or None]

    def note(self) -> None:
        """Says what was left out."""
        total = len(self.items)
        for field, count in self.lost.items():
            notes.count(count, total, f"items have nothing but markup as {field}, read as missing")
        name, field = self.path.name, self.form.id
        if self.without_id:
            notes.say(f"{name}: {self.without_id} records have no {field}, and are left out")
        if self.again:
            notes.say(f"{name}: {self.again} records repeat the {field} of another; the first stay")


def cut(text: str, separator: str, whole: Sequence[str]) -> list[str]:
    """The categories of one text; those that hold the separator themselves stay whole."""
    parts = [part.strip() for part in text.split(separator)]
    for name in whole:
        pieces = [part.strip() for part in name.split(separator)]
        width = len(pieces)
        place = 0
        while place + width <= len(parts):
            if parts[place : place + width] == pieces:
                parts[place : place + width] = [name]
            place += 1
    return [part for part in parts if part]


def says_something(value: str) -> bool:
    """Whether an attribute is more than a dash, and no text that strayed into its field."""
    return any(letter.isalnum() for letter in value) and len(value) <= LONGEST_ATTRIBUTE


def shortened(text: str) -> str:
    """A text cut after the last sentence that fits into `LONGEST_TEXT`."""
    if len(text) <= LONGEST_TEXT:
        return text
    begin = text[:LONGEST_TEXT]
    end = begin.rfind(". ")
    return begin[: end + 1] if end > 0 else begin[: begin.rfind(" ")] if " " in begin else begin
