"""Target texts that somebody wrote, by hand or with a language model.

One JSON object per line:
    {"task": "summary", "item_ids": ["1042"], "target": "…"}
    {"task": "user_profile", "user_id": "7", "target": "…"}
Raw ids, in the order of the task's prompt. Optional: "source", a short name of who wrote it, such
as a model's; it is kept with every example. A task of REGEN about one interaction gives "user_id"
and the item. A file that ends in `.json` is one object {item id: text} of long descriptions, an
empty one where an item has none.
"""

import dataclasses
import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from ilm_jax.data.formats import raw_lines
from ilm_jax.data.formats.json_lines import check_escapes, json_rows
from ilm_jax.errors import UserError

_KEYS = {"task", "item_ids", "user_id", "target", "source"}
Key = tuple[str, str, tuple[str, ...]]


@dataclasses.dataclass(frozen=True)
class Written:
    """A target and who wrote it."""

    target: str
    source: str


def read_texts(path: str, arity: Mapping[str, tuple[int, bool]]) -> dict[Key, Written]:
    """Targets by (task, raw user id or "", raw item ids).

    Args:
      path: the file.
      arity: (number of items, whether of a user) of every task that a file may name.

    Raises:
      UserError: with file and line, for anything that is not of the schema, or given twice.
    """
    file = pathlib.Path(path).expanduser()
    found: dict[Key, Written] = {}
    for line, record in _records(file):
        task, target = record.get("task"), record.get("target")
        if not isinstance(task, str) or task not in arity:
            raw_lines.fail(file, line, f"task {str(task)[:60]!r}", f"there are {', '.join(arity)}")
        unknown = [key for key in record if key not in _KEYS]
        if unknown:
            raw_lines.fail(file, line, f"key {unknown[0]!r}", f"keys are {sorted(_KEYS)}")
        ids = record.get("item_ids", [])
        user = record.get("user_id", "")
        count, of_user = arity[task]
        if not isinstance(ids, list) or not all(isinstance(raw, str) and raw for raw in ids):
            raw_lines.fail(file, line, "item_ids must be a list of ids as strings")
        if len(ids) != count or not isinstance(user, str) or bool(user) != of_user:
            named = f"{count} in item_ids" + (" and a user_id" if of_user else ", no user_id")
            raw_lines.fail(
                file, line, f"{task} with {len(ids)} items, user {user!r}", f"it takes {named}"
            )
        if not isinstance(target, str) or not target.strip():
            raw_lines.fail(file, line, "target must be a text")
        source = record.get("source", "file")
        if not isinstance(source, str) or not source:
            raw_lines.fail(file, line, "source must be a short name")
        key = (task, user, tuple(ids))
        if key in found:
            raw_lines.fail(file, line, f"{task} of {[user, *ids]} was given before")
        found[key] = Written(" ".join(target.split()), source)
    if not found:
        raise UserError(f"{file}: no texts in it")
    return found


def _records(file: pathlib.Path) -> Iterator[tuple[int, dict[str, Any]]]:
    if file.suffix != ".json":
        yield from json_rows(file)
        return
    text = raw_lines.whole_text(file)
    try:
        whole = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file}: not valid JSON ({error})") from error
    if not isinstance(whole, dict):
        raise UserError(f"{file}: a {type(whole).__name__} instead of {{item id: text}}")
    check_escapes(file, 1, text, whole)
    for raw, target in whole.items():
        if target == "":
            continue
        yield 1, {"task": "long_description", "item_ids": [raw], "target": target}
