"""Vectors that somebody has made stand where fitted ones would."""

import numpy as np
import pytest
import safetensors.numpy

from ilm_jax.cf.given_vectors import given_table
from ilm_jax.cf.table import EmbeddingTable
from ilm_jax.cli import main as cli
from ilm_jax.data.catalogue.splits import make_splits
from ilm_jax.data.sources import toy
from ilm_jax.data.sources.prepare import catalogue_dir
from ilm_jax.errors import UserError
from tests.data.small_catalogue import small_catalogue

SPLITS = make_splits(small_catalogue())
ITEM = np.random.default_rng(0).normal(size=(60, 5)).astype(np.float32)
USER = np.random.default_rng(1).normal(size=(30, 5)).astype(np.float32)


def test_rows_in_the_order_of_the_catalogue(tmp_path):
    np.save(tmp_path / "items.npy", ITEM)
    np.save(tmp_path / "users.npy", USER)
    table = given_table(SPLITS, str(tmp_path / "items.npy"), str(tmp_path / "users.npy"))
    assert (table.item == ITEM).all() and (table.user == USER).all()
    table.save(tmp_path / "table.safetensors")
    assert type(table).load(tmp_path / "table.safetensors", SPLITS).dim == 5


def test_users_without_vectors_are_the_mean_of_their_training_items(tmp_path):
    np.save(tmp_path / "items.npy", ITEM.astype(np.float64))
    table = given_table(SPLITS, str(tmp_path / "items.npy"))
    for user in (0, 2, 9):
        wanted = ITEM[SPLITS.train_sequence(user)].mean(0)
        np.testing.assert_allclose(table.user[user], wanted, rtol=1e-5)


def test_a_row_of_zeros_is_cold_and_no_other_is():
    item, user = ITEM.copy(), USER.copy()
    item[[3, 8]], user[5] = 0, 0
    table = EmbeddingTable.of(SPLITS, item, user, {})
    assert np.flatnonzero(table.item_cold).tolist() == [3, 8]
    assert np.flatnonzero(table.user_cold).tolist() == [5]
    assert table.split_fingerprint == SPLITS.fingerprint


def test_ids_in_the_metadata_decide_the_order(tmp_path):
    order = np.random.default_rng(2).permutation(60)
    ids = "\n".join(SPLITS.catalogue.item_ids[row] for row in order)
    path = str(tmp_path / "v.safetensors")
    tensors = {"item": ITEM[order], "user": USER}
    safetensors.numpy.save_file(tensors, path, {"item_ids": ids})
    table = given_table(SPLITS, path)
    assert (table.item == ITEM).all() and (table.user == USER).all()
    safetensors.numpy.save_file(tensors, path, {"item_ids": ids.replace("i7\n", "x7\n")})
    with pytest.raises(UserError, match="item 'i7' is missing"):
        given_table(SPLITS, path)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (ITEM[:-1], "59 rows for 60 items"),
        (ITEM[0], "no matrix"),
        (np.where(np.arange(60)[:, None] == 3, np.nan, ITEM), "row 3 .item 'i3'. is not finite"),
        (np.array([["a"]] * 60), "no matrix"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, array, message):
    np.save(tmp_path / "items.npy", array)
    with pytest.raises(UserError, match=message):
        given_table(SPLITS, str(tmp_path / "items.npy"))


def test_another_kind_of_file_is_refused(tmp_path):
    (tmp_path / "v.bin").write_bytes(b"x")
    (tmp_path / "v.npy").write_bytes(b"x")
    for name, message in (("v.bin", "come as .npy"), ("v.npy", "cannot be read")):
        with pytest.raises(UserError, match=message):
            given_table(SPLITS, str(tmp_path / name))


def test_fit_cf_writes_them_in_the_place_of_a_fit(tmp_path, capfd):
    catalogue = SPLITS.catalogue
    catalogue.save(catalogue_dir("toy", tmp_path), {"builder": toy.VERSION})
    np.save(tmp_path / "items.npy", ITEM)
    flags = ["--dataset=toy", f"--cache_dir={tmp_path}", f"--output={tmp_path / 'cf.safetensors'}"]
    given = f"--item_vectors={tmp_path / 'items.npy'}"
    assert cli.main(["fit_cf", *flags, given]) == 0
    assert "CF (given)" in capfd.readouterr().out
    table = EmbeddingTable.load(tmp_path / "cf.safetensors", SPLITS)
    assert (table.item == ITEM).all()
    # What it wrote can be given in its turn.
    again = given_table(SPLITS, str(tmp_path / "cf.safetensors"))
    assert (again.item == ITEM).all() and (again.user == table.user).all()
    for wrong, message in (
        ([given, "--dim=3"], "--item_vectors and --dim"),
        ([f"--user_vectors={tmp_path / 'items.npy'}"], "--user_vectors alone"),
    ):
        assert cli.main(["fit_cf", *flags, *wrong]) == 2
        assert message in capfd.readouterr().err
