"""Names of the columns of a user's own files, and the small file that sets them.

Names that most files use are recognised, however they are written (`userId`, `User ID`). Others
stand in `columns.gin` in the same folder, in gin's spelling, so that every verb sees them and the
cache knows of a change:

    Columns.user = "reviewer"
    Columns.timestamp = "when"

What stands there is obeyed or refused: a name that no column bears, and a setting that the files
have no use for, are errors.
"""

import dataclasses
import pathlib
import re
from collections.abc import Sequence
from typing import Any, TypeVar

from ilm_jax.checks import Dataclass, Number, check
from ilm_jax.data.formats import encodings, notes, published, raw_lines
from ilm_jax.data.formats.json_lines import check_escapes
from ilm_jax.data.formats.record_lines import literal
from ilm_jax.errors import UserError

FILE = "columns.gin"
NONE = "none"
INTERACTION_FIELDS = ("user", "item", "timestamp", "rating")
ITEM_FIELDS = ("id", "title", "text", "categories")
OPTIONAL = ("timestamp", "rating", "title", "text", "categories")
# How pandas, Python and JSON spell a value that is not there.
MISSING = frozenset(("nan", "NaN", "None", "null", "NULL", "<NA>"))
Named = TypeVar("Named", bound=Dataclass)
# What a column may be called where nothing else is said, the likeliest first.
COMMON = {
    "user": ("user", "user_id", "reviewer_id", "uid"),
    "item": ("item", "item_id", "movie_id", "asin", "iid"),
    "timestamp": ("timestamp", "time", "unix_review_time", "unix_time", "ts", "date"),
    "rating": ("rating", "ratings", "overall", "stars", "score"),
    "id": ("id", "item", "item_id", "movie_id", "asin", "iid"),
    "title": ("title", "name", "movie_title", "item_name", "item_title"),
    "text": ("text", "description", "summary", "overview"),
    "categories": ("categories", "genres", "category", "genre", "class"),
}
_LINE = re.compile(r"(?:([A-Z]\w*)\.)?(\w+)\s*=\s*(.+)")


def is_word(text: str) -> bool:
    """Whether a text may be an id: one word that can be printed, and no sign of a missing one."""
    return text.split() == [text] and text.isprintable() and text not in MISSING


