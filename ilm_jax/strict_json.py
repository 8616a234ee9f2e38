"""JSON objects of other people's files: one that says a thing twice must say the same."""

import json
from typing import Any

from ilm_jax.errors import UserError


def parse_object(data: bytes | str, what: str) -> dict[str, Any]:
    """A JSON object.

    Args:
      data: the text.
      what: the file, for messages.

    Raises:
      UserError: if it is none, or one key has two values that differ.
    """
    try:
        value = json.loads(data, object_pairs_hook=lambda pairs: _object(pairs, what))
    except RecursionError:
        raise UserError(f"{what} is JSON nested too deeply: is the download whole?") from None
    except ValueError as error:
        raise UserError(f"{what} is not JSON ({error}): download it again") from error
    if not isinstance(value, dict):
        raise UserError(f"{what} holds no JSON object")
    return value


def _object(pairs: list[tuple[str, Any]], what: str) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: dict[str, Any] = {}
        for key, value in pairs:
            if key in seen and not _same(seen[key], value):
                raise UserError(
                    f"{what} says {_short(key)} twice, {_short(seen[key])} and {_short(value)}: "
                    "delete one of them"
                )
            seen[key] = value
    return found


def _same(a: object, b: object) -> bool:
    """Equal, and of one type: true is not 1."""
    return a == b and type(a) is type(b)


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) < 60 else f"{text[:57]}…"
