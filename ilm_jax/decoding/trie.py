"""A trie of the catalogue's token sequences as arrays, for masks inside a compiled step."""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int32

from ilm_jax.errors import UserError

ROOT = 0


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Trie:
    """Nodes in breadth-first order, so that the children of a node are neighbours.

    Attributes:
      token: token on the edge into each node; 0 for the root.
      first_child: first child of each node.
      num_children: number of children of each node; 0 exactly at the leaves.
      item: item row at a leaf, -1 elsewhere.
      root_width: number of children of the root.
      width: largest number of children of any other node (at least 1).
      depth: length of the longest sequence.
      num_items: number of leaves.
    """

    token: Int32[Array, " nodes"]
    first_child: Int32[Array, " nodes"]
    num_children: Int32[Array, " nodes"]
    item: Int32[Array, " nodes"]
    root_width: int = dataclasses.field(metadata={"static": True})
    width: int = dataclasses.field(metadata={"static": True})
    depth: int = dataclasses.field(metadata={"static": True})
    num_items: int = dataclasses.field(metadata={"static": True})


def build_trie(sequences: Sequence[Sequence[int]], names: Sequence[str] | None = None) -> Trie:
    """The trie of `sequences`; leaf k carries item row k.

    Args:
      sequences: token ids of every item, row by row, end token included.
      names: what to call the items in messages; their rows if None.

    Raises:
      UserError: if there is no sequence, one is empty, or one equals or begins another: then a
        decoded prefix would not tell the items apart.
    """

    def name(row: int) -> str:
        return f"item {row if names is None else names[row]}"

    if not len(sequences):
        raise UserError("no items to decode: the catalogue is empty")
    lengths = np.array([len(sequence) for sequence in sequences], np.int64)
    if (lengths == 0).any():
        raise UserError(f"{name(int(np.argmin(lengths)))} has an empty token sequence")
    padded = np.full((len(sequences), int(lengths.max())), -1, np.int32)
    padded[np.arange(padded.shape[1]) < lengths[:, None]] = np.concatenate(sequences)
    order = np.lexsort(padded.T[::-1])
    padded, lengths = padded[order], lengths[order]
    # Padding sorts first, so a sequence that begins another stands directly before such a one.
    same = (padded[1:] == padded[:-1]) | (np.arange(padded.shape[1]) >= lengths[:-1, None])
    clash = np.flatnonzero(same.all(axis=1))
    if len(clash):
        short, long = int(order[clash[0]]), int(order[clash[0] + 1])
        verb = "equal" if lengths[clash[0]] == lengths[clash[0] + 1] else "begin"
        raise UserError(
            f"the tokens of {name(short)} {verb} those of {name(long)} ({len(clash)} such pairs): "
            "decoding cannot tell them apart; end sequences with eos and make targets unique"
        )
    return _from_sorted(padded, lengths, order)


def _from_sorted(padded: np.ndarray, lengths: np.ndarray, order: np.ndarray) -> Trie:
    """Nodes level by level: sorted rows with an equal prefix are one run, and one node."""
    rows = np.arange(len(padded))
    parent_of = np.zeros(len(padded), np.int64)  # node of each row's prefix so far
    token, first, count, item = [np.zeros(1, np.int32)], [np.zeros(1, np.int32)], [], []
    item.append(np.full(1, -1, np.int32))
    count.append(np.zeros(1, np.int32))
    nodes = 1
    for depth in range(padded.shape[1]):
        rows = rows[lengths[rows] > depth]
        tokens, parents = padded[rows, depth], parent_of[rows]
        fresh = np.ones(len(rows), bool)
        fresh[1:] = (tokens[1:] != tokens[:-1]) | (parents[1:] != parents[:-1])
        node = nodes + np.cumsum(fresh) - 1
        size = int(fresh.sum())
        token.append(tokens[fresh])
        first.append(np.zeros(size, np.int32))
        count.append(np.zeros(size, np.int32))
        leaves = lengths[rows] == depth + 1
        level_item = np.full(size, -1, np.int32)
        level_item[node[leaves] - nodes] = order[rows[leaves]]
        item.append(level_item)
        # Parents are the nodes of the level above, counted from its start.
        above = nodes - len(count[-2])
        unique, starts, counts = np.unique(parents[fresh], return_index=True, return_counts=True)
        first[-2][unique - above] = nodes + starts
        count[-2][unique - above] = counts
        parent_of[rows] = node
        nodes += size
    num_children = np.concatenate(count)
    return Trie(
        token=jnp.asarray(np.concatenate(token)),
        first_child=jnp.asarray(np.concatenate(first)),
        num_children=jnp.asarray(num_children),
        item=jnp.asarray(np.concatenate(item)),
        root_width=int(num_children[ROOT]),
        width=max(1, int(num_children[1:].max())),
        depth=padded.shape[1],
        num_items=len(padded),
    )