@dataclasses.dataclass(frozen=True)
class Columns:
    """Names of columns; "" means to look for a common one, "none" to read none.

    Attributes:
      user, item, timestamp, rating: of the interactions. timestamp="none": the file's order is the
        order in time.
      id, title, text, categories: of the items.
      attributes: further columns of the items that tell something, such as ("brand", "color").
      separator: between several categories in one cell; "": as the cells show, see `lists`.
      encoding: of the text files, such as "cp1250"; "": found in them, see `encodings`.
      markup: "remove" takes tags, entities, scripts and styles out of items' titles and texts;
        "" keeps them as written, and counts.
      core: users and items with fewer interactions are left out, again and again until none is
        left; 0 keeps all.
    """

    user: str = ""
    item: str = ""
    timestamp: str = ""
    rating: str = ""
    id: str = ""
    title: str = ""
    text: str = ""
    categories: str = ""
    attributes: tuple[str, ...] = ()
    separator: str = ""
    encoding: str = ""
    markup: str = ""
    core: Number = 0

    def __post_init__(self) -> None:
        check(self)

    def find(self, field: str, header: Sequence[str]) -> str:
        """The name of a field's column in a header, or "" if it has none."""
        given = getattr(self, field)
        if given:
            return given if given in header else ""
        plain = {_plain(name): name for name in reversed(header)}
        return next((plain[_plain(name)] for name in COMMON[field] if _plain(name) in plain), "")

    def names(
        self, path: pathlib.Path, header: Sequence[str], fields: Sequence[str]
    ) -> dict[str, str]:
        """The column of every field in a file's header; "" for an optional one that it lacks.

        Raises:
          UserError: for a name in columns.gin that no column bears, and for a field that must be.
        """
        found = {field: self.find(field, header) for field in fields}
        for field, name in found.items():
            twins = [other for other in header if name and _plain(other) == _plain(name)]
            if len(twins) > 1 and not getattr(self, field):
                raw_lines.fail(
                    path,
                    1,
                    f"columns {twins} may each be the {field}",
                    f'say which: Columns.{field} = "…" in {FILE}',
                )
        for field, name in found.items():
            given = getattr(self, field)
            absent = given == NONE and field in OPTIONAL
            if name or absent or (not given and field in OPTIONAL and field != "timestamp"):
                continue
            raw_lines.fail(path, 1, *self._missing(field, header, path.suffix == ".jsonl"))
        if published.is_amazon_2023(header):
            read = ", ".join(f"{field} = {name}" for field, name in found.items() if name)
            notes.say(f"{path.name}: the form of Amazon Reviews 2023; of it are read: {read}")
        if "id" in fields:
            for name in self.attributes:
                if name not in header:
                    raw_lines.fail(
                        path,
                        1,
                        f"no column {name!r} of Columns.attributes in {FILE}",
                        f"there are {list(header)}",
                    )
        return found

    def _missing(self, field: str, header: Sequence[str], records: bool) -> tuple[str, str]:
        """What is wrong and what to do where `find` finds nothing."""
        given = getattr(self, field)
        what = f"the column {given!r} of {FILE}" if given else f"no column for the {field}"
        remedy = f'name it: Columns.{field} = "…" in {FILE}'
        remedy += ' ("none": the order of the file)' if field == "timestamp" else ""
        if not given and published.is_amazon_2023(header):
            remedy = published.AMAZON_2023
        where = "the keys of its records" if records else "which line 1 names"
        return f"{what} is not among {list(header)}" if given else (
            f"{what} among {list(header)}, {where}"
        ), remedy

    def refuse(self, path: pathlib.Path, names: Sequence[str], why: str) -> None:
        """Raises UserError if one of the settings is given where it makes no sense."""
        for name in names:
            given = getattr(self, name)
            if given and not (given == NONE and name in OPTIONAL):
                raise UserError(
                    f"{path}: Columns.{name} = {given!r} is set, but {why}; take it out of {FILE}"
                )


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]", "", name).lower()


def read_columns(folder: pathlib.Path) -> Columns:
    """Settings of `columns.gin` in the folder; the defaults without such a file.

    Raises:
      UserError: as `read_names`; for an unknown encoding or way with markup.
    """
    path = folder / FILE
    columns = read_names(path, Columns)
    if columns.encoding and not encodings.check_codec(columns.encoding):
        raise UserError(f"{path}: no encoding {columns.encoding!r}; such as cp1250, gbk")
    if columns.markup not in ("", "remove"):
        raise UserError(f'{path}: markup = {columns.markup!r}; "remove", or leave it out')
    return columns


def read_names(path: pathlib.Path, kind: type[Named]) -> Named:
    """A small file of `NAME = literal` lines as a dataclass; the defaults if there is no file.

    Raises:
      UserError: with file and line, for an unknown name or a value of another type.
    """
    if not path.is_file():
        return kind()
    known: dict[str, Any] = {field.name: field.default for field in dataclasses.fields(kind)}
    found: dict[str, Any] = {}
    for number, line in raw_lines.lines(path):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        kinds = (None, kind.__name__)
        if match is None or match[1] not in kinds or match[2] not in known:
            remedy = f"write {kind.__name__}.NAME = VALUE, NAME one of {', '.join(known)}"
            raw_lines.fail(path, number, f"{line[:80]!r}", remedy)
        name = match[2]
        if name in found:
            raw_lines.fail(path, number, f"{name} is set a second time", "leave one of the lines")
        value = literal(match[3])
        if value is None:
            raw_lines.fail(path, number, f"value {match[3][:80]!r}", "quote strings")
        check_escapes(path, number, line, value)
        default = known[name]
        if isinstance(default, tuple) and isinstance(value, list | tuple):
            value = tuple(map(str, value))
        if type(value) is not type(default) or (isinstance(value, int) and value < 0):
            raw_lines.fail(path, number, f"{name} = {value!r}", f"its default is {default!r}")
        found[name] = value
    return kind(**found)
