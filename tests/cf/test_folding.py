"""A grown catalogue's table keeps what it had and solves for what has joined."""

import dataclasses

import numpy as np
import pytest

from ilm_jax.cf.folding import extended_table
from ilm_jax.cf.ials import IALSConfig, fold_in
from ilm_jax.cf.table import EmbeddingTable
from ilm_jax.data.catalogue.splits import SplitConfig, make_splits
from ilm_jax.errors import UserError
from ilm_jax.runs.fitting import fit_method
from tests.data.small_catalogue import small_catalogue

CONFIG = IALSConfig(dim=4, epochs=2)


def first_of(catalogue, items, users):
    """Its first items and users alone."""
    rows = np.repeat(np.arange(catalogue.num_users), np.diff(catalogue.offsets))
    kept = (catalogue.items < items) & (rows < users)
    counts = np.bincount(rows[kept], minlength=users)[:users]
    lists = ("titles", "texts", "content", "categories")
    return dataclasses.replace(
        catalogue,
        **{name: getattr(catalogue, name)[:items] for name in ("item_ids", *lists)},
        user_ids=catalogue.user_ids[:users],
        offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        **{name: getattr(catalogue, name)[kept] for name in ("items", "ratings", "timestamps")},
    )


@pytest.fixture(scope="module")
def grown(tmp_path_factory):
    """(splits of the whole catalogue, path of the table of its first 70 items and 50 users)."""
    catalogue, config = small_catalogue(80, 60, 0, "shop"), SplitConfig(held_out_items=0.0)
    path = tmp_path_factory.mktemp("table") / "cf.safetensors"
    fit_method(make_splits(first_of(catalogue, 70, 50), config), CONFIG).save(path)
    return make_splits(catalogue, config), path


def test_who_has_joined_is_solved_for_and_the_others_stay(grown):
    splits, path = grown
    old, new = EmbeddingTable.load(path), extended_table(splits, path)
    new.check(splits)
    np.testing.assert_array_equal(new.item[:70], old.item)
    np.testing.assert_array_equal(new.user[:50], old.user)
    users, items = splits.train_interactions()
    for item in range(70, 80):
        met = np.unique(users[(items == item) & (users < 50)])
        want = fold_in([met], old.user, CONFIG)[0]
        np.testing.assert_allclose(new.item[item], want, rtol=1e-4, atol=1e-6)
        assert new.item_cold[item] == (len(met) == 0)
    for user in range(50, 60):
        want = fold_in([np.unique(items[users == user])], new.item, CONFIG)[0]
        np.testing.assert_allclose(new.user[user], want, rtol=1e-4, atol=1e-6)
    assert new.item[70:].any() and new.user[50:].any()


def test_what_cannot_be_extended_is_refused(grown, tmp_path):
    splits, path = grown
    old = EmbeddingTable.load(path)
    swapped = [old.item_ids[1], old.item_ids[0], *old.item_ids[2:]]
    cases = [
        ({"item_ids": swapped}, "row 0 is item .* who joins stands behind the others"),
        ({"settings": {"method": "text"}}, "only vectors of iALS are folded in"),
        ({"catalogue": "film"}, "is of film, not of shop"),
    ]
    for changes, said in cases:
        dataclasses.replace(old, **changes).save(tmp_path / "t.safetensors")
        with pytest.raises(UserError, match=said):
            extended_table(splits, tmp_path / "t.safetensors")
