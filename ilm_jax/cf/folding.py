"""A table for a catalogue that has grown: its vectors stay, and whoever has joined is folded in."""

import dataclasses
import os
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32, Int

from ilm_jax.cf.ials import IALSConfig, fold_in
from ilm_jax.cf.interactions import Interactions
from ilm_jax.cf.table import EmbeddingTable
from ilm_jax.data.catalogue.splits import Splits
from ilm_jax.errors import UserError


def extended_table(splits: Splits, path: str | os.PathLike) -> EmbeddingTable:
    """The table of an iALS fit with rows for the items and users that have joined since.

    A new item is solved for from the known users who chose it in training, then a new user from the
    training interactions, as the fit would with all others fixed (`ials.fold_in`); the others' rows
    are those of the file, bit for bit. Who has nothing to go by is cold.

    Args:
      splits: of the catalogue as it is now, those that were there first.
      path: of the table.

    Raises:
      UserError: if the table is of another catalogue, of another method, or its rows are not the
        catalogue's first.
    """
    old, catalogue = EmbeddingTable.load(path), splits.catalogue
    if old.catalogue != catalogue.name:
        raise UserError(f"{path}: is of {old.catalogue}, not of {catalogue.name}")
    if old.settings.get("method") != "ials":
        raise UserError(
            f"{path}: only vectors of iALS are folded in, these are of "
            f"{old.settings.get('method')!r}: give vectors as they are by --item_vectors"
        )
    both = {"item": (old.item_ids, catalogue.item_ids), "user": (old.user_ids, catalogue.user_ids)}
    for kind, (before, now) in both.items():
        if (wrong := _differing(before, now)) is not None:
            there = repr(now[wrong]) if wrong < len(now) else "none"
            raise UserError(
                f"{path}: row {wrong} is {kind} {before[wrong]!r}, catalogue: {there}; who joins "
                "stands behind the others"
            )
    names = {field.name for field in dataclasses.fields(IALSConfig)}
    config = IALSConfig(**{name: v for name, v in old.settings.items() if name in names})
    users, items = splits.train_interactions()
    item = _joined(old.item, items, users, old.user, catalogue.num_items, config)
    user = _joined(old.user, users, items, item, catalogue.num_users, config)
    return EmbeddingTable.of(splits, item, user, old.settings)


def _differing(before: Sequence[str], now: Sequence[str]) -> int | None:
    """The first row that is not the same; None if all of `before` are there."""
    return next((n for n, one in enumerate(before) if list(now[n : n + 1]) != [one]), None)


def _joined(
    known: Float32[np.ndarray, "known dim"],
    rows: Int[np.ndarray, " pairs"],
    others: Int[np.ndarray, " pairs"],
    vectors: Float32[np.ndarray, "others dim"],
    total: int,
    config: IALSConfig,
) -> Float32[np.ndarray, "total dim"]:
    """The known rows, and behind them those that `others` of `vectors` are solved for."""
    count = total - len(known)
    found = np.zeros((count, known.shape[1]), np.float32)
    new = (rows >= len(known)) & (others < len(vectors))
    if new.any():
        pairs = rows[new] - len(known), others[new]
        found = fold_in(Interactions.from_pairs(*pairs, count, len(vectors)), vectors, config)
    return np.concatenate([known, found])
