"""The stream of pairs: each once an epoch, and every example a function of its index alone."""

import numpy as np
import pytest

from ilm_jax.cf.interactions import Interactions
from ilm_jax.cf.pairs import Pairs, draw_histories, mixed


@pytest.fixture
def train():
    """30 users, one of whom has met nothing, with 0 to 12 of 20 items."""
    draw = np.random.default_rng(0)
    users = np.repeat(np.arange(29), 12)
    return Interactions.from_pairs(users, draw.integers(0, 20, len(users)), 30, 20)


def test_an_epoch_holds_each_pair_once_and_is_filled_from_its_start(train):
    pairs = Pairs(train, 16, seed=3)
    count, size = len(train.items), pairs.steps * 16
    assert 0 <= size - count < 16
    for epoch in (0, 1):
        found = pairs.rows(np.arange(epoch * size, (epoch + 1) * size))
        keys = found["users"].astype(int) * 20 + found["items"]
        assert sorted(keys[:count]) == sorted(train.users.astype(int) * 20 + train.items)
        np.testing.assert_array_equal(keys[count:], keys[: size - count])
    first, second = (pairs.rows(np.arange(size) + at)["users"] for at in (0, size))
    assert (first != second).any()
    few = Pairs(train, 10**6, seed=3)
    assert (few.batch_size, few.steps) == (count, 1)


def test_an_example_is_a_function_of_its_index_whoever_asks_and_when(train):
    pairs = Pairs(train, 16, seed=3, history=4)
    size = pairs.steps * 16
    whole = pairs.rows(np.arange(3 * size))
    mixed_up = np.random.default_rng(1).permutation(3 * size)
    again = Pairs(train, 16, seed=3, history=4)
    for part in np.array_split(mixed_up, 7):
        for name, values in again.rows(part).items():
            np.testing.assert_array_equal(values, whole[name][part])


def test_histories_are_of_the_user_without_the_item_and_each_item_once(train):
    pairs = Pairs(train, 16, seed=3, history=4)
    found = pairs.rows(np.arange(pairs.steps * 16))
    for user, item, history in zip(*found.values(), strict=True):
        there = history[history < 20]
        others = set(train.of(user).tolist()) - {int(item)}
        assert len(set(there.tolist())) == len(there) == min(4, len(others))
        assert set(there.tolist()) <= others
        assert (history[len(there) :] == 20).all()


def test_every_part_of_a_history_is_drawn_as_often():
    train = Interactions.from_pairs(np.zeros(6, int), np.arange(6), 1, 6)
    rows = np.zeros(20_000, int)
    keys = mixed(np.arange(20_000, dtype=np.uint64))
    found = draw_histories(train, rows, np.full(20_000, 2), 2, keys)
    subsets, counts = np.unique(np.sort(found, axis=1), axis=0, return_counts=True)
    assert len(subsets) == 10 and 2 not in subsets
    assert (np.abs(counts - 2000) < 5 * 45).all()


def test_a_record_tells_other_pairs_sizes_and_seeds(train):
    record = Pairs(train, 16, 3, 4).record()
    assert record == Pairs(train, 16, 3, 4).record()
    fewer = Interactions.from_pairs(train.users[1:], train.items[1:], 30, 20)
    for other in (Pairs(fewer, 16, 3, 4), Pairs(train, 8, 3, 4), Pairs(train, 16, 2, 4)):
        assert other.record() != record
