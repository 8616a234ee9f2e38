"""Sequences keep time's order, and their windows show every step of training once an epoch."""

import collections

import numpy as np
import pytest

from ilm_jax.cf.sequences import Sequences, Windows
from ilm_jax.data.catalogue.splits import TEST, TRAIN, VALID
from ilm_jax.errors import UserError


@pytest.fixture
def splits(two_tastes):
    return two_tastes(users=40, items=60)


def steps_of(sequence):
    return list(zip(sequence[:-1].tolist(), sequence[1:].tolist(), strict=True))


def test_a_history_ends_before_its_target(splits):
    for fold in (TRAIN, VALID, TEST):
        found = Sequences.before(splits, fold)
        for user in range(40):
            whole = splits.catalogue.sequence(user)
            held = (1 if fold == TEST else 2) if len(whole) >= 3 else 0
            mine = found.items[found.offsets[user] : found.offsets[user + 1]]
            np.testing.assert_array_equal(mine, whole[: len(whole) - held])
    assert found.item_counts().sum() == len(found.items)


@pytest.mark.parametrize("length", [1, 5, 300])
def test_every_step_of_training_and_no_other_is_shown_once_an_epoch(splits, length):
    """No step leads to a validation or a test item."""
    train = Sequences.before(splits, TRAIN)
    windows = Windows(train, length, 7, seed=3)
    rows = windows._rows
    batch = windows.rows(np.arange(rows))
    real = batch["segment_ids"] > 0
    shown = zip(batch["items"][real].tolist(), batch["targets"][real].tolist(), strict=True)
    expected = [step for user in range(40) for step in steps_of(splits.train_sequence(user))]
    assert collections.Counter(shown) == collections.Counter(expected)
    assert not real.all() or rows * length == len(expected)
    assert (~real).sum() < length and not batch["items"][~real].any()


def test_a_row_is_made_of_pieces_of_sequences(splits):
    windows = Windows(Sequences.before(splits, TRAIN), 16, 4, seed=0)
    sequences = {tuple(splits.train_sequence(user).tolist()) for user in range(40)}
    batch = windows.rows(np.arange(2 * windows.steps * windows.batch_size))
    for row in range(len(batch["items"])):
        segments = batch["segment_ids"][row]
        for segment in range(1, segments.max() + 1):
            at = np.flatnonzero(segments == segment)
            np.testing.assert_array_equal(batch["positions"][row, at], np.arange(len(at)))
            piece = *batch["items"][row, at].tolist(), int(batch["targets"][row, at[-1]])
            inside = [s for s in sequences if any(s[i : i + len(piece)] == piece for i in range(9))]
            assert inside
            assert batch["targets"][row, at[:-1]].tolist() == list(piece[1:-1])


def test_an_example_is_a_function_of_seed_and_index_alone(splits):
    train = Sequences.before(splits, TRAIN)
    whole = Windows(train, 8, 4, seed=5).rows(np.arange(60))
    again = Windows(train, 8, 4, seed=5)
    for first in (40, 3, 17):  # in any order, and over the ends of epochs
        part = again.rows(np.arange(first, first + 20))
        for name, values in part.items():
            np.testing.assert_array_equal(values, whole[name][first : first + 20])
    other = Windows(train, 8, 4, seed=6).rows(np.arange(60))
    assert (other["items"] != whole["items"]).any()
    epoch = again.steps * again.batch_size
    assert (whole["items"][:epoch] != whole["items"][epoch : 2 * epoch]).any()


def test_the_last_items_stand_on_the_left():
    histories = Sequences.of([[4, 2, 7], [], [1]], 8)
    items, real = histories.last(np.array([0, 1, 2, 0]), 2)
    assert items.tolist() == [[2, 7], [0, 0], [1, 0], [2, 7]]
    assert real.tolist() == [[1, 1], [0, 0], [1, 0], [1, 1]]
    assert histories.met().of(0).tolist() == [2, 4, 7]
    assert not histories.met(False).lengths.any()


def test_what_cannot_be_is_refused():
    for wrong in ([[0, 1], [3, 8]], [[0, 1], [-1]]):
        with pytest.raises(UserError, match=r"history 1: item row .* is not in the catalogue"):
            Sequences.of(wrong, 8)
    with pytest.raises(UserError, match="no next item"):
        Windows(Sequences.of([[1], [2], []], 8), 4, 4, seed=0)
