"""Several values in one cell: how they are set apart is decided over the whole column.

`'A & B', 'C'`, `['A', "B's"]` and JSON's lists say themselves where a value ends. Else the setting
`Columns.separator` is obeyed. Without one "|" sets values apart where any cell holds it; then, in
columns that RecBole types as sequences, commas, semicolons or (its own rule) spaces. In other
columns a comma may belong to the value: cells are taken whole, and it is said how to cut them.
"""

import dataclasses
import json
import re
from collections.abc import Sequence

from ilm_jax.data.formats import notes
from ilm_jax.data.formats.raw_lines import fail
from ilm_jax.data.formats.record_lines import literal

_STRING = re.compile(r"""\s*('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")\s*(,?)""", re.DOTALL)
# Words of one value rather than values of their own: "Toys & Games".
_SIGNS = re.compile(r"(?:^|\s)(?:[&/+-]|and|of|the)(?:\s|$)", re.IGNORECASE)
_OBJECTS = re.compile(r"\[\s*\{")


def literal_list(cell: str, *, bare: bool = True) -> list[str] | None:
    """The strings of a cell that lists them in quotes, with or without brackets; else None.

    Args:
      cell: such as `['A', 'B']`, `["A"]`, `['A' 'B']` (NumPy's spelling) or `'A', 'B'`.
      bare: whether the list may stand without brackets.
    """
    text = cell.strip()
    boxed = text[:1] + text[-1:] in ("[]", "()", "{}")
    if not boxed and not (bare and text[:1] in ("'", '"')):
        return None
    inner = text[1:-1].strip() if boxed else text
    found: list[str] = []
    place, comma = 0, True
    while place < len(inner):
        match = _STRING.match(inner, place)
        if match is None or not (comma or boxed):
            return None
        value = _string(match[1])
        if value is None:
            return None
        found.append(value)
        place, comma = match.end(), bool(match[2])
    return found if found or text == "[]" else None


def _string(quoted: str) -> str | None:
    """The text of a string as JSON or Python spells it; None for what no text holds."""
    try:
        # PHP's "A\/B" too; Python's own spellings in double quotes are JSON, or refused as such.
        value = json.loads(quoted, strict=False)
    except ValueError:
        value = literal(quoted.replace("\n", "\\n"))
    try:
        # A pair of halves, which JSON joins and Python 2 writes, is one character.
        whole = str(value).encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeDecodeError:
        return None
    return whole if isinstance(value, str) and "\0" not in whole else None


@dataclasses.dataclass(frozen=True)
class Cutter:
    """Cuts the cells of one column into values.

    Attributes:
      separator: between values; "" takes a cell whole.
      quoted: cells are lists in quotes.
      given: cells come as lists (JSON, parquet).
      spaces: any white space sets values apart.
    """

    separator: str = ""
    quoted: bool = False
    given: bool = False
    spaces: bool = False

    def __call__(self, cell: str) -> list[str]:
        """The values of a cell, without empty ones."""
        if self.quoted:
            parts = literal_list(cell) or []
        elif self.spaces:
            parts = cell.split()
        else:
            parts = cell.split(self.separator) if self.separator else [cell]
        return [" ".join(part.split()) for part in parts if part.strip()]

    def described(self) -> str:
        """For `ilm inspect`."""
        if self.quoted or self.given:
            return "lists in quotes" if self.quoted else "lists"
        if self.spaces:
            return "set apart by spaces"
        return f"set apart by {self.separator!r}" if self.separator else "one a cell"


def decide(
    path: object, field: str, cells: Sequence[tuple[int, str]], given: str, sequence: bool
) -> Cutter:
    """How to cut the cells of a column; what cannot be decided is noted.

    Args:
      path, field: of the column, for messages.
      cells: (line, cell) of those that are not empty.
      given: `Columns.separator`, "" where nothing is said.
      sequence: whether the file's header types the column as a sequence.

    Raises:
      UserError: with file and line, for cells of two forms, or a list of objects.
    """
    name = str(getattr(path, "name", path))
    for line, cell in cells:
        if _OBJECTS.match(cell.strip()):
            fail(
                str(path),
                line,
                f"{field} {cell[:60]!r} is a list of objects",
                "write the names alone, such as A|B",
            )
    listed = [literal_list(cell) is not None for _, cell in cells]
    if listed and all(listed) and (given.strip() in ("", ",")):
        return Cutter(quoted=True)
    if listed and all(listed) and not any(given in cell for _, cell in cells):
        fail(
            str(path),
            cells[0][0],
            f"{field} {cells[0][1][:60]!r} is a list in quotes, and Columns.separator is {given!r}",
            "take Columns.separator out",
        )
    if any(listed) and not given:
        line, cell = cells[listed.index(False)]
        fail(
            str(path),
            line,
            f"{field} {cell[:60]!r} is no list in quotes, others are",
            "write all in one form, or say Columns.separator in columns.gin",
        )
    texts = [cell for _, cell in cells]
    if given:
        return _as_given(name, field, texts, given)
    return _as_found(name, field, texts, sequence)


def _as_given(name: str, field: str, texts: list[str], given: str) -> Cutter:
    others = [sign for sign in "|;," if any(sign in text for text in texts)]
    if others and not any(given in text for text in texts):
        notes.say(
            f"{name}: Columns.separator {given!r} stands in none of {len(texts)} {field}, "
            f"{others[0]!r} does"
        )
    return Cutter(given, spaces=not given.strip())


def _as_found(name: str, field: str, texts: list[str], sequence: bool) -> Cutter:
    def holding(sign: str) -> int:
        """Number of cells with the sign in them."""
        return sum(sign in text for text in texts)

    if holding("|"):
        return Cutter("|")
    remedy = 'set Columns.separator = "…" in columns.gin'
    if not sequence:
        count, sign = max((holding(sign), sign) for sign in ";,")
        if count:
            notes.say(
                f"{name}: {count} of {len(texts)} {field} hold {sign!r} and are taken whole; "
                f"to cut them, {remedy}"
            )
        return Cutter()
    for sign in ",;":
        if holding(sign):
            notes.say(
                f"{name}: {field} are cut at {sign!r}, which {holding(sign)} of {len(texts)} "
                f"hold; if that is wrong, {remedy}"
            )
            return Cutter(sign)
    spaced = sum(len(text.split()) > 1 for text in texts)
    if any(_SIGNS.search(text) for text in texts):
        notes.say(
            f"{name}: {spaced} of {len(texts)} {field} hold spaces and are taken whole, for "
            f"some read like 'A & B'; to cut them, {remedy}"
        )
        return Cutter()
    if spaced:
        notes.say(
            f"{name}: {field} are cut at spaces, as RecBole does, which {spaced} of "
            f"{len(texts)} hold; if that is wrong, {remedy}"
        )
    return Cutter(" ", spaces=True)
