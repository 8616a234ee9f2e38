"""The entities of a batch: local rows of catalogues to rows of the embedding table."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, Int32

from ilm_jax.data.examples.prompts import ITEM_SLOT, USER_SLOT
from ilm_jax.data.streams.item_targets import Rows
from ilm_jax.errors import UserError

_BLOCKS = {ITEM_SLOT: "item", USER_SLOT: "user"}


class Entities(NamedTuple):
    """Entities that the rows of a batch hold.

    Attributes:
      row: of the batch.
      number: which of its row's.
      kind: ITEM_SLOT or USER_SLOT.
      local: row of the catalogue.
    """

    row: Int[np.ndarray, " found"]
    number: Int[np.ndarray, " found"]
    kind: Int[np.ndarray, " found"]
    local: Int[np.ndarray, " found"]


def global_rows(
    parts: Sequence[Entities], catalogues: Sequence[str], most: int, rows: Rows | None
) -> Int32[np.ndarray, "batch entities"]:
    """Rows of the embedding table, -1 where a batch's row has no further entity.

    Args:
      parts: the entities.
      catalogues: that of each row of the batch.
      most: entities of a row.
      rows: (block, local rows) -> global rows; None where there is no table.

    Raises:
      UserError: if there are entities, and no table.
    """
    entities = np.full((len(catalogues), most), -1, np.int32)
    found = Entities(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
    of = np.array(catalogues)[found.row]
    for catalogue in np.unique(of):
        for kind, name in _BLOCKS.items():
            here = np.flatnonzero((found.kind == kind) & (of == catalogue))
            if not len(here):
                continue
            block = f"{catalogue}/{name}"
            if rows is None:
                raise UserError(f"a prompt has slots of {block}, but no embedding table is given")
            entities[found.row[here], found.number[here]] = rows(block, found.local[here])
    return entities


def before(
    counts: Int[np.ndarray, " entries"], rows: Int[np.ndarray, " entries"]
) -> Int[np.ndarray, " entries"]:
    """Sum of the counts of the entries in front of each in its row.

    Args:
      counts: of each entry.
      rows: which row it is in, ascending.
    """
    total = np.cumsum(counts) - counts
    return total - total[np.searchsorted(rows, rows)]
