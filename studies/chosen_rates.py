"""Learning rates that were chosen on validation items, kept beside the receipts of their rows."""

import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ilm_jax.errors import UserError
from ilm_jax.files import atomic_write

MadeFrom = Mapping[str, str]
# Of rows: each row's lowest validation loss at every rate.
Search = Callable[[Sequence[str]], Mapping[str, Mapping[float, float]]]


def chosen(
    path: pathlib.Path,
    rows: Mapping[str, MadeFrom],
    grid: Sequence[float],
    search: Search | None,
) -> dict[str, float]:
    """Each row's rate, by the lowest validation loss; what is not kept in the file is searched.

    Args:
      path: of the file.
      rows: {row: what its rate is chosen for}.
      grid: the rates.
      search: trains rows at all of these; None takes what is there, whatever it was chosen for.

    Raises:
      UserError: if the file is damaged, a rate was chosen for something else, or there is none and
        nothing searches.
    """
    record = _read(path)
    if search is not None:
        for row, made_from in rows.items():
            if row in record:
                _check(path, row, record[row], made_from)
    missing = [row for row in rows if not _has(record.get(row), grid)]
    if missing and search is None:
        raise UserError(f"{path} has no rate for {missing[0]}: seed 0 chooses it, so run it first")
    if missing and search is not None:
        for row, losses in search(missing).items():
            found: dict[str, Any] = {"rate": min(losses, key=losses.__getitem__)}
            found |= {f"{rate:g}": loss for rate, loss in losses.items()}
            record[row] = {**found, "made_from": dict(rows[row])}
        with atomic_write(path) as stream:
            json.dump(record, stream, indent=1)
            stream.write("\n")
    return {row: record[row]["rate"] for row in rows}


def _read(path: pathlib.Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        if any(not isinstance(found["rate"], float) for found in record.values()):
            raise ValueError("a rate that is no number")
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        raise UserError(f"{path} holds no rates ({error}): delete it to have them chosen") from None
    return record


def _has(found: Mapping[str, Any] | None, grid: Sequence[float]) -> bool:
    return found is not None and found.keys() >= {f"{rate:g}" for rate in grid}


def _check(path: pathlib.Path, row: str, found: Mapping[str, Any], made_from: MadeFrom) -> None:
    before = found.get("made_from", {})
    other = [name for name in {**before, **made_from} if before.get(name) != made_from.get(name)]
    if other:
        raise UserError(
            f"{path}: the rate of {row} was chosen for another {', '.join(other)}: delete its "
            "entry to have it chosen anew"
        )
