"""Items from a user's file: `items.csv`, `.tsv`, `.jsonl`, `.parquet`, or RecBole's `.item`."""

import collections
import decimal
import pathlib

from ilm_jax.data.formats import lists, markup, notes, raw_lines
from ilm_jax.data.formats.columns import FILE, ITEM_FIELDS, MISSING, Columns
from ilm_jax.data.formats.items import Item, ItemTable, ItemTableBuilder
from ilm_jax.data.formats.tables import SEQUENCE_KINDS, Row, Table

SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet", ".item")


def read_items(path: pathlib.Path, columns: Columns) -> ItemTable:
    """Items by raw id, in file order.

    A title, text, category or attribute may be missing: empty, null, or spelled "nan", "None" or
    "null" as pandas and Python write what is not there. How many are is noted; a title is then the
    id. Lists of texts become one text; categories are cut as `lists` decides.

    Raises:
      UserError: with file and line: no column of ids, a name in columns.gin that no column bears,
        an id twice, empty or missing, a broken row.
    """
    reader = _Reader(path, columns)
    items = ItemTableBuilder()
    for line, row in reader.table.rows():
        raw = reader.id(line, row)
        if (first := items.line_of(raw)) is not None:
            raw_lines.fail(path, line, f"item id {raw!r} was given in line {first}")
        items.add(raw, reader.item(raw, line, row))
    found = items.done()
    if not found:
        raw_lines.fail(path, 1, "no items in the file", "without titles, leave the file out")
    reader.note(len(found))
    return found


def item_columns(path: pathlib.Path, columns: Columns) -> tuple[dict[str, str], list[str], str]:
    """(column of each field, all columns, how categories are cut) of a file; errors as above."""
    reader = _Reader(path, columns)
    names = {field: name for field, name in reader.names.items() if name}
    return names, reader.table.names, reader.cut.described() if "categories" in names else ""


class _Reader:
    """One file of items: its columns, how its categories are cut, and what is missing in it."""

    def __init__(self, path: pathlib.Path, columns: Columns) -> None:
        self.path, self.columns = path, columns
        self.table = Table(path, columns.encoding)
        self.names = dict.fromkeys(ITEM_FIELDS, "")
        if self.table.names:
            self.names = columns.names(path, self.table.names, ITEM_FIELDS)
        self.missing: dict[str, collections.Counter[str]] = collections.defaultdict(
            collections.Counter
        )
        self.marked = self.joined = 0
        self.sample = ""
        self.cut = self._cutter()

    def _cutter(self) -> lists.Cutter:
        name, given = self.names["categories"], self.columns.separator
        if not name:
            self.columns.refuse(self.path, ("separator",), "the file has no column of categories")
            return lists.Cutter()
        cells, listed = [], 0
        for line, row in self.table.rows():
            cell = row.get(name)
            listed += isinstance(cell, list)
            if isinstance(cell, str) and cell.strip() and cell.strip() not in MISSING:
                cells.append((line, cell))
        if listed and not cells:
            self.columns.refuse(self.path, ("separator",), f"all of {name!r} are lists already")
            return lists.Cutter(given=True)
        sequence = self.table.kinds.get(name) in SEQUENCE_KINDS or self.path.suffix == ".item"
        return lists.decide(self.path, name, cells, given, sequence)

    def id(self, line: int, row: Row) -> str:
        """The item's id; UserError, with file and line, where it is missing or no single word."""
        value = row.get(self.names["id"])
        plain = isinstance(value, str | int) and not isinstance(value, bool)
        raw = str(value) if plain else ""
        if not raw or raw.split() != [raw] or not raw.isprintable():
            raw_lines.fail(
                self.path, line, f"item id {str(value)[:60]!r}", "an id is a word without spaces"
            )
        if raw in MISSING:
            raw_lines.fail(
                self.path,
                line,
                f"item id {raw!r} is no id but how a missing one is written",
                "mend the line or take it out",
            )
        return raw

    def item(self, raw: str, line: int, row: Row) -> Item:
        """The row as an item; one without a title is titled by its id."""
        found = {f: self._text(line, row, self.names[f]) for f in ("title", "text")}
        attributes = [(n, self._text(line, row, n, ", ")) for n in self.columns.attributes]
        return Item(
            found["title"] or raw,
            found["text"],
            tuple(self._categories(line, row)),
            tuple((name, value) for name, value in attributes if value),
            line,
        )

    def _text(self, line: int, row: Row, name: str, between: str = " ") -> str:
        """A cell as one line; "" where it is missing, which is counted."""
        value = row.get(name) if name else None
        if isinstance(value, str) and value[:1] == "[":
            literal = lists.literal_list(value, bare=False)
            value = value if literal is None else literal
        if isinstance(value, list) and all(isinstance(part, str) for part in value):
            self.joined += len(value) > 1
            value = between.join(value)
        text = self._checked(line, name, value)
        if name and not text:
            how = "null" if value is None else "empty" if not str(value).strip() else str(value)
            self.missing[name][how if len(how) < 20 else "markup alone"] += 1
        return text

    def _checked(self, line: int, name: str, value: object) -> str:
        if value is None:
            return ""
        numeric = isinstance(value, int | float | decimal.Decimal)
        numeric = numeric and not isinstance(value, bool)
        if not isinstance(value, str) and not (numeric and value == value):
            raw_lines.fail(
                self.path, line, f"{name} is {str(value)[:60]!r}, neither a text nor a number"
            )
        text = " ".join(str(value).split())
        if text in MISSING:
            return ""
        if markup.suspect(text) and (clean := markup.plain(str(value))) != text:
            self.marked += 1
            self.sample = self.sample or f"line {line}: {text[:40]!r}"
            return clean if self.columns.markup else text
        return text

    def _categories(self, line: int, row: Row) -> list[str]:
        name = self.names["categories"]
        given = row.get(name) if name else None
        if isinstance(given, list):
            if None in given:
                raw_lines.fail(self.path, line, "a category is null")
            found = [text for part in given if (text := self._checked(line, name, part))]
        else:
            text = self._checked(line, name, given) if name else ""
            found = [part for part in self.cut(text) if part not in MISSING]
        if name and not found:
            self.missing[name]["null" if given is None else "empty"] += 1
        return found

    def note(self, total: int) -> None:
        """Says what is missing, and what was changed or left."""
        for name, kinds in self.missing.items():
            how = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
            notes.count(
                kinds.total(), total, f"items in {self.path.name} are without {name!r} ({how})"
            )
        notes.count(self.joined, total, "texts are lists, and become one text each")
        kept = (
            "is taken out"
            if self.columns.markup
            else (f'is kept as written; Columns.markup = "remove" in {FILE} takes it out')
        )
        if self.marked:
            notes.say(
                f"{self.marked} cells of {self.path.name} hold a page's markup ({self.sample}), "
                f"which {kept}"
            )
