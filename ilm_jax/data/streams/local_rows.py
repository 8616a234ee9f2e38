"""The entities of a batch: local rows of catalogues to rows of the embedding table."""

import numpy as np

from ilm_jax.data.examples.prompts import ITEM_SLOT, USER_SLOT
from ilm_jax.data.streams.item_targets import Rows
from ilm_jax.errors import UserError

_BLOCKS = {ITEM_SLOT: "item", USER_SLOT: "user"}


class LocalRows:
    """Entities of a batch, by catalogue and kind, mapped to global rows in few calls."""

    def __init__(self, batch: int, entities: int) -> None:
        self._shape = (batch, entities)
        self._found: dict[str, list[tuple[int, np.ndarray, np.ndarray]]] = {}
        self._next = [0] * batch

    def put(self, row: int, catalogue: str, kinds: np.ndarray, locals_: np.ndarray) -> None:
        """Row's entities in order of their slots."""
        self._next[row] = len(kinds)
        for kind, name in _BLOCKS.items():
            columns = np.flatnonzero(kinds == kind)
            if len(columns):
                entry = (row, columns, locals_[columns])
                self._found.setdefault(f"{catalogue}/{name}", []).append(entry)

    def put_item(self, row: int, catalogue: str, item: int) -> int:
        """One item more behind the row's entities; returns its number among them."""
        number = self._next[row]
        entry = (row, np.array([number]), np.array([item]))
        self._found.setdefault(f"{catalogue}/{_BLOCKS[ITEM_SLOT]}", []).append(entry)
        self._next[row] += 1
        return number

    def to_global(self, rows: Rows | None) -> np.ndarray:
        """Rows of the embedding table [batch, entities], -1 where a slot is empty."""
        entities = np.full(self._shape, -1, np.int32)
        for block, entries in self._found.items():
            if rows is None:
                raise UserError(f"a prompt has slots of {block}, but no embedding table is given")
            at = np.concatenate([np.full(len(columns), row) for row, columns, _ in entries])
            columns = np.concatenate([columns for _, columns, _ in entries])
            entities[at, columns] = rows(block, np.concatenate([found for *_, found in entries]))
        return entities
