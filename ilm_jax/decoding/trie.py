"""Tries of catalogues' token sequences as device arrays (CSR), for masks inside a compiled step.

Nodes stand in breadth-first order, so the children of a node are neighbours; leaves are numbered
in the order of their sequences, so the leaves below a node are neighbours too. The latter is what
makes exclusion cheap: how many of a user's excluded leaves lie below a node is the difference of
two binary searches in the user's sorted list, and no node needs anything per user.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, Int32, PyTree
from numpy.typing import ArrayLike

from ilm_jax.errors import UserError


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Trie:
    """One or several catalogues' strings; every row of a batch names the one that it searches.

    Attributes:
      token: token on the edge into each node; 0 for roots.
      first_child, num_children: of each node; no child exactly at the leaves.
      low, high: the leaves below each node are those from low to high - 1.
      leaf_items: item rows that share each leaf, ascending, -1 behind them.
      item_leaves: leaves of each item of each catalogue, -1 behind them.
      item_base: where each catalogue starts in `item_leaves`.
      stem: the tokens that all strings of a catalogue begin with, of all catalogues equally many.
      start: the node at the end of each catalogue's stem.
      items: number of items of each catalogue.
      open_nodes: at each depth below the stem, 0 first, the number of nodes with children (the most
        of any catalogue).
      widths: at each depth below the stem, 0 first, the largest number of children.
    """

    token: Int32[Array, " nodes"]
    first_child: Int32[Array, " nodes"]
    num_children: Int32[Array, " nodes"]
    low: Int32[Array, " nodes"]
    high: Int32[Array, " nodes"]
    leaf_items: Int32[Array, "leaves sharing"]
    item_leaves: Int32[Array, "items codes"]
    item_base: Int32[Array, " catalogues"]
    stem: Int32[Array, "catalogues stem"]
    start: Int32[Array, " catalogues"]
    items: tuple[int, ...] = dataclasses.field(metadata={"static": True})
    open_nodes: tuple[int, ...] = dataclasses.field(metadata={"static": True})
    widths: tuple[int, ...] = dataclasses.field(metadata={"static": True})

    @property
    def depth(self) -> int:
        """Length of the longest string."""
        return self.stem.shape[1] + len(self.widths)

    @property
    def num_items(self) -> int:
        """Items of the smallest catalogue: lists cannot be longer."""
        return min(self.items)

    @property
    def num_leaves(self) -> int:
        """Distinct strings of all catalogues."""
        return self.leaf_items.shape[0]


def build_trie(
    sequences: Sequence[Sequence[int]],
    names: Sequence[str] | None = None,
    *,
    items: Sequence[int] | None = None,
    share: bool = False,
) -> Trie:
    """The trie of a catalogue's strings; string k stands for item row k.

    Scores are per item. An item with several strings (codes) has the sum of their probabilities;
    items that share a string have its score each, and tie: lists name them in order of their rows.

    Args:
      sequences: token ids of every string, end token included.
      names: what to call the strings in messages; their rows if None.
      items: item row of each string, from 0 without gaps, where items have several.
      share: let items share a string; refused otherwise, since a search cannot tell them apart.

    Raises:
      UserError: if there is no sequence, one is empty or begins another, or two are equal and may
        not be shared.
    """

    def name(row: int) -> str:
        """How messages call an item."""
        return f"item {row if names is None else names[row]}"

    if not len(sequences):
        raise UserError("no items to decode: the catalogue is empty")
    rows = np.arange(len(sequences)) if items is None else np.asarray(items, np.int64)
    if rows.shape != (len(sequences),) or sorted(set(rows.tolist())) != list(range(max(rows) + 1)):
        raise UserError("build_trie: items must give every sequence a row, from 0 without gaps")
    lengths = np.array([len(sequence) for sequence in sequences], np.int64)
    if (lengths == 0).any():
        raise UserError(f"{name(int(np.argmin(lengths)))} has an empty token sequence")
    padded = np.full((len(sequences), int(lengths.max())), -1, np.int32)
    padded[np.arange(padded.shape[1]) < lengths[:, None]] = np.concatenate(sequences)
    order = np.lexsort((rows, *padded.T[::-1]))
    padded, lengths = padded[order], lengths[order]
    # Padding sorts first, so a sequence that begins another stands directly before such a one.
    starts = (padded[1:] == padded[:-1]) | (np.arange(padded.shape[1]) >= lengths[:-1, None])
    starts = starts.all(axis=1)
    equal = starts & (lengths[1:] == lengths[:-1])
    clash = np.flatnonzero(starts & ~(equal & share))
    if len(clash):
        short, long = int(order[clash[0]]), int(order[clash[0] + 1])
        verb = "equal" if equal[clash[0]] else "begin"
        raise UserError(
            f"the tokens of {name(short)} {verb} those of {name(long)} ({len(clash)} such pairs): "
            "decoding cannot tell them apart; end sequences with eos and make targets unique"
        )
    fresh = np.concatenate([[True], ~equal])
    leaf_of = np.empty(len(sequences), np.int64)
    leaf_of[order] = np.cumsum(fresh) - 1
    # A code that an item has twice is one code.
    pairs = np.unique(np.stack([leaf_of, rows], axis=1), axis=0)
    leaf_items = _lists(pairs[:, 0], pairs[:, 1], int(fresh.sum()))
    item_leaves = _lists(pairs[:, 1], pairs[:, 0], int(rows.max()) + 1)
    return _from_sorted(padded[fresh], lengths[fresh], leaf_items, item_leaves)


def _lists(keys: np.ndarray, values: np.ndarray, size: int) -> np.ndarray:
    """Values of every key as rows, -1 behind them."""
    order = np.lexsort((values, keys))
    keys, values = keys[order], values[order]
    counts = np.bincount(keys, minlength=size)
    column = np.arange(len(keys)) - np.repeat(np.cumsum(counts) - counts, counts)
    lists = np.full((size, int(counts.max())), -1, np.int32)
    lists[keys, column] = values
    return lists


def _from_sorted(
    padded: np.ndarray, lengths: np.ndarray, leaf_items: np.ndarray, item_leaves: np.ndarray
) -> Trie:
    """Nodes level by level: sorted rows with an equal prefix are one run, and one node."""
    rows = np.arange(len(padded))
    parent_of = np.zeros(len(padded), np.int64)  # node of each row's prefix so far
    token, low, high = [np.zeros(1, int)], [np.zeros(1, int)], [np.full(1, len(padded))]
    first, count, bounds = [np.zeros(1, int)], [np.zeros(1, int)], [0, 1]
    for depth in range(padded.shape[1]):
        rows = rows[lengths[rows] > depth]
        tokens, parents = padded[rows, depth], parent_of[rows]
        fresh = np.ones(len(rows), bool)
        fresh[1:] = (tokens[1:] != tokens[:-1]) | (parents[1:] != parents[:-1])
        runs = np.flatnonzero(fresh)
        token.append(tokens[runs])
        low.append(rows[runs])
        high.append(rows[np.append(runs[1:], len(rows)) - 1] + 1)
        first.append(np.zeros(len(runs), int))
        count.append(np.zeros(len(runs), int))
        unique, starts, counts = np.unique(parents[runs], return_index=True, return_counts=True)
        first[-2][unique - bounds[-2]] = bounds[-1] + starts
        count[-2][unique - bounds[-2]] = counts
        parent_of[rows] = bounds[-1] + np.cumsum(fresh) - 1
        bounds.append(bounds[-1] + len(runs))
    open_nodes = [int((level > 0).sum()) for level in count]
    stem = 0
    while len(count[stem]) == 1 and count[stem][0] == 1 and open_nodes[stem + 1]:
        stem += 1
    arrays = (np.concatenate(levels) for levels in (token, first, count, low, high))
    return _trie(
        *arrays,
        leaf_items,
        item_leaves,
        [0],
        stem=padded[:1, :stem],
        start=[bounds[stem]],
        items=(len(item_leaves),),
        open_nodes=tuple(open_nodes[stem:-1]),
        widths=tuple(int(level.max()) for level in count[stem:-1]),
    )


def _trie(*arrays: ArrayLike, stem: ArrayLike, start: ArrayLike, **static: Any) -> Trie:
    put: PyTree[Array] = [jnp.asarray(array, jnp.int32) for array in (*arrays, stem, start)]
    return Trie(*put, **static)


def join_tries(tries: Sequence[Trie]) -> Trie:
    """Several catalogues in one trie, numbered in this order.

    Item rows stay those of each catalogue.

    Raises:
      UserError: if there is none.
    """
    if not tries:
        raise UserError("join_tries: no catalogue is given")
    parts = [part for trie in tries for part in _single(trie)]
    stem = min(part.stem.shape[1] for part in parts)
    parts = [_shorten(part, stem) for part in parts]
    nodes = np.cumsum([0] + [len(part.token) for part in parts])
    leaves = np.cumsum([0] + [part.num_leaves for part in parts])
    items = np.cumsum([0] + [len(part.item_leaves) for part in parts])

    def joined(name: str, shifts: np.ndarray | None = None) -> np.ndarray:
        """One array of all tries, node numbers shifted; -1 stays "none"."""
        found = [np.asarray(getattr(part, name)) for part in parts]
        width = max(array.shape[1] if array.ndim > 1 else 0 for array in found)
        for i, array in enumerate(found):
            if shifts is not None:
                array = np.where(array < 0, -1, array + shifts[i])
            if array.ndim > 1:
                room = ((0, 0), (0, width - array.shape[1]))
                array = np.pad(array, room, constant_values=-1)
            found[i] = array
        return np.concatenate(found)

    levels = max(len(part.widths) for part in parts)

    def most(name: str) -> tuple[int, ...]:
        """The largest of the tries' values at each level."""
        rows = [getattr(part, name) for part in parts]
        return tuple(max((r[d] for r in rows if d < len(r)), default=0) for d in range(levels))

    return _trie(
        joined("token"),
        joined("first_child", nodes),
        joined("num_children"),
        joined("low", leaves),
        joined("high", leaves),
        joined("leaf_items"),
        joined("item_leaves", leaves),
        items[:-1],
        stem=joined("stem"),
        start=joined("start", nodes),
        items=tuple(size for part in parts for size in part.items),
        open_nodes=most("open_nodes"),
        widths=most("widths"),
    )


