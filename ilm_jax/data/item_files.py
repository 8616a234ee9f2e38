"""Items from a user's file: `items.csv`, `.tsv`, `.jsonl`, or RecBole's `.item`."""

import dataclasses
import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from ilm_jax.data import raw_lines
from ilm_jax.data.columns import Columns

Spans = list[tuple[int, int]]
SUFFIXES = (".csv", ".tsv", ".jsonl", ".item")


@dataclasses.dataclass(frozen=True)
class Item:
    """One item as its file has it.

    Attributes:
      title: never empty; the id where the file has no title.
      text: "" where the file has none.
      attributes: (name, value) of further columns, in order.
      line: where it stands.
    """

    title: str
    text: str = ""
    categories: tuple[str, ...] = ()
    attributes: tuple[tuple[str, str], ...] = ()
    line: int = 0

    def described(self) -> tuple[str, Spans]:
        """The item's text, or one composed of what is known; and the spans that carry information.

        An item's own text is all information.
        """
        if self.text:
            return self.text, [(0, len(self.text))]
        pieces: list[tuple[str, bool]] = [("The item ", False), (self.title, True)]
        for number, category in enumerate(self.categories):
            pieces += [(", " if number else " belongs to ", False), (category, True)]
        for number, (name, value) in enumerate(self.attributes):
            lead = f", {name} " if number else f"; its {name} is "
            pieces += [(lead.replace("_", " "), False), (value, True)]
        return joined([*pieces, (".", False)])


def joined(pieces: list[tuple[str, bool]]) -> tuple[str, Spans]:
    """Pieces as one text, and the spans of those that carry information."""
    text, spans = "", []
    for piece, informative in pieces:
        if informative and piece:
            spans.append((len(text), len(text) + len(piece)))
        text += piece
    return text, spans


def read_items(path: pathlib.Path, columns: Columns) -> dict[str, Item]:
    """Items by raw id, in file order.

    Raises:
      UserError: with file and line: no column of ids, an id twice or empty, a broken row.
    """
    items: dict[str, Item] = {}
    for line, row in _rows(path, columns):
        raw = row["id"]
        if not raw or raw.split() != [raw]:
            raw_lines.fail(path, line, f"item id {raw!r}", "an id is a word without spaces")
        if raw in items:
            raw_lines.fail(path, line, f"item id {raw!r} was given in line {items[raw].line}")
        title = " ".join(row["title"].split()) or raw
        text = " ".join(row["text"].split())
        items[raw] = Item(title, text, row["categories"], row["attributes"], line)
    if not items:
        raw_lines.fail(path, 1, "no items in the file", "without titles, leave the file out")
    return items


def item_header(path: pathlib.Path) -> list[str]:
    """Columns of the file, or keys of its first record; none if it has no rows."""
    rows = json_rows(path) if path.suffix == ".jsonl" else raw_lines.table_rows(path)
    return next((list(row) for _, row in rows), [])


def _rows(path: pathlib.Path, columns: Columns) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line, {"id", "title", "text", "categories", "attributes"}) of every row."""
    if path.suffix == ".jsonl":
        for line, record in json_rows(path):
            names = {field: columns.find(field, list(record)) for field in _FIELDS}
            if not names["id"]:
                raw_lines.fail(path, line, *columns.missing("id", list(record)))
            yield line, _fields(path, line, record, names, columns)
        return
    names = {}
    for line, cells in raw_lines.table_rows(path):
        if not names:
            names = {field: columns.find(field, list(cells)) for field in _FIELDS}
            if not names["id"]:
                raw_lines.fail(path, 1, *columns.missing("id", list(cells)))
            missing = [name for name in columns.attributes if name not in cells]
            if missing:
                raw_lines.fail(path, 1, f"no column {missing[0]!r}", f"there are {list(cells)}")
        yield line, _fields(path, line, cells, names, columns)


_FIELDS = ("id", "title", "text", "categories")


def _fields(
    path: pathlib.Path,
    line: int,
    row: Mapping[str, Any],
    names: Mapping[str, str],
    columns: Columns,
) -> dict[str, Any]:
    # A field without a column has the name "", which a record may have as a key.
    cells = {field: row.get(name) if name else None for field, name in names.items()}
    found = {f: _text(path, line, names[f], cells[f]) for f in ("id", "title", "text")}
    given = cells["categories"]
    if isinstance(given, list):
        if None in given:
            raw_lines.fail(path, line, "a category is null")
        categories = [_text(path, line, "categories", part) for part in given]
    else:
        # RecBole's token sequences are set apart by spaces.
        separator = " " if path.suffix == ".item" else columns.separator
        categories = _text(path, line, "categories", given).split(separator)
    attributes = [(n, _text(path, line, n, row.get(n))) for n in columns.attributes]
    return found | {
        "categories": tuple(c.strip() for c in categories if c.strip()),
        "attributes": tuple((n, " ".join(v.split())) for n, v in attributes if v.strip()),
    }


def _text(path: pathlib.Path, line: int, name: str, value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int | float) or value != value:
        raw_lines.fail(path, line, f"{name} is {str(value)[:60]!r}, neither a text nor a number")
    return str(value)


def json_rows(path: pathlib.Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line, object) of a file with one JSON object per line.

    Raises:
      UserError: with file and line, for anything else, a key given twice, or NaN.
    """

    def pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(found)) < len(found):
            raise ValueError("a key is given twice")
        return dict(found)

    def constant(name: str) -> float:
        raise ValueError(f"{name} is no JSON")

    for number, line in raw_lines.lines(path):
        try:
            record = json.loads(line, object_pairs_hook=pairs, parse_constant=constant)
        except (ValueError, RecursionError) as error:
            raw_lines.fail(path, number, f"not a JSON object ({error})")
        if not isinstance(record, dict):
            raw_lines.fail(path, number, f"a {type(record).__name__} instead of a JSON object")
        yield number, record
