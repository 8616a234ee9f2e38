"""The array trie holds exactly the given sequences; ambiguous ones are refused."""

import collections

import numpy as np
import pytest

from ilm_jax.decoding.trie import build_trie
from ilm_jax.errors import UserError


def walk(trie) -> dict[tuple[int, ...], int]:
    """Every path from the root to a leaf, with the leaf's item."""
    token, first, count, low, high, item = (
        np.asarray(getattr(trie, name))
        for name in ("token", "first_child", "num_children", "low", "high", "leaf_items")
    )
    found, stack = {}, [(0, ())]
    while stack:
        node, path = stack.pop()
        children = range(first[node], first[node] + count[node])
        tokens = token[list(children)].tolist()
        assert len(set(tokens)) == len(tokens)
        if not tokens:
            assert high[node] == low[node] + 1
            found[path] = int(item[low[node], 0])
        else:
            assert (low[node], high[node]) == (low[children[0]], high[children[-1]])
        stack += [(child, (*path, int(token[child]))) for child in children]
    return found


def test_paths_are_the_sequences():
    draw = np.random.default_rng(0)
    bodies = [draw.integers(2, 6, draw.integers(0, 7)).tolist() for _ in range(300)]
    sequences = list(dict.fromkeys((*body, 1) for body in bodies))
    trie = build_trie(sequences)
    assert walk(trie) == {sequence: row for row, sequence in enumerate(sequences)}
    assert trie.depth == max(map(len, sequences)) and trie.num_items == len(sequences)
    prefixes = {s[:k] for s in sequences for k in range(1, len(s) + 1)}
    children = collections.Counter(prefix[:-1] for prefix in prefixes)
    for depth, (width, size) in enumerate(zip(trie.widths, trie.open_nodes, strict=True)):
        inner = [count for prefix, count in children.items() if len(prefix) == depth]
        assert (width, size) == (max(inner), len(inner))


def test_one_item_and_one_token():
    assert walk(build_trie([[7]])) == {(7,): 0}


def test_token_zero_is_a_token_like_any():
    assert walk(build_trie([[0, 0], [0, 1], [1, 0]])) == {(0, 0): 0, (0, 1): 1, (1, 0): 2}


@pytest.mark.parametrize(
    ("sequences", "message"),
    [
        ([[3, 4], [5], [3, 4]], "item a equal those of item c"),
        ([[3, 4, 5], [5], [3, 4]], "item c begin those of item a"),
        ([[3, 4], [], [5]], "item b has an empty"),
        ([], "empty"),
    ],
)
def test_ambiguous_sequences_are_user_errors(sequences, message):
    with pytest.raises(UserError, match=message):
        build_trie(sequences, names=["a", "b", "c"])
