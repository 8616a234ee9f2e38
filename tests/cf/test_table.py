"""The table's file: what is written comes back, and a wrong file is one clear error."""

import dataclasses
import json

import numpy as np
import pytest
import safetensors

from ilm_jax.cf import table_ids
from ilm_jax.cf.ials import IALSConfig
from ilm_jax.cf.table import EmbeddingTable
from ilm_jax.errors import UserError
from ilm_jax.runs.fitting import fit_method

CONFIG = IALSConfig(dim=4, epochs=1)


@pytest.fixture
def splits(two_tastes):
    return two_tastes()


@pytest.fixture
def table(splits):
    return fit_method(splits, CONFIG)


def test_round_trip(tmp_path, splits, table):
    path = tmp_path / "deep" / "table.safetensors"
    table.save(path)
    read = EmbeddingTable.load(path, splits)
    for name, value in vars(table).items():
        same = np.array_equal if isinstance(value, np.ndarray) else lambda a, b: a == b
        assert same(getattr(read, name), value), name
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_many_ids_are_tensors_and_as_safe(tmp_path, splits, table, monkeypatch):
    monkeypatch.setattr(table_ids, "IN_HEADER", 5)
    path = tmp_path / "t.safetensors"
    odd = dataclasses.replace(table, user_ids=["é", *table.user_ids[1:]])
    odd.save(path)
    read = EmbeddingTable.load(path)
    assert read.user_ids == odd.user_ids and read.item_ids == table.item_ids
    with safetensors.safe_open(path, framework="numpy") as stream:
        assert "item_ids" not in json.loads(stream.metadata()["ilm_jax"])
    with pytest.raises(UserError, match="row 0 is user 'é'"):
        EmbeddingTable.load(path, splits)
    whole = path.read_bytes()
    place = whole.rindex(table.item_ids[1].encode())  # behind the header
    path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    with pytest.raises(UserError, match="damaged table"):
        EmbeddingTable.load(path)


def test_items_outside_training_are_cold_and_zero(table):
    assert table.item_cold[-1] and not table.item[-1].any()
    assert not table.user_cold.any()


def test_header_is_json_that_anybody_can_read(tmp_path, table):
    table.save(tmp_path / "t")
    with safetensors.safe_open(tmp_path / "t", framework="numpy") as stream:
        header = json.loads(stream.metadata()["ilm_jax"])
    assert header["format"] == "ilm_jax.table/1" and header["dim"] == 4
    assert header["settings"]["method"] == "ials" and header["item_ids"][0] == "i0"


@pytest.mark.parametrize("keep", [0, 5, 200, -1])
def test_truncated_file_is_a_user_error(tmp_path, table, keep):
    path = tmp_path / "t"
    table.save(path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UserError, match="truncated or no safetensors file.*ilm fit_cf"):
        EmbeddingTable.load(path)


def test_one_changed_bit_of_a_vector_is_refused_and_a_table_without_a_digest_is_read(
    tmp_path, table
):
    path = tmp_path / "t.safetensors"
    table.save(path)
    data = bytearray(path.read_bytes())
    data[-len(table.user_ids) - len(table.item_ids) - 40] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match="damaged table .its numbers are not those"):
        EmbeddingTable.load(path)
    with safetensors.safe_open(path, framework="numpy") as stream:
        header = json.loads(stream.metadata()["ilm_jax"])
        tensors = {name: stream.get_tensor(name) for name in stream.keys()}
    del header["sha256"]
    safetensors.numpy.save_file(tensors, path, {"ilm_jax": json.dumps(header)})
    assert EmbeddingTable.load(path).item_ids == table.item_ids


def test_absent_and_foreign_files_are_user_errors(tmp_path, table):
    with pytest.raises(UserError, match="no such embedding table"):
        EmbeddingTable.load(tmp_path / "absent")
    safetensors.numpy.save_file({"item": np.zeros((2, 2), np.float32)}, tmp_path / "foreign")
    with pytest.raises(UserError, match="format None instead of"):
        EmbeddingTable.load(tmp_path / "foreign")
    header = {"ilm_jax": json.dumps({"format": "ilm_jax.table/1"})}
    safetensors.numpy.save_file({"item": np.zeros((2, 2))}, tmp_path / "half", header)
    with pytest.raises(UserError, match="tensors"):
        EmbeddingTable.load(tmp_path / "half")


def test_a_table_of_another_split_is_refused(tmp_path, splits, table, two_tastes):
    path = tmp_path / "t"
    table.save(path)
    other_split = dataclasses.replace(splits.config, seed=1)
    with pytest.raises(UserError, match="another split"):
        EmbeddingTable.load(path, dataclasses.replace(splits, config=other_split))
    with pytest.raises(UserError, match="is of tiny, not of other"):
        EmbeddingTable.load(path, two_tastes(name="other"))
    with pytest.raises(UserError, match="61"):
        EmbeddingTable.load(path, two_tastes(users=61))
    renamed = dataclasses.replace(table, item_ids=["x", *table.item_ids[1:]])
    with pytest.raises(UserError, match="row 0 is item 'x'"):
        renamed.check(splits)


def test_inconsistent_parts_are_refused(table):
    broken = table.item.copy()
    broken[0, 0] = np.inf
    for change, message in (
        ({"item": broken}, "not finite"),
        ({"item_ids": table.item_ids[:-1]}, "ids"),
        ({"item_ids": ["i1", *table.item_ids[1:]]}, "twice"),
        ({"item_cold": ~table.item_cold}, "cold item"),
        ({"user": table.user[:, :3]}, "user vectors"),
    ):
        with pytest.raises(ValueError, match=message):
            dataclasses.replace(table, **change)
