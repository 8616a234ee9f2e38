"""A catalogue survives the disk unchanged, and a damaged one is refused."""

import dataclasses
import json

import numpy as np
import pytest

from ilm_jax.data.catalogue.catalogue import Catalogue, count_ties, stored_sources
from ilm_jax.errors import UserError


def small(**changes):
    fields = {
        "name": "small",
        "version": "1.0.0",
        "item_ids": ["a", "b", "c"],
        "titles": ["A", "Bé", "C"],
        "texts": ["It is red.", "It is ☃.", ""],
        "content": [[(6, 9)], [(6, 7)], []],
        "categories": [["x", "y"], [], ["x"]],
        "user_ids": ["u", "v", "w"],
        "offsets": np.array([0, 3, 3, 5], np.int64),
        "items": np.array([0, 1, 2, 2, 0], np.int32),
        "ratings": np.array([1, np.nan, 3, 4, 5], np.float32),
        "timestamps": np.array([1, 2, 2, -1, -1], np.int64),
        "ties": 1,
        "extras": {"k": [1, None, "é"]},
    }
    return Catalogue(**(fields | changes))


def test_save_and_load_give_the_same_catalogue(tmp_path):
    catalogue = small()
    catalogue.save(tmp_path / "c", {"raw.csv": "abc"})
    found = Catalogue.load(tmp_path / "c")
    for field in dataclasses.fields(Catalogue):
        old, new = getattr(catalogue, field.name), getattr(found, field.name)
        if isinstance(old, np.ndarray):
            np.testing.assert_array_equal(old, new)
            assert old.dtype == new.dtype
        else:
            assert old == new
    assert found.fingerprint == catalogue.fingerprint
    assert stored_sources(tmp_path / "c") == {"raw.csv": "abc"}
    catalogue.save(tmp_path / "c")  # replaces
    assert stored_sources(tmp_path / "c") == {}
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


def test_fingerprint_sees_every_field():
    changes = {
        "name": "other",
        "version": "2",
        "item_ids": ["a", "b", "d"],
        "titles": ["A", "B", "D"],
        "texts": ["It is bad.", "It is ☃.", ""],
        "content": [[(0, 9)], [(6, 7)], []],
        "categories": [["x"], [], ["x"]],
        "user_ids": ["u", "v", "x"],
        "offsets": np.array([0, 2, 3, 5], np.int64),
        "items": np.array([0, 1, 2, 0, 2], np.int32),
        "ratings": np.zeros(5, np.float32),
        "timestamps": np.zeros(5, np.int64),
        "ties": 0,
        "extras": {},
    }
    assert set(changes) == {field.name for field in dataclasses.fields(Catalogue)}
    prints = {small(**{name: value}).fingerprint for name, value in changes.items()}
    assert len(prints | {small().fingerprint}) == len(changes) + 1


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"titles": ["A"]}, "titles has another length"),
        ({"items": np.array([0, 1, 2, 3, 0], np.int32)}, "outside the catalogue"),
        ({"items": np.array([0, 1, -1, 2, 0], np.int32)}, "outside the catalogue"),
        ({"items": np.zeros(5, np.int64)}, "vector of int32"),
        ({"offsets": np.array([0, 3, 2, 5], np.int64)}, "must rise"),
        ({"offsets": np.array([0, 3, 5], np.int64)}, "one entry more"),
        ({"item_ids": ["a", "b", "a"]}, "holds an id twice"),
        ({"content": [[(6, 90)], [], []]}, "item a do not fit"),
        ({"content": [[(6, 8), (7, 9)], [], []]}, "item a do not fit"),
        ({"ratings": np.zeros(4, np.float32)}, "differ in length"),
    ],
)
def test_parts_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        small(**changes)


def test_absent_damaged_and_edited_folders_are_refused(tmp_path):
    with pytest.raises(UserError, match="no such catalogue"):
        Catalogue.load(tmp_path / "c")
    small().save(tmp_path / "c")
    file, arrays = tmp_path / "c/catalogue.json", tmp_path / "c/interactions.npz"
    whole, data = file.read_text(), arrays.read_bytes()
    file.write_text(json.dumps(json.loads(whole) | {"ties": 7}))
    with pytest.raises(UserError, match="differs from its fingerprint"):
        Catalogue.load(tmp_path / "c")
    file.write_text(whole[:-9])
    with pytest.raises(UserError, match="not valid JSON"):
        Catalogue.load(tmp_path / "c")
    file.write_text(whole)
    arrays.write_bytes(data[:100])
    with pytest.raises(UserError, match="damaged catalogue"):
        Catalogue.load(tmp_path / "c")


def test_ties_count_known_timestamps_of_the_last_two_only():
    offsets = np.array([0, 3, 5, 6, 6, 8], np.int64)
    stamps = np.array([5, 5, 6, 7, 7, 1, -1, -1], np.int64)
    assert count_ties(offsets, stamps) == 1
