"""Pairs and files: what is sorted, what counts once, what is refused."""

import numpy as np
import pytest

from ilm_jax.cf.interactions import Interactions, catalogue_from_sequences, hold_out
from ilm_jax.data.catalogue.splits import SplitConfig, make_splits
from ilm_jax.errors import UserError


def test_pairs_are_sorted_and_count_once():
    found = Interactions.from_pairs(np.array([2, 0, 2, 2]), np.array([1, 3, 0, 1]), 4, 5)
    assert found.offsets.tolist() == [0, 1, 1, 3, 3] and found.items.tolist() == [3, 0, 1]
    assert found.users.tolist() == [0, 2, 2] and found.lengths.tolist() == [1, 0, 2, 0]
    turned = found.transposed()
    assert turned.of(1).tolist() == [2] and turned.num_items == 4
    assert found.item_counts().tolist() == [1, 1, 0, 1, 0]
    assert found.padded(np.array([2, 1, 0]), 3, 9).tolist() == [[0, 1, 9], [9, 9, 9], [3, 9, 9]]


def test_counts_are_presence_and_may_not_be_negative():
    users, items = np.array([0, 0, 1]), np.array([0, 1, 1])
    found = Interactions.from_pairs(users, items, 2, 2, np.array([7, 0, 1]))
    assert found.users.tolist() == [0, 1] and found.items.tolist() == [0, 1]
    with pytest.raises(ValueError, match=r"pair 2 \(user row 1, item row 1\) has count -1"):
        Interactions.from_pairs(users, items, 2, 2, np.array([1, 1, -1]))
    with pytest.raises(ValueError, match="no pairs .* none has a count above 0"):
        Interactions.from_pairs(users, items, 2, 2, np.zeros(3, int))
    with pytest.raises(ValueError, match=r"pair 1 \(user row 0, item row 1\) has count nan"):
        Interactions.from_pairs(users, items, 2, 2, [1.0, np.nan, 2.0])
    with pytest.raises(ValueError, match=r"counts of shape \(1,\) for 3 pairs"):
        Interactions.from_pairs(users, items, 2, 2, [1])


def test_lists_do_as_well_as_arrays():
    plain = Interactions.from_pairs([1, 0], [2, 0], 2, 3, counts=[3, 1])
    array = Interactions.from_pairs(np.array([1, 0], np.uint64), np.array([2, 0], np.uint64), 2, 3)
    assert plain.offsets.tolist() == array.offsets.tolist() == [0, 1, 2]
    assert plain.items.tolist() == array.items.tolist() == [0, 2]


@pytest.mark.parametrize(
    ("users", "items", "message"),
    [
        ([0], [0, 1, 2], "1 user rows and 3 item rows: give one each a pair"),
        ([0, 1], [0, 1, 2], "2 user rows and 3 item rows"),
        ([], [], "no pairs .* the lists are empty"),
        (
            [0, 3, 4],
            [0, 1, 2],
            r"pair 1 has user row 3; 2 of 3 pairs have a user row outside \[0, 3\)",
        ),
        ([0, 1, 2], [0, 1, -1], r"pair 2 has item row -1; 1 of 3 .* outside \[0, 5\)"),
        ([0.0, 1.5], [0, 1], "user rows are float64: give row numbers"),
        (["u0"], [0], "user rows are <U2: give row numbers"),
        ([[0, 1]], [[0, 1]], r"user rows of shape \(1, 2\): give a list"),
    ],
)
def test_pairs_that_are_none_are_refused_with_their_place_and_value(users, items, message):
    with pytest.raises(ValueError, match=message):
        Interactions.from_pairs(users, items, 3, 5)


def test_a_share_of_every_row_is_held_out():
    draw = np.random.default_rng(0)
    users, items = draw.integers(0, 30, 900), draw.integers(0, 50, 900)
    whole = Interactions.from_pairs(users, items, 30, 50)
    rest, held = hold_out(whole, 0.2, seed=1)
    assert (held.lengths == (0.2 * whole.lengths).astype(int)).all()
    for user in range(30):
        assert sorted([*rest.of(user), *held.of(user)]) == whole.of(user).tolist()
    again, other = hold_out(whole, 0.2, seed=1)[1], hold_out(whole, 0.2, seed=2)[1]
    assert again.items.tolist() == held.items.tolist() != other.items.tolist()
    with pytest.raises(ValueError, match="share"):
        hold_out(whole, 1.0)
    short = Interactions.from_pairs([0, 0, 1, 1, 1], [0, 1, 2, 3, 4], 2, 5)
    with pytest.raises(ValueError, match="at most 3 items is less than one item each: nothing"):
        hold_out(short, 0.2)


def test_sequences_get_rows_that_say_nothing_of_held_out_items(tmp_path):
    path = tmp_path / "sequences.txt"
    path.write_text("7 10 11 12 13\n8 13 10 99 5\n9 40 41\n")
    catalogue = catalogue_from_sequences(path, "mine")
    # Training shows 10 11, then 13, then 40 41; 12, 5 and 99 follow by id, not by place.
    assert catalogue.item_ids == ["10", "11", "13", "40", "41", "12", "5", "99"]
    assert catalogue.user_ids == ["7", "8", "9"]
    assert catalogue.sequence(1).tolist() == [2, 0, 7, 6]
    splits = make_splits(catalogue, SplitConfig(held_out_items=0.0))
    assert splits.report()["cold_items"] == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 2 3\n4\n", "line 2: a user without items"),
        ("", "empty"),
        ("1 2\n1 3\n", "line 2: user '1' has a line already"),
    ],
)
def test_malformed_sequences_fail_with_file_and_line(tmp_path, text, message):
    path = tmp_path / "sequences.txt"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        catalogue_from_sequences(path, "mine")
    with pytest.raises(UserError, match="no such file"):
        catalogue_from_sequences(tmp_path / "absent", "mine")
