"""From items and interactions as files have them to a catalogue."""

import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Int64

from ilm_jax.data.catalogue.catalogue import Catalogue, count_ties
from ilm_jax.data.formats import raw_lines, text_checks
from ilm_jax.data.formats.interaction_files import Interactions
from ilm_jax.data.formats.item_files import Item
from ilm_jax.errors import UserError


def from_sequences(
    name: str,
    version: str,
    sequences: Mapping[str, Sequence[str]],
    items: Mapping[str, Item] | None = None,
    *,
    source: str = "",
) -> Catalogue:
    """A catalogue of what users chose, without ratings or times: the least that a reader gives.

    Args:
      name: of the dataset.
      version: of its reader.
      sequences: raw ids of every user's items, oldest first.
      items: as `assemble`.
      source: what it was read from, for messages.

    Raises:
      UserError: as `assemble`.
    """
    users = [user for user, chosen in sequences.items() for _ in chosen]
    chosen = [item for each in sequences.values() for item in each]
    return assemble(
        name,
        version,
        Interactions(
            path=pathlib.Path(source or name),
            user=users,
            item=chosen,
            rating=np.full(len(users), np.nan, np.float32),
            timestamp=np.full(len(users), -1, np.int64),
            order=None,
            line=np.arange(1, len(users) + 1),
        ),
        items,
    )


def assemble(
    name: str,
    version: str,
    interactions: Interactions,
    items: Mapping[str, Item] | None = None,
    core: int = 0,
) -> Catalogue:
    """A catalogue of users in the order in which the file first names them.

    Args:
      name: of the dataset.
      version: of its builder.
      interactions: as read.
      items: by raw id; None: those of the interactions, with no more than their ids.
      core: users and items with fewer interactions are left out, iteratively; 0 keeps all, items
        without interactions too.

    Returns:
      extras: repeats (interactions with an item that the user has chosen before), left_out
      {"users", "items", "interactions"} by `core`, untimed (whether the file's order was taken).

    Raises:
      UserError: with file and line, if an interaction names no item; if nothing is left.
    """
    users, user_rows = _numbered(interactions.user)
    items, item_rows = _named_items(interactions, items)
    ids = list(items)
    keep = k_core(user_rows, item_rows, core)
    if not keep.any():
        raise UserError(f"{interactions.path}: nothing is left of it with core={core}")
    kept_users, kept_items = np.unique(user_rows[keep]), np.unique(item_rows[keep])
    rows = kept_items if core else np.arange(len(ids))
    gone = len(users) - len(kept_users), len(ids) - len(rows), int(np.sum(~keep))
    order = _time_order(interactions, user_rows, keep)
    user_rows, item_rows = user_rows[order], np.searchsorted(rows, item_rows[order])
    offsets = _offsets(np.searchsorted(kept_users, user_rows), len(kept_users))
    chosen = [items[ids[row]] for row in rows]
    described, titles = [item.described() for item in chosen], [item.title for item in chosen]
    text_checks.check(titles, [text for text, _ in described])
    timestamps = interactions.timestamp[order]
    return Catalogue(
        name=name,
        version=version,
        item_ids=[ids[row] for row in rows],
        titles=titles,
        texts=[text for text, _ in described],
        content=[spans for _, spans in described],
        categories=[list(item.categories) for item in chosen],
        user_ids=[users[row] for row in kept_users],
        offsets=offsets,
        items=item_rows.astype(np.int32),
        ratings=interactions.rating[order],
        timestamps=timestamps,
        ties=count_ties(offsets, timestamps),
        extras={
            "repeats": _repeats(user_rows, item_rows),
            "left_out": dict(zip(("users", "items", "interactions"), gone, strict=True)),
            "untimed": interactions.order is None,
        },
    )


def _offsets(users: Int64[np.ndarray, " rows"], count: int) -> Int64[np.ndarray, " bounds"]:
    counts = np.bincount(users, minlength=count)
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def _repeats(users: Int64[np.ndarray, " rows"], items: Int64[np.ndarray, " rows"]) -> int:
    """Interactions with an item that the user has chosen before."""
    pairs = np.stack([users, items], axis=1)
    return len(pairs) - len(np.unique(pairs, axis=0))


def k_core(
    users: Int64[np.ndarray, " rows"], items: Int64[np.ndarray, " rows"], core: int
) -> Bool[np.ndarray, " rows"]:
    """Which interactions remain when users and items with fewer than `core` are left out.

    Repeated until nothing changes (the iterative k-core of OpenP5, S3-Rec and others).
    """
    keep = np.ones(len(users), bool)
    while core > 0:
        before = int(keep.sum())
        for column in (users, items):
            keep &= np.bincount(column[keep], minlength=int(column.max()) + 1)[column] >= core
        if int(keep.sum()) == before:
            break
    return keep


def _named_items(
    interactions: Interactions, items: Mapping[str, Item] | None
) -> tuple[Mapping[str, Item], Int64[np.ndarray, " interactions"]]:
    """(the items, or without a file of them those of the interactions; each interaction's row)."""
    if items is None:
        ids, rows = _numbered(interactions.item)
        return {raw: Item(raw) for raw in ids}, rows
    place = {raw: row for row, raw in enumerate(items)}
    rows = np.array([place.get(raw, -1) for raw in interactions.item], np.int64)
    if (rows < 0).any():
        first = int(np.argmax(rows < 0))
        raw_lines.fail(
            interactions.path,
            int(interactions.line[first]),
            f"item {interactions.item[first]!r} is not in the file of items",
            "add it there, with its id alone if need be, or take the line out",
        )
    return items, rows


def _time_order(
    interactions: Interactions, users: Int64[np.ndarray, " rows"], keep: Bool[np.ndarray, " rows"]
) -> Int64[np.ndarray, " kept"]:
    """Numbers of the kept rows by user and time, ties in file order."""
    kept = np.flatnonzero(keep)
    keys = (users[kept],) if interactions.order is None else (interactions.order[kept], users[kept])
    return kept[np.lexsort(keys)]


def _numbered(values: list[str]) -> tuple[list[str], Int64[np.ndarray, " rows"]]:
    """Different values in the order of their first place, and the number of each value."""
    place: dict[str, int] = {}
    rows = np.array([place.setdefault(value, len(place)) for value in values], np.int64)
    return list(place), rows