def _single(trie: Trie) -> list[Trie]:
    if len(trie.items) > 1:
        raise UserError("join_tries: give tries of one catalogue each")
    return [trie]


def _shorten(trie: Trie, stem: int) -> Trie:
    """The same trie with a shorter stem; the rest of it becomes levels."""
    extra = trie.stem.shape[1] - stem
    if not extra:
        return trie
    # Above the end of a stem every level is one node: a node's number is its depth.
    return dataclasses.replace(
        trie,
        stem=trie.stem[:, :stem],
        start=jnp.full_like(trie.start, stem),
        open_nodes=(1,) * extra + trie.open_nodes,
        widths=(1,) * extra + trie.widths,
    )


def closed_leaves(
    trie: Trie,
    excluded: Int[Array, "batch excluded"],
    catalogue: Int[Array, " batch"],
) -> Int32[Array, "batch closed"]:
    """Leaves that are no candidates for each row, ascending; the number of leaves behind them.

    A leaf that several items share is closed when all of them are excluded.

    Args:
      trie: of the catalogues.
      excluded: item rows, in any order and with repeats; negative ones are none.
      catalogue: which catalogue each row searches.
    """
    limit = trie.num_leaves
    items = jnp.sort(excluded, axis=1)
    repeats = jnp.pad(items[:, 1:] == items[:, :-1], ((0, 0), (1, 0)))
    real = (items >= 0) & ~repeats & (items < jnp.asarray(trie.items)[catalogue][:, None])
    rows = jnp.where(real, items + trie.item_base[catalogue][:, None], 0)
    leaves = jnp.where(real[..., None], trie.item_leaves[rows], -1)
    leaves = jnp.where(leaves < 0, limit, leaves).reshape(len(excluded), -1)
    leaves = jnp.sort(leaves, axis=1)
    if trie.leaf_items.shape[1] > 1:
        sharing = jnp.sum(trie.leaf_items >= 0, axis=1)
        times = _below(leaves, leaves + 1) - _below(leaves, leaves)
        first = jnp.pad(leaves[:, 1:] != leaves[:, :-1], ((0, 0), (1, 0)), constant_values=True)
        gone = first & (times == sharing[jnp.minimum(leaves, limit - 1)])
        leaves = jnp.sort(jnp.where(gone, leaves, limit), axis=1)
    return leaves


def is_closed(
    trie: Trie, closed: Int32[Array, "batch closed"] | None, nodes: Int32[Array, "batch nodes"]
) -> Bool[Array, "batch nodes"]:
    """True at nodes below which all leaves are closed."""
    if closed is None:
        return jnp.zeros(nodes.shape, bool)
    low, high = trie.low[nodes], trie.high[nodes]
    return _below(closed, high) - _below(closed, low) == high - low


def _below(values: Int[Array, "batch size"], bounds: Array) -> Int32[Array, "batch bounds"]:
    """How many of each row's ascending values are smaller than each bound."""
    return jax.vmap(jnp.searchsorted)(values, bounds).astype(jnp.int32)
