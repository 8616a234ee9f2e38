"""Neither split leaks: not when items are added, not between folds, not for short users."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ilm_jax.data.catalogue.catalogue import Catalogue
from ilm_jax.data.catalogue.splits import TEST, TRAIN, VALID, SplitConfig, item_folds, make_splits
from ilm_jax.errors import UserError


def catalogue_of(sequences, num_items=400, name="toy"):
    lengths = [len(sequence) for sequence in sequences]
    flat = [item for sequence in sequences for item in sequence]
    blank = [""] * num_items
    return Catalogue(
        name=name,
        version="1",
        item_ids=[f"i{row}" for row in range(num_items)],
        titles=blank,
        texts=blank,
        content=[[] for _ in blank],
        categories=[[] for _ in blank],
        user_ids=[f"u{user}" for user in range(len(sequences))],
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        items=np.array(flat, np.int32),
        ratings=np.full(len(flat), np.nan, np.float32),
        timestamps=np.full(len(flat), -1, np.int64),
        ties=0,
        extras={},
    )


SEQUENCES = st.lists(st.lists(st.integers(0, 399), max_size=8), min_size=1, max_size=12).filter(
    lambda sequences: any(len(sequence) >= 3 for sequence in sequences)
)


@given(SEQUENCES)
@settings(deadline=None, max_examples=60)
def test_leave_one_out_hides_exactly_the_last_two(sequences):
    splits = make_splits(catalogue_of(sequences))
    seen = []
    for user, sequence in enumerate(sequences):
        train = splits.train_sequence(user).tolist()
        seen += [(user, item) for item in train]
        valid, test = splits.valid_target(user), splits.test_target(user)
        if len(sequence) < 3:
            assert (train, valid, test) == (sequence, None, None)
            continue
        assert train == sequence[:-2]
        assert (valid[0].tolist(), valid[1]) == (sequence[:-2], sequence[-2])
        assert (test[0].tolist(), test[1]) == (sequence[:-1], sequence[-1])
    users, items = splits.train_interactions()
    assert list(zip(users.tolist(), items.tolist(), strict=True)) == seen
    counts = splits.train_counts()
    assert counts.dtype == np.int64 and counts.shape == (400,)
    assert counts.tolist() == np.bincount([i for _, i in seen], minlength=400).tolist()
    report = splits.report()
    assert report["users_under_three_interactions"] == sum(len(s) < 3 for s in sequences)
    assert report["train_interactions"] == len(seen)
    assert report["cold_items"] == int((counts == 0).sum())


@given(st.lists(st.text(max_size=6), unique=True, max_size=40), st.integers(0, 3), st.data())
@settings(deadline=None, max_examples=60)
def test_an_item_keeps_its_fold_when_items_are_added_or_reordered(ids, seed, data):
    config = SplitConfig(seed=seed)
    folds = dict(zip(ids, item_folds("toy", ids, config), strict=True))
    some = data.draw(st.permutations(ids))[: len(ids) // 2]
    again = dict(zip(some, item_folds("toy/world3", some, config), strict=True))
    assert all(folds[raw] == again[raw] for raw in some)


@given(st.floats(0.01, 0.45), st.integers(0, 2**31))
@settings(deadline=None, max_examples=25)
def test_folds_partition_the_items_in_the_promised_shares(share, seed):
    config = SplitConfig(held_out_items=share, seed=seed)
    splits = make_splits(catalogue_of([[0, 1, 2]], 4000), config)
    rows = [splits.items_in(fold) for fold in (TRAIN, VALID, TEST)]
    assert sorted(np.concatenate(rows).tolist()) == list(range(4000))
    deviation = 5 * np.sqrt(share * (1 - share) / 4000)
    for held_out in rows[1:]:
        assert abs(len(held_out) / 4000 - share) < deviation


def test_what_is_no_fold_has_no_items_and_says_so():
    splits = make_splits(catalogue_of([[0, 1, 2]], 40), SplitConfig(held_out_items=0.2))
    with pytest.raises(UserError, match="'train'.*FOLDS"):
        splits.items_in("train")


def test_the_folds_are_fixed_for_good():
    folds = item_folds("movielens/25m", [str(i) for i in range(1, 41)], SplitConfig())
    assert "".join(map(str, folds)) == "2010000002021200000022000000000221000100"


def test_nothing_is_held_out_on_request():
    splits = make_splits(catalogue_of([[0, 1, 2]]), SplitConfig(held_out_items=0))
    assert len(splits.items_in(TRAIN)) == 400
    assert splits.report()["items"] == {"train": 400, "validation": 0, "test": 0}


def test_fingerprint_sees_configuration_and_interactions():
    prints = {
        make_splits(catalogue_of(sequences), config).fingerprint
        for sequences in ([[0, 1, 2]], [[0, 2, 1]])
        for config in (
            SplitConfig(),
            SplitConfig(seed=1),
            SplitConfig(0.2),
            SplitConfig(item_pairs_of_held_out=True),
        )
    }
    assert len(prints) == 8


@pytest.mark.parametrize(
    "sequences, items, share, message",
    [
        ([[0, 1, 2]], 3, 0.01, "no validation and no test items among 3"),
        ([[0, 1, 2]], 400, 0.5, r"held_out_items=0.5.*at least 0 and below 0.5"),
        ([[0, 1, 2]], 400, -0.1, "held_out_items=-0.1"),
        ([[0, 1, 2]], 400, float("nan"), "held_out_items=nan"),
        ([[0, 1], [2], []], 400, 0.1, "empty test split"),
    ],
)
def test_an_empty_split_or_a_wrong_share_is_an_error(sequences, items, share, message):
    with pytest.raises(UserError, match=message):
        make_splits(catalogue_of(sequences, items), SplitConfig(share))


def test_every_seed_holds_out_other_items():
    ids = [f"i{n}" for n in range(400)]
    folds = [item_folds("toy", ids, SplitConfig(seed=seed)) for seed in range(4)]
    for one, other in itertools.combinations(folds, 2):
        # Held-out items of two seeds meet as often as chance has it: 0.2 of 0.2 of the items.
        assert 0 < np.mean((one > 0) & (other > 0)) < 0.1
        assert np.mean(one != other) > 0.2
