"""Codes of items: every item has one, what is written comes back, and a wrong file is one error."""

import dataclasses
import json

import numpy as np
import pytest
import safetensors

from ilm_jax.data.catalogue.splits import SplitConfig, make_splits
from ilm_jax.data.examples import item_index
from ilm_jax.data.examples.item_codes import ItemCodes, code_of, code_word
from ilm_jax.data.examples.task_families import spec_named
from ilm_jax.data.examples.task_keys import plain_settings
from ilm_jax.data.examples.task_settings import TaskSettings
from ilm_jax.errors import UserError
from tests.data.small_catalogue import small_catalogue
from tests.data.small_codes import small_codes

SPLITS = make_splits(small_catalogue())
CODES = small_codes(SPLITS)


@pytest.fixture
def path(tmp_path):
    CODES.save(tmp_path / "codes")
    return tmp_path / "codes"


def test_what_is_written_comes_back(path):
    read = ItemCodes.load(path, SPLITS)
    for name, value in vars(CODES).items():
        if name == "quantizer":
            assert all(np.array_equal(read.quantizer[key], array) for key, array in value.items())
        elif name != "names":
            assert np.array_equal(getattr(read, name), value), name
    assert [file.name for file in path.parent.iterdir()] == ["codes"]
    with safetensors.safe_open(path, framework="numpy") as stream:
        assert json.loads(stream.metadata()["ilm_jax"])["format"] == "ilm_jax.codes/1"


def test_from_codes_to_names_and_back():
    assert len(set(CODES.names)) == len(CODES.item_ids)
    assert [code_of(name) for name in CODES.names] == [tuple(row) for row in CODES.codes.tolist()]
    assert CODES.names[5] == "<a_1><b_1><c_0>" and set(CODES.words) > set(CODES.words[:4])
    for text in ("", "item_7", "<b_1>", "<a_1> <b_1>", "<a_1><c_1>", "<a_1><b_1>."):
        assert code_of(text) is None


def test_two_items_never_share_a_code():
    codes = CODES.codes.copy()
    codes[1] = codes[0]
    with pytest.raises(ValueError, match="share a code"):
        dataclasses.replace(CODES, codes=codes)


OTHERS = {
    "of other": (small_catalogue(name="mine"), SplitConfig(), "is of toy, not of mine"),
    "fewer": (small_catalogue(items=50), SplitConfig(), "60 items, the catalogue has 50"),
    "split": (small_catalogue(), SplitConfig(seed=1), "made on another split"),
}


@pytest.mark.parametrize("catalogue, split, message", OTHERS.values(), ids=OTHERS)
def test_codes_of_another_catalogue_or_split_are_refused(path, catalogue, split, message):
    with pytest.raises(UserError, match=message):
        ItemCodes.load(path, make_splits(catalogue, split))


@pytest.mark.parametrize("keep", [0, 7, 300, -1])
def test_a_truncated_file_is_refused(path, keep):
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UserError, match=r"truncated or no safetensors file.*ilm semantic_ids"):
        ItemCodes.load(path)


def test_a_changed_number_is_refused(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(UserError, match="damaged codes"):
        ItemCodes.load(path)


def test_semantic_ids_are_the_files(path):
    settings = TaskSettings(item_index="semantic", item_codes=str(path))
    assert item_index.item_names(SPLITS, settings) == CODES.names
    assert item_index.vocabulary(settings) == CODES.words
    assert item_index.vocabulary(TaskSettings(item_codes=str(path)), "semantic") == CODES.words
    assert item_index.vocabulary(settings, "") == []
    assert code_word(0, 3) in CODES.words
    with pytest.raises(UserError, match="semantic ids need a file of codes"):
        item_index.item_names(SPLITS, TaskSettings(item_index="semantic"))


def test_a_cache_is_named_by_the_codes_and_not_by_their_path(path, tmp_path):
    spec = spec_named("sequential_semantic")

    def named(file):
        return plain_settings(spec, TaskSettings(item_codes=str(file)))

    CODES.save(tmp_path / "again")
    other = dataclasses.replace(CODES, codes=CODES.codes[::-1].copy())
    other.save(tmp_path / "other")
    assert named(path) == named(tmp_path / "again") != named(tmp_path / "other")
    assert "item_codes" not in plain_settings(spec_named("sequential_random"), TaskSettings())
