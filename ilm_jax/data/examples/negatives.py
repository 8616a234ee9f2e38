"""Items that a user has not chosen, drawn by hash."""

import pathlib

from ilm_jax.data import draws
from ilm_jax.data.catalogue.splits import Splits
from ilm_jax.data.formats import raw_lines
from ilm_jax.data.formats.json_lines import json_rows
from ilm_jax.errors import UserError


def draw_negatives(
    splits: Splits, user: int, count: int, *keys: draws.Key, may_be_held_out: bool = False
) -> list[int]:
    """Different item rows that are none of the user's, a pure function of the keys.

    Args:
      splits: of the catalogue.
      user: row.
      count: how many.
      *keys: of the draw.
      may_be_held_out: only the user's training items are ruled out.

    Raises:
      UserError: if the catalogue has too few other items.
    """
    catalogue = splits.catalogue
    own = splits.train_sequence(user) if may_be_held_out else catalogue.sequence(user)
    taken = set(own.tolist())
    if catalogue.num_items - len(taken) < count:
        raise UserError(
            f"{catalogue.name}: user {catalogue.user_ids[user]!r} leaves "
            f"{catalogue.num_items - len(taken)} other items, {count} are wanted: lower candidates"
        )
    found: list[int] = []
    attempt = 0
    while len(found) < count:
        item = draws.integer(catalogue.num_items, *keys, "negative", attempt)
        attempt += 1
        if item not in taken:
            taken.add(item)
            found.append(item)
    return found


def read_candidates(
    path: str, splits: Splits, targets: dict[tuple[str, int], int]
) -> dict[tuple[str, int], list[int]]:
    """Lists of a file of JSON lines {"user", "split", "candidates"}, by (split, user row).

    Args:
      path: the file.
      splits: of the catalogue that its ids belong to.
      targets: the right item of every (split, user row) that needs a list.

    Raises:
      UserError: with file and line, for an unknown id, a list given twice, with a repeat or
        without the right item; if a user has none.
    """
    catalogue = splits.catalogue
    user_row = {raw: row for row, raw in enumerate(catalogue.user_ids)}
    found: dict[tuple[str, int], list[int]] = {}
    file = pathlib.Path(path).expanduser()
    for line, record in json_rows(file):
        raws = record.get("candidates")
        key = (record.get("split"), user_row.get(str(record.get("user")), -1))
        if key not in targets:
            raw_lines.fail(file, line, f"user {record.get('user')!r} of split {key[0]!r}: no such")
        if not isinstance(raws, list) or not all(isinstance(raw, str) for raw in raws):
            raw_lines.fail(file, line, "candidates must be a list of item ids as strings")
        unknown = [raw for raw in raws if raw not in catalogue.item_row]
        if unknown:
            raw_lines.fail(file, line, f"item {unknown[0]!r} is not in the catalogue")
        rows = [catalogue.item_row[raw] for raw in raws]
        if key in found or len(set(rows)) < len(rows) or targets[key] not in rows:
            raw_lines.fail(
                file, line, "a list given twice, with a repeat or without the right item"
            )
        found[key] = rows
    missing = [key for key in targets if key not in found]
    if missing:
        split, user = missing[0]
        raise UserError(
            f"{file}: no candidates for user {catalogue.user_ids[user]!r} of split {split!r}, and "
            f"{len(missing) - 1} more"
        )
    return found
