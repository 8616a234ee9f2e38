"""What is read from a mapped catalogue in parts is what all of it at once gives."""

import hashlib

import numpy as np
import pytest

from ilm_jax.cf import evaluation, ials, ials_solve, interactions, item_knn
from ilm_jax.cf.interactions import Interactions, train_interactions
from ilm_jax.data import spill
from ilm_jax.data.catalogue import splits as splits_module
from ilm_jax.data.catalogue.catalogue import Catalogue
from ilm_jax.data.catalogue.splits import TEST, VALID, make_splits
from tests.data.small_catalogue import small_catalogue


@pytest.fixture(params=["at once", "in parts"])
def splits(request, tmp_path, monkeypatch):
    """Of a mapped catalogue in which users choose an item again; some have two items or none."""
    whole = small_catalogue(items=40, users=50)
    items = np.where(np.arange(len(whole.items)) % 5 == 4, np.roll(whole.items, 2), whole.items)
    more = {"user_ids": [*whole.user_ids, "none"], "items": items.astype(np.int32)}
    more["offsets"] = np.append(whole.offsets, whole.offsets[-1])
    fields = {name: getattr(whole, name) for name in whole.__dataclass_fields__}
    Catalogue(**(fields | more)).save(tmp_path / "c")
    if request.param == "in parts":
        monkeypatch.setattr(interactions, "PAIRS", 16)
        monkeypatch.setattr(splits_module, "_PART", 16)
        monkeypatch.setattr(spill, "_PART", 16)
        monkeypatch.setattr(spill, "FROM", 64)
    return make_splits(Catalogue.load(tmp_path / "c"))


def same(found, wanted):
    np.testing.assert_array_equal(found.offsets, wanted.offsets)
    np.testing.assert_array_equal(found.items, wanted.items)
    assert found.num_items == wanted.num_items
    assert (found.offsets.dtype, found.items.dtype) == (wanted.offsets.dtype, wanted.items.dtype)


def before(splits, left):
    """Pairs of all but each user's last `left` interactions; of users without targets all."""
    pairs = []
    for user in range(splits.catalogue.num_users):
        sequence = splits.catalogue.sequence(user).tolist()
        pairs += [(user, item) for item in (sequence[:-left] if len(sequence) >= 3 else sequence)]
    rows = np.array(pairs)
    sizes = splits.catalogue.num_users, splits.catalogue.num_items
    return Interactions.from_pairs(rows[:, 0], rows[:, 1], *sizes)


def test_interactions_come_from_the_catalogue_and_are_turned_around(splits):
    train = train_interactions(splits)
    same(train, before(splits, 2))
    same(evaluation.held_back(splits, VALID)[0], before(splits, 2))
    same(evaluation.held_back(splits, TEST)[0], before(splits, 1))
    sizes = splits.catalogue.num_items, splits.catalogue.num_users
    turned = train.transposed()
    same(turned, Interactions.from_pairs(train.items, train.users, *sizes))
    same(turned.transposed(), train)
    nobody = np.zeros(splits.catalogue.num_users, np.int64)
    with pytest.raises(ValueError, match="nobody has an interaction"):
        Interactions.first_of(splits.catalogue, nobody)


def test_a_split_counts_and_is_fingerprinted_as_a_whole(splits):
    users, items = splits.train_interactions()
    assert splits.train_counts().tolist() == np.bincount(items, minlength=40).tolist()
    known = hashlib.sha256(users.tobytes() + items.tobytes()).hexdigest()
    at = splits.fingerprint
    text = splits_module.sha256_json
    seen = []
    splits_module.sha256_json, splits.__dict__["fingerprint"] = seen.append, None
    try:
        del splits.__dict__["fingerprint"]
        assert splits.fingerprint is None and seen[0][-1] == known
    finally:
        splits_module.sha256_json = text
    assert at == text(seen[0])


def test_ials_whose_blocks_are_streamed_gives_the_same_bits(splits, monkeypatch):
    train = train_interactions(splits)
    config = ials.IALSConfig(dim=4, epochs=2)
    kept = ials.fit_interactions(train, config)
    monkeypatch.setattr(ials_solve, "STREAMED", 0)
    made = []
    block = ials_solve.PlacedBlocks.__getitem__
    monkeypatch.setattr(
        ials_solve.PlacedBlocks, "__getitem__", lambda self, at: made.append(at) or block(self, at)
    )
    streamed = ials.fit_interactions(train, config)
    assert len(made) > 2 * len(set(made))  # anew in every epoch
    assert streamed.user.tobytes() == kept.user.tobytes()
    assert streamed.item.tobytes() == kept.item.tobytes()


@pytest.mark.parametrize("neighbours", [3, 100])
def test_item_knn_of_many_items_keeps_the_same_likenesses(splits, monkeypatch, neighbours):
    train = train_interactions(splits)
    config = item_knn.ItemKNNConfig(neighbours=neighbours, rows=16)
    dense = item_knn.fit(train, config)
    monkeypatch.setattr(item_knn, "DENSE", 0)
    sparse = item_knn.fit(train, config)
    for one, other in zip(dense.likeness.toarray(), sparse.likeness.toarray(), strict=True):
        np.testing.assert_allclose(np.sort(one), np.sort(other), rtol=1e-6)
    if neighbours == 100:  # all of them
        users = np.arange(5)
        np.testing.assert_allclose(sparse(users), dense(users), rtol=1e-6)


def test_ranges_hold_all_rows_and_no_more_entries_than_they_may():
    draw = np.random.default_rng(0)
    offsets = np.append(0, np.cumsum(draw.integers(0, 5, 200)))
    rows = np.repeat(np.arange(200), np.diff(offsets))
    for most in (1, 7, 1000):
        found = list(spill.ranges(offsets, most))
        assert [first for first, _ in found[1:]] == [last for _, last in found[:-1]]
        assert found[0][0] == 0 and found[-1][1] == 200
        sizes = [offsets[last] - offsets[first] for first, last in found]
        assert all(
            size <= most or last == first + 1
            for size, (first, last) in zip(sizes, found, strict=True)
        )
    for first in range(0, len(rows), 13):
        last = min(first + 29, len(rows))
        assert spill.rows_of(offsets, first, last).tolist() == rows[first:last].tolist()
    assert len(spill.rows_of(offsets, 5, 5)) == 0
