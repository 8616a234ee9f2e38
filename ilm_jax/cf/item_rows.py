"""Rows of the embedding table that hold a catalogue's items: what a head scores and ranks."""

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Int, Int64

from ilm_jax.cf.table_set import TableSet
from ilm_jax.errors import UserError


class ItemRows:
    """A catalogue's block of items in the embedding table; as text, for a run's record.

    Attributes:
      catalogue: its name.
      start: first row of the block.
      rows: of the block, those that are kept free included: they are zero, as are those of items
        without a vector.
      counts: how often each item was chosen in training, of as many items as there are.
    """

    def __init__(
        self, catalogue: str, start: int, rows: int, counts: Int64[np.ndarray, " items"]
    ) -> None:
        """See the attributes."""
        self.catalogue, self.start, self.rows, self.counts = catalogue, start, rows, counts

    def __str__(self) -> str:
        digest = hashlib.sha256(np.asarray(self.counts, "<i8").tobytes()).hexdigest()
        return f"{self.catalogue}: {self.rows} rows from {self.start}, counts {digest[:16]}"

    @property
    def items(self) -> int:
        """Items of the catalogue, those without a vector included."""
        return len(self.counts)


def item_rows(tables: TableSet, counts: Mapping[str, Int64[np.ndarray, " items"]]) -> tuple:
    """The items of every catalogue of the tables, with their training counts by catalogue."""
    found = []
    for catalogue, chosen in counts.items():
        block = tables.blocks[f"{catalogue}/item"]
        found.append(ItemRows(catalogue, block.start, block.capacity, chosen))
    return tuple(found)


def check_vectors(
    tables: TableSet,
    catalogue: str,
    counts: Int[np.ndarray, " items"],
    ids: Sequence[str],
) -> None:
    """Refuses to train on items that no vector stands for.

    Args:
      tables: the vectors.
      catalogue: name of the catalogue.
      counts: how often each item was chosen in training.
      ids: raw ids of the items.

    Raises:
      UserError: if an item that users chose in training has no vector.
    """
    rows = tables.rows(f"{catalogue}/item", np.arange(len(ids)))
    lacking = np.flatnonzero(tables.cold[rows] & (np.asarray(counts) > 0))
    if len(lacking):
        raise UserError(
            f"item {ids[lacking[0]]!r} of {catalogue} is to be predicted and has no vector in the "
            f"table ({len(lacking)} items that users chose in training have none): give CF_TABLE "
            "a table with a vector for each, such as `ilm fit_cf` writes"
        )
