"""Residual k-means and the codes that it gives: deterministic, unique, and kept when items come."""

import dataclasses

import numpy as np
import pytest

from ilm_jax.cf import residual_kmeans, semantic_ids
from ilm_jax.cf.ials import IALSConfig
from ilm_jax.cf.quantizer import Quantizer, standardisation
from ilm_jax.cf.table import EmbeddingTable
from ilm_jax.data.catalogue.splits import SplitConfig, make_splits
from ilm_jax.data.examples.item_codes import ItemCodes
from ilm_jax.errors import UserError
from ilm_jax.runs.fitting import fit_method
from ilm_jax.runs.semantic_ids import ResidualKMeans, SemanticIds
from tests.data.small_catalogue import small_catalogue

NONE = SplitConfig(held_out_items=0.0)


def vectors(rows=300, dim=6, seed=0):
    return np.random.default_rng(seed).normal(size=(rows, dim)).astype(np.float32)


def quantizer(x, sizes, seed=0):
    known = np.ones(len(x), bool)
    center, scale = standardisation([x], [known])
    standardised = Quantizer(center, scale, ()).standardised(x, np.ones_like(x, bool))
    books = residual_kmeans.fit(standardised, sizes, seed)
    return Quantizer(center, scale, tuple(books)), standardised


def test_the_same_seed_gives_the_same_codebooks_and_every_level_takes_its_share():
    x = vectors()
    first, standardised = quantizer(x, (8, 8, 8))
    again, _ = quantizer(x, (8, 8, 8))
    other, _ = quantizer(x, (8, 8, 8), seed=1)
    for a, b in zip(first.codebooks, again.codebooks, strict=True):
        assert np.array_equal(a, b)
    assert not np.array_equal(first.codebooks[0], other.codebooks[0])
    codes, left = first.quantise(standardised)
    assert 1 > left[0] > left[1] > left[2] > 0
    # What is left is what the centroids' sum misses.
    total = sum(book[codes[:, level]] for level, book in enumerate(first.codebooks))
    missed = np.square(standardised - total).sum() / np.square(standardised).sum()
    assert left[-1] == pytest.approx(missed, rel=1e-4)


def test_centroids_are_means_of_what_is_nearest_to_them():
    x = vectors()
    centroids = residual_kmeans.kmeans(x, 7, np.random.default_rng(0), iterations=200)
    labels, distances = residual_kmeans.nearest(x, centroids)
    brute = np.square(x[:, None] - centroids[None]).sum(-1)
    assert np.array_equal(labels, brute.argmin(1))
    np.testing.assert_allclose(distances, brute.min(1), rtol=1e-4)
    for k in range(7):
        np.testing.assert_allclose(centroids[k], x[labels == k].mean(0), atol=1e-5)


def test_a_cluster_that_loses_its_vectors_starts_anew():
    """Two far groups; a start with both centroids in one of them, beside a third that none has."""
    x = np.concatenate([vectors(40), vectors(40) + 50]).astype(np.float32)
    start = np.stack([x[0], x[1], np.full(6, -1e4)]).astype(np.float32)

    def from_start(*_):
        return start.copy()

    original, residual_kmeans._plus_plus = residual_kmeans._plus_plus, from_start
    try:
        centroids = residual_kmeans.kmeans(x, 3, np.random.default_rng(0))
    finally:
        residual_kmeans._plus_plus = original
    labels, _ = residual_kmeans.nearest(x, centroids)
    assert set(labels) == {0, 1, 2}


def test_equal_vectors_are_one_cluster_and_levels_larger_than_the_items_are_refused():
    x = np.repeat(vectors(3), 20, axis=0)
    books = residual_kmeans.fit(x, (5, 5))
    labels, distances = residual_kmeans.nearest(x, books[0])
    assert len(set(labels)) == 3 and distances.max() < 1e-10
    with pytest.raises(UserError, match="60 items have vectors, and a level 61 codes"):
        residual_kmeans.fit(x, (4, 61))


def test_equal_codes_are_set_apart_whatever_the_order_of_the_rows():
    codes = np.array([[0, 1], [0, 1], [2, 0], [0, 1]], np.int32)
    ids = ["w", "x", "y", "z"]
    whole = semantic_ids.with_places(codes, ids)
    assert len(np.unique(whole, axis=0)) == 4 and sorted(whole[[0, 1, 3], 2]) == [0, 1, 2]
    assert whole[2].tolist() == [2, 0, 0]
    order = [3, 1, 0, 2]
    turned = semantic_ids.with_places(codes[order], [ids[k] for k in order])
    assert np.array_equal(turned, whole[order])
    said = semantic_ids.statistics(whole, (3, 2, 3), (0.5, 0.2), np.array([False] * 3 + [True]))
    assert said["colliding"] == 0.75 and said["colliding_warm"] == pytest.approx(2 / 3, abs=1e-6)
    assert said["largest"] == 3 and said["levels"][0]["used"] == 2
    p = np.array([0.75, 0.25])
    assert said["levels"][0]["perplexity"] == pytest.approx(
        np.exp(-(p * np.log(p)).sum()), abs=0.01
    )


