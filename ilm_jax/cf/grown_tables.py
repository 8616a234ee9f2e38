"""Tables that others have joined since a model was trained: the trained rows first, and more."""

from collections.abc import Mapping, Sequence
from typing import Any

from ilm_jax.cf.table import EmbeddingTable
from ilm_jax.cf.table_set import TableSet


def grown_since(
    record: Mapping[str, Any] | None, tables: Sequence[EmbeddingTable], now: TableSet | None
) -> TableSet | None:
    """The tables as a trained model reads them; None unless they extend those it was trained with.

    Their first rows are the trained ones bit for bit, in the order and at the scale of training;
    what came behind is scaled as these are. As many rows can join as the blocks keep free.

    Args:
      record: of the run (checkpoints/record.py).
      tables: as their files have them.
      now: the same, stacked.
    """
    rows = (record or {}).get("table_rows")
    if not rows or now is None or set(rows) != set(now.blocks):
        return None
    if now.sizes == rows or any(now.sizes[name] < rows[name] for name in rows):
        return None
    found = TableSet(*tables, normalise=now.normalise, known=rows)
    return found if found.fingerprint_of(rows) == (record or {}).get("table") else None


def joined(record: Mapping[str, Any], tables: TableSet) -> list[str]:
    """How much has joined which block, for people."""
    rows = record["table_rows"]
    return [f"{n - rows[name]} of {name}" for name, n in tables.sizes.items() if n > rows[name]]
