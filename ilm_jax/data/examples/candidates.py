"""Lists of candidates to rank: drawn by hash, and the file that fixes them.

File format "ilm_jax.candidates/1", JSON lines. The first line is an object of its own:

    format             "ilm_jax.candidates/1"
    catalogue          dataset name, such as "movielens/1m"
    split_fingerprint  of the split whose targets the lists hold
    settings           how they were drawn

Every other line is one list, {"user", "split", "candidates"} with raw ids, in the order in which a
prompt names them, the right item among them; every user of validation and test has one. A file
without the first line, of somebody else's lists, is read too.
"""

import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from ilm_jax.data import draws
from ilm_jax.data.catalogue.made_from import check_made_from
from ilm_jax.data.catalogue.splits import Splits
from ilm_jax.data.examples.negatives import draw_negatives
from ilm_jax.data.formats import raw_lines
from ilm_jax.data.formats.json_lines import json_rows
from ilm_jax.errors import UserError
from ilm_jax.files import atomic_write

FORMAT = "ilm_jax.candidates/1"
_REMAKE = "make it again with `ilm candidates`"

# (split, user row) -> item rows; for targets, -> the right item's row.
Lists = dict[tuple[str, int], list[int]]
Targets = dict[tuple[str, int], int]


def targets_of(splits: Splits) -> Targets:
    """The right item of every (split, user row) that has one, of validation and test."""
    found = {}
    of = {"validation": splits.valid_target, "test": splits.test_target}
    for split, target in of.items():
        for user in range(splits.catalogue.num_users):
            pair = target(user)
            if pair is not None:
                found[split, user] = pair[1]
    return found


def draw_candidates(
    splits: Splits,
    user: int,
    target: int,
    count: int,
    *keys: draws.Key,
    by: str = "uniform",
    may_be_held_out: bool = False,
) -> list[int]:
    """The target and `count` - 1 negatives in a drawn order, a pure function of the keys.

    Args:
      splits: of the catalogue.
      user: row.
      target: item row.
      count: how many.
      *keys: of the draws.
      by: "uniform", or "popularity": likelier the more often they were chosen in training.
      may_be_held_out: only the user's training items are ruled out.

    Raises:
      UserError: if the catalogue has too few other items.
    """
    if by == "popularity":
        others = _popular(splits, user, count - 1, *keys, may_be_held_out=may_be_held_out)
    else:
        others = draw_negatives(splits, user, count - 1, *keys, may_be_held_out=may_be_held_out)
    return sorted([target, *others], key=lambda row: draws.uniform(*keys, "place", row))


def _popular(
    splits: Splits, user: int, count: int, *keys: draws.Key, may_be_held_out: bool
) -> list[int]:
    """Without replacement, in proportion to training counts (Efraimidis & Spirakis 2006)."""
    catalogue = splits.catalogue
    weights = splits.train_counts().astype(np.float64)
    weights[splits.train_sequence(user) if may_be_held_out else catalogue.sequence(user)] = 0
    chosen = np.flatnonzero(weights)
    if len(chosen) < count:
        raise UserError(
            f"{catalogue.name}: user {catalogue.user_ids[user]!r} leaves {len(chosen)} items that "
            f"others chose, {count} are wanted: lower candidates"
        )
    waits = -np.log1p(-draws.uniforms(catalogue.num_items, *keys, "popular"))[chosen]
    return chosen[np.argsort(waits / weights[chosen], kind="stable")[:count]].tolist()


def draw_all(
    splits: Splits, count: int, *, seed: int, by: str, may_be_held_out: bool = False
) -> Lists:
    """A list for every target of validation and test; see `draw_candidates`.

    A user's list is the same whoever else there is.
    """
    users = splits.catalogue.user_ids
    return {
        (split, user): draw_candidates(
            splits,
            user,
            target,
            count,
            *(seed, "candidates", by, split, users[user]),
            by=by,
            may_be_held_out=may_be_held_out,
        )
        for (split, user), target in targets_of(splits).items()
    }


def write_candidates(
    path: str | os.PathLike, splits: Splits, lists: Lists, settings: Mapping[str, Any]
) -> None:
    """Writes the file atomically; `settings` say how the lists were drawn."""
    catalogue = splits.catalogue
    header = {
        "format": FORMAT,
        "catalogue": catalogue.name,
        "split_fingerprint": splits.fingerprint,
        "settings": dict(settings),
    }
    with atomic_write(path) as stream:
        stream.write(json.dumps(header, ensure_ascii=False) + "\n")
        for (split, user), rows in lists.items():
            names = [catalogue.item_ids[row] for row in rows]
            line = {"user": catalogue.user_ids[user], "split": split, "candidates": names}
            stream.write(json.dumps(line, ensure_ascii=False) + "\n")


def read_candidates(path: str | os.PathLike, splits: Splits, targets: Targets) -> Lists:
    """Lists of a file, by (split, user row).

    Args:
      path: the file.
      splits: of the catalogue that its ids belong to.
      targets: the right item of every (split, user row) that needs a list.

    Raises:
      UserError: if the file says that it is of another format, catalogue or split; with file and
        line, for an unknown id, a list given twice, with a repeat or without the right item; if a
        user has none.
    """
    catalogue = splits.catalogue
    user_row = catalogue.user_row
    found: Lists = {}
    file = pathlib.Path(path).expanduser()
    for line, record in json_rows(file):
        if line == 1 and "format" in record:
            _check_header(file, record, splits)
            continue
        key = (record.get("split"), user_row.get(str(record.get("user")), -1))
        if key not in targets:
            raw_lines.fail(file, line, f"user {record.get('user')!r} of split {key[0]!r}: no such")
        rows = _rows(file, line, record.get("candidates"), splits)
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
            f"{len(missing) - 1} more; {_REMAKE}"
        )
    return found


def _rows(file: pathlib.Path, line: int, raws: object, splits: Splits) -> list[int]:
    known = splits.catalogue.item_row
    if not isinstance(raws, list) or not all(isinstance(raw, str) for raw in raws):
        raw_lines.fail(file, line, "candidates must be a list of item ids as strings")
    unknown = [raw for raw in raws if raw not in known]
    if unknown:
        raw_lines.fail(file, line, f"item {unknown[0]!r} is not in the catalogue")
    return [known[raw] for raw in raws]


def _check_header(file: pathlib.Path, header: Mapping[str, Any], splits: Splits) -> None:
    if header["format"] != FORMAT:
        raw_lines.fail(file, 1, f"format {header['format']!r} instead of {FORMAT!r}; {_REMAKE}")
    made = str(header.get("catalogue")), str(header.get("split_fingerprint"))
    check_made_from(file, made[0], {}, made[1], splits, _REMAKE)
