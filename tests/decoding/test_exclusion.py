"""Whatever is excluded: never an item outside the catalogue, twice, or excluded; none is missed."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ilm_jax.decoding.config import Buckets
from ilm_jax.decoding.generator import Generator
from ilm_jax.decoding.prompts import exclusions
from ilm_jax.decoding.trie import build_trie, closed_leaves, is_closed, join_tries
from tests.decoding.test_beam import MODELS, SEQUENCES
from tests.models.small import init

# Another catalogue with a shared string (items 0 and 4) and an item of two codes (item 2).
OTHER = [[5, 6, 1], [5, 7, 1], [6, 5, 1], [7, 7, 7, 1], [8, 1], [5, 6, 1]]
OTHER_ITEMS = [0, 1, 2, 2, 3, 4]
ROWS, MOST = 4, 11


@functools.cache
def trie():
    return join_tries([build_trie(SEQUENCES), build_trie(OTHER, items=OTHER_ITEMS, share=True)])


@functools.cache
def generator():
    lm, ones = MODELS["decoder"], jnp.ones((1, 1), jnp.int32)
    params = jax.tree.map(lambda x: 3 * x, init(lm, jnp.zeros((1, 1, 16)), ones, ones))
    return Generator.for_lm(lm, params, buckets=Buckets(lengths=(6,), rows=(ROWS,)))


@functools.cache
def probabilities(seed):
    """(prompts, log p of every item of either catalogue), by scoring all strings."""
    rng = np.random.default_rng(seed)
    batch = {"tokens": rng.integers(2, 20, (ROWS, 6)), "lengths": rng.integers(1, 7, ROWS)}
    return batch, [generator().score(batch, trie(), catalogue=c) for c in (0, 1)]


lists = st.lists(st.lists(st.integers(0, 10), max_size=MOST), min_size=ROWS, max_size=ROWS)
catalogues = st.lists(st.integers(0, 1), min_size=ROWS, max_size=ROWS)


def table(seen, which):
    """Excluded items of each row's catalogue, in a table of one width."""
    known = [[i for i in row if i < trie().items[c]] for row, c in zip(seen, which, strict=True)]
    return np.pad(exclusions(known), ((0, 0), (0, MOST)), constant_values=-1)[:, :MOST]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 3), lists, catalogues, st.sampled_from([2, 5]))
def test_lists_hold_items_of_the_catalogue_once_and_none_excluded(seed, seen, which, beams):
    batch, scores = probabilities(seed)
    excluded = table(seen, which)
    found = generator().rank(batch, trie(), beams, excluded=excluded, catalogue=np.array(which))
    for row, (items, values) in enumerate(zip(*found, strict=True)):
        left = set(range(trie().items[which[row]])) - set(seen[row])
        real = items[items >= 0].tolist()
        assert set(real) <= left and len(set(real)) == len(real)
        # Lists are short only where candidates are few; two codes of an item take two beams.
        assert len(real) >= min(beams, len(left)) - (which[row] and 2 in real)
        assert (items[len(real) :] == -1).all() and np.isneginf(values[len(real) :]).all()
        assert (np.diff(values[: len(real)]) <= 0).all()
        truth = scores[which[row]][row][real]
        if not which[row]:
            np.testing.assert_allclose(values[: len(real)], truth, atol=1e-4)
        else:  # of the item with two codes, one may lie beyond the beams
            assert (values[: len(real)] <= truth + 1e-4).all()


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 3), lists, st.integers(0, 1))
def test_as_many_beams_as_strings_give_the_exhaustive_ranking(seed, seen, which):
    batch, _ = probabilities(seed)
    excluded = table(seen, [which] * ROWS)
    beams = trie().num_items
    rules = {"excluded": excluded}
    found = generator().rank(batch, trie(), beams, catalogue=np.full(ROWS, which), **rules)
    every = generator().rank_exhaustively(batch, trie(), beams, catalogue=which, **rules)
    if which == 0:  # five beams of eleven items: a beam may lose one
        assert (found.scores <= every.scores + 1e-4).all()
        return
    at = np.isfinite(every.scores)
    np.testing.assert_allclose(found.scores[at], every.scores[at], atol=1e-4)
    np.testing.assert_array_equal(found.items, every.items)


strings = st.lists(st.lists(st.integers(2, 4), max_size=4), min_size=1, max_size=12)


@settings(max_examples=25, deadline=None)
@given(strings, st.data())
@pytest.mark.slow
def test_nodes_are_closed_when_all_leaves_below_are_excluded(bodies, data):
    sequences = [[*body, 1] for body in bodies]
    built = build_trie(sequences, share=True)
    size = len(sequences)
    seen = data.draw(st.lists(st.integers(0, size - 1), max_size=8))
    excluded = np.pad(np.array(seen, int), (0, 8 - len(seen)), constant_values=-1)[None]
    nodes = jnp.arange(len(built.token))[None]
    closed = closed_leaves(built, jnp.asarray(excluded), jnp.zeros(1, int))
    got = np.asarray(is_closed(built, closed, nodes))[0]
    open_strings = {tuple(s) for row, s in enumerate(sequences) if row not in seen}
    gone = [
        leaf
        for leaf, string in enumerate(sorted({*map(tuple, sequences)}))
        if string not in open_strings
    ]
    low, high = np.asarray(built.low), np.asarray(built.high)
    want = [set(range(a, b)) <= set(gone) for a, b in zip(low, high, strict=True)]
    assert got.tolist() == want


def test_items_that_share_a_string_tie_and_codes_add_up():
    batch, (_, scores) = probabilities(0)
    np.testing.assert_array_equal(scores[:, 0], scores[:, 4])
    single = build_trie(OTHER[:5])  # each of the codes an item of its own
    codes = generator().score(batch, single)
    np.testing.assert_allclose(scores[:, 2], np.logaddexp(codes[:, 2], codes[:, 3]), atol=1e-5)
    np.testing.assert_allclose(scores[:, [0, 1, 3]], codes[:, [0, 1, 4]], atol=1e-5)
    items, _ = generator().rank(batch, trie(), 5, catalogue=np.ones(ROWS, int))
    place = {row: items[row].tolist() for row in range(ROWS)}
    assert all(found.index(4) == found.index(0) + 1 for found in place.values() if 4 in found)