@pytest.fixture
def world(tmp_path):
    """(splits of a small catalogue, file of its vectors)."""
    splits = make_splits(small_catalogue(), NONE)
    fit_method(splits, IALSConfig(dim=4, epochs=2)).save(tmp_path / "cf.st")
    return splits, tmp_path / "cf.st"


def making(path, **changes):
    fields = {"tables": (str(path),), "split": NONE, "method": ResidualKMeans((4, 4))}
    return SemanticIds(**(fields | changes))


def test_every_item_has_a_code_of_its_own_and_two_tables_stand_side_by_side(world, tmp_path):
    splits, path = world
    codes = making(path).make(splits)
    codes.save(tmp_path / "codes")
    assert len(set(ItemCodes.load(tmp_path / "codes", splits).names)) == 60
    assert codes.sizes == (4, 4, 16) and codes.statistics["items"] == 60
    again = making(path).make(splits)
    assert np.array_equal(again.codes, codes.codes)
    both = making(path, tables=(str(path), str(path))).make(splits)
    assert len(both.quantizer["center"]) == 2 * len(codes.quantizer["center"])
    assert len(set(both.names)) == 60


def test_held_out_items_get_codes_by_their_vectors_and_decide_nothing(tmp_path):
    splits = make_splits(small_catalogue(), SplitConfig(held_out_items=0.2))
    table = fit_method(splits, IALSConfig(dim=4, epochs=2))
    table.save(tmp_path / "cf.st")
    moved = table.item.copy()
    held_out = splits.item_fold != 0
    moved[held_out & ~table.item_cold] = moved[held_out & ~table.item_cold][::-1] * -3
    dataclasses.replace(table, item=moved).save(tmp_path / "moved.st")
    fields = {"split": splits.config}
    one, two = (making(tmp_path / n, **fields).make(splits) for n in ("cf.st", "moved.st"))
    for name, array in one.quantizer.items():
        assert np.array_equal(array, two.quantizer[name]), name
    assert np.array_equal(one.codes[~held_out][:, :2], two.codes[~held_out][:, :2])
    assert not np.array_equal(one.codes[held_out][:, :2], two.codes[held_out][:, :2])
    assert len(set(one.names)) == 60


def test_items_that_come_later_leave_the_others_their_codes(world, tmp_path):
    splits, path = world
    old = making(path).make(splits)
    old.save(tmp_path / "old")
    table = EmbeddingTable.load(path)
    larger = make_splits(small_catalogue(items=70), NONE)
    new = np.concatenate([table.item, table.item[:10]])
    users = np.zeros((larger.catalogue.num_users, 4), np.float32)
    grown = dataclasses.replace(
        table,
        item=new,
        item_cold=~new.any(1),
        user=users,
        user_cold=np.ones(len(users), bool),
        item_ids=list(larger.catalogue.item_ids),
        user_ids=list(larger.catalogue.user_ids),
        split_fingerprint=larger.fingerprint,
    )
    grown.save(tmp_path / "grown.st")
    codes = making(tmp_path / "grown.st", extends=str(tmp_path / "old")).make(larger)
    assert np.array_equal(codes.codes[:60], old.codes) and codes.sizes == old.sizes
    # A new item with an old one's vector has its code, in another place.
    assert np.array_equal(codes.codes[60:, :-1], old.codes[:10, :-1])
    assert len(set(codes.names)) == 70
    with pytest.raises(UserError, match="codes of 70 items that|has codes of 10 items that"):
        codes.save(tmp_path / "new")
        making(path, extends=str(tmp_path / "new")).make(splits)


def test_lengths_count_only_where_they_are_asked_for(world, tmp_path):
    splits, path = world
    table = EmbeddingTable.load(path)
    lengths = np.random.default_rng(0).uniform(0.1, 9, (60, 1)).astype(np.float32)
    dataclasses.replace(table, item=table.item * lengths).save(tmp_path / "longer.st")

    def codes(name, **changes):
        return making(name, **changes).make(splits).codes

    assert np.array_equal(codes(path), codes(tmp_path / "longer.st"))
    whole = {"normalise": "none"}
    assert not np.array_equal(codes(path, **whole), codes(tmp_path / "longer.st", **whole))


def test_wrong_input_is_one_line(world, tmp_path):
    splits, path = world
    with pytest.raises(UserError, match="no vectors to make codes from"):
        SemanticIds()
    with pytest.raises(UserError, match="another split"):
        making(path).make(make_splits(small_catalogue(), SplitConfig(held_out_items=0.2)))
    with pytest.raises(UserError, match="give smaller levels"):
        making(path, method=ResidualKMeans((256,))).make(splits)
    with pytest.raises(UserError, match="vectors of width 8"):
        making(path).make(splits).save(tmp_path / "old")
        making(path, tables=(str(path),) * 2, extends=str(tmp_path / "old")).make(splits)
