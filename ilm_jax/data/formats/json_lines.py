"""Files with one JSON object per line."""

import json
import pathlib
from collections.abc import Iterator
from typing import Any

from ilm_jax.data.formats import raw_lines


def json_rows(path: pathlib.Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line, object) of every line.

    Raises:
      UserError: with file and line, for anything else, a key given twice, NaN, or an escape that
        stands for no character (half of a surrogate pair, NUL).
    """

    def pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
        """An object; ValueError where a key is given twice, of which json keeps the last."""
        if len(dict(found)) < len(found):
            raise ValueError("a key is given twice")
        return dict(found)

    def constant(name: str) -> float:
        """Refuses NaN and Infinity, which json reads and JSON lacks."""
        raise ValueError(f"{name} is no JSON")

    for number, line in raw_lines.lines(path):
        try:
            record = json.loads(line, object_pairs_hook=pairs, parse_constant=constant)
        except (ValueError, RecursionError) as error:
            raw_lines.fail(path, number, f"not a JSON object ({error})")
        if not isinstance(record, dict):
            raw_lines.fail(path, number, f"a {type(record).__name__} instead of a JSON object")
        check_escapes(path, number, line, record)
        yield number, record


def check_escapes(path: pathlib.Path, number: int, line: str, record: object) -> None:
    """Raises UserError for a record whose texts cannot be written: JSON can escape what is none."""
    if not any(sign in line for sign in ("\\u", "\\x", "\\0")):
        return
    text = json.dumps(record, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raw_lines.fail(
            path, number, f"the escape \\u{ord(text[error.start]):04x} is half a character"
        )
    if "\\u0000" in text:
        raw_lines.fail(path, number, "a NUL character, which no text holds")
