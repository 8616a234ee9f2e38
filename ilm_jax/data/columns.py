"""How a user's own files call their columns, and the small file that says so.

Names that most files use are recognised, however they are written (`userId`, `User ID`). Others
stand in `columns.gin` in the same folder, in gin's spelling, so that every verb sees them and the
cache knows of a change:

    Columns.user = "reviewer"
    Columns.timestamp = "when"
"""

import ast
import dataclasses
import pathlib
import re
from collections.abc import Sequence
from typing import Any, TypeVar

from ilm_jax.data import raw_lines

FILE = "columns.gin"
Named = TypeVar("Named")
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
_LINE = re.compile(r"(?:[A-Z]\w*\.)?(\w+)\s*=\s*(.+)")


@dataclasses.dataclass(frozen=True)
class Columns:
    """Names of columns; "" means to look for a common one.

    Attributes:
      user, item, timestamp, rating: of the interactions. timestamp="none": the file's order is the
        order in time.
      id, title, text, categories: of the items.
      attributes: further columns of the items that tell something, such as ("brand", "color").
      separator: between several categories in one cell of a CSV or TSV file.
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
    separator: str = "|"
    core: int = 0

    def find(self, field: str, header: Sequence[str]) -> str:
        """The name of a field's column in a header, or "" if it has none."""
        given = getattr(self, field)
        if given:
            return given if given in header else ""
        plain = {_plain(name): name for name in reversed(header)}
        return next((plain[_plain(name)] for name in COMMON[field] if _plain(name) in plain), "")

    def missing(self, field: str, header: Sequence[str]) -> tuple[str, str]:
        """What is wrong and what to do where `find` finds nothing."""
        given = getattr(self, field)
        what = f"the column {given!r} of {FILE}" if given else f"no column for the {field}"
        remedy = f'name it: Columns.{field} = "…" in {FILE}'
        remedy += ' ("none": the order of the file)' if field == "timestamp" else ""
        return f"{what} is not among {list(header)}" if given else (
            f"{what} among {list(header)}, which line 1 names"
        ), remedy  # fmt: skip


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]", "", name).lower()


def read_columns(folder: pathlib.Path) -> Columns:
    """What `columns.gin` in the folder says; the defaults without such a file; as `read_names`."""
    return read_names(folder / FILE, Columns)


def read_names(path: pathlib.Path, kind: type[Named]) -> Named:
    """A small file of `NAME = literal` lines as a dataclass; the defaults if there is no file.

    Raises:
      UserError: with file and line, for an unknown name or a value of another type.
    """
    if not path.is_file():
        return kind()
    known: dict[str, Any] = {field.name: field.default for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    found: dict[str, Any] = {}
    for number, line in raw_lines.lines(path):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None or match[1] not in known:
            remedy = f"write {kind.__name__}.NAME = VALUE, NAME one of {', '.join(known)}"
            raw_lines.fail(path, number, f"{line[:80]!r}", remedy)
        try:
            value = ast.literal_eval(match[2])
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            raw_lines.fail(path, number, f"value {match[2][:80]!r}", "quote strings")
        default = known[match[1]]
        if isinstance(default, tuple) and isinstance(value, list | tuple):
            value = tuple(map(str, value))
        if type(value) is not type(default) or (isinstance(value, int) and value < 0):
            raw_lines.fail(path, number, f"{match[1]} = {value!r}", f"its default is {default!r}")
        found[match[1]] = value
    return kind(**found)
