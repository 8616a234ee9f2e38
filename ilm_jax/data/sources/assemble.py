"""From items and interactions as files have them to a catalogue."""

import pathlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Int32, Int64

from ilm_jax.data import spill
from ilm_jax.data.catalogue.catalogue import Catalogue
from ilm_jax.data.catalogue.strings import Lists, Strings
from ilm_jax.data.catalogue.text_builders import ListsBuilder, TextsBuilder
from ilm_jax.data.formats import raw_lines, text_checks
from ilm_jax.data.formats.coded import Coded
from ilm_jax.data.formats.interaction_files import Interactions
from ilm_jax.data.formats.items import Item, ItemTable
from ilm_jax.data.sources.ordering import Columns, arrange, k_core
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
    users, chosen = Coded.of(interactions.user), Coded.of(interactions.item)
    table = ItemTable.of_ids(chosen.values) if items is None else ItemTable.of(items)
    item_rows = chosen.codes if items is None else _named(interactions, chosen, table)
    columns = Columns(
        users.codes, item_rows, interactions.rating, interactions.timestamp, interactions.order
    )
    kept = _kept(columns, len(users.values), len(table), core)
    if kept is None:
        raise UserError(f"{interactions.path}: nothing is left of it with core={core}")
    keep, kept_users, kept_items = kept
    new_users = _new_rows(kept_users, len(users.values))
    new_items = _new_rows(kept_items, len(table))
    found = arrange(columns, len(kept_items), new_users, new_items, keep)
    before = len(users.values), len(table), len(item_rows)
    after = len(kept_users), len(kept_items), len(found.items)
    kinds = ("users", "items", "interactions")
    gone = {kind: n - m for kind, n, m in zip(kinds, before, after, strict=True)}
    titles, texts, content, categories = _described(table, kept_items)
    text_checks.check(titles, texts)
    return Catalogue(
        name=name,
        version=version,
        item_ids=_taken(table.ids, kept_items),
        titles=titles,
        texts=texts,
        content=content,
        categories=categories,
        user_ids=_taken(users.values, kept_users),
        offsets=found.offsets,
        items=found.items,
        ratings=found.ratings,
        timestamps=found.timestamps,
        ties=found.ties,
        extras={"repeats": found.repeats, "left_out": gone, "untimed": interactions.order is None},
    )


def _kept(
    columns: Columns, users: int, items: int, core: int
) -> "tuple[Bool[np.ndarray, ' rows'] | None, np.ndarray, np.ndarray] | None":
    """(which interactions remain, or None for all; which users; which items); None for nothing."""
    keep = k_core(columns.users, columns.items, core) if core else None
    if not len(columns.users) or (keep is not None and not keep.any()):
        return None
    kept_users = np.flatnonzero(spill.counted(columns.users, users, keep))
    every = np.arange(items)
    kept_items = np.flatnonzero(spill.counted(columns.items, items, keep)) if core else every
    return keep, kept_users, kept_items


def _new_rows(kept: Int64[np.ndarray, " kept"], size: int) -> Int32[np.ndarray, " size"]:
    """The row among those that are kept of each that there was; of the others anything."""
    rows = np.zeros(size, np.int32)
    rows[kept] = np.arange(len(kept))
    return rows


def _taken(ids: Sequence[str], rows: Int64[np.ndarray, " kept"]) -> Sequence[str]:
    if len(rows) == len(ids):
        return ids
    return ids.take(rows) if isinstance(ids, Strings) else [ids[row] for row in rows.tolist()]


def _described(
    items: ItemTable, rows: Int64[np.ndarray, " kept"]
) -> tuple[Strings, Strings, Lists[tuple[int, int]], Lists[str]]:
    """(titles, texts, spans of the texts that carry information, categories) of some items."""
    titles, texts, categories = TextsBuilder(), TextsBuilder(), ListsBuilder()

    def spans() -> Iterator[list[tuple[int, int]]]:
        """Each item's spans; what else it has goes to the columns."""
        for row in rows.tolist():
            item = items.at(row)
            text, found = item.described()
            titles.append(item.title)
            texts.append(text)
            categories.append(item.categories)
            yield found

    content = Lists.of_pairs(spans())
    return titles.done(), texts.done(), content, categories.done()


def _named(
    interactions: Interactions, chosen: Coded, items: ItemTable
) -> Int32[np.ndarray, " interactions"]:
    """The item of each interaction."""
    rows = (items.place.get(raw, -1) for raw in chosen.values)
    place = np.fromiter(rows, np.int32, len(chosen.values))
    found = spill.mapped(chosen.codes, place)
    if (place < 0).any():
        first = int(np.argmax(found < 0))
        raw_lines.fail(
            interactions.path,
            int(interactions.line[first]),
            f"item {chosen[first]!r} is not in the file of items",
            "add it there, with its id alone if need be, or take the line out",
        )
    return found
