"""A catalogue survives the disk unchanged, and a damaged one is refused."""

import dataclasses
import hashlib
import json
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ilm_jax.data.catalogue.catalogue import Catalogue, count_ties, stored_sources
from ilm_jax.data.catalogue.places import Places, sorted_rows
from ilm_jax.data.catalogue.strings import Lists, Strings
from ilm_jax.errors import UserError
from ilm_jax.files import sha256_json
from tests.data.small_catalogue import small_catalogue


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
            assert isinstance(new, np.ndarray)
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
    file, items = tmp_path / "c/catalogue.json", tmp_path / "c/items.npy"
    whole, data = file.read_text(), items.read_bytes()
    file.write_text(json.dumps(json.loads(whole) | {"ties": 7}))
    with pytest.raises(UserError, match="differs from its fingerprint"):
        Catalogue.load(tmp_path / "c")
    file.write_text(whole[:-9])
    with pytest.raises(UserError, match="not valid JSON"):
        Catalogue.load(tmp_path / "c")
    file.write_text(whole)
    for path in sorted((tmp_path / "c").glob("*.npy")):
        whole_file = path.read_bytes()
        path.write_bytes(whole_file[:-1] + bytes([whole_file[-1] ^ 1]))
        with pytest.raises(UserError, match=f"{path.name}: content differs from its fingerprint"):
            Catalogue.load(tmp_path / "c")
        path.write_bytes(whole_file)
    items.unlink()
    with pytest.raises(UserError, match="damaged catalogue"):
        Catalogue.load(tmp_path / "c")
    items.write_bytes(data)
    assert Catalogue.load(tmp_path / "c").ties == 1


def test_a_saved_catalogue_is_mapped_and_reads_like_lists(tmp_path):
    catalogue = small(titles=["A", "Bé", ""], item_ids=["é", "b", "a"], user_ids=["w", "é", "u"])
    catalogue.save(tmp_path / "c")
    found = Catalogue.load(tmp_path / "c")
    assert isinstance(found.items.base, np.memmap) and isinstance(found.texts, Strings)
    assert (
        found.titles[-1] == "" and found.titles[0:2] == ["A", "Bé"] and found.titles[::2][0] == "A"
    )
    assert list(found.content) == catalogue.content and found.categories[1] == []
    assert "Bé" in found.titles and found.titles != ["A", "Bé"]
    with pytest.raises(IndexError):
        found.titles[3]
    assert dict(found.item_row) == {"é": 0, "b": 1, "a": 2} and found.user_row["u"] == 2
    assert "c" not in found.item_row and found.user_row.get("") is None
    again = pickle.loads(pickle.dumps(found))
    assert isinstance(again.items.base, np.memmap) and again.fingerprint == found.fingerprint
    assert pickle.loads(pickle.dumps(catalogue)).fingerprint == catalogue.fingerprint
    small().save(tmp_path / "c")  # in its place; what is mapped stays as it was
    assert found.item_ids[0] == "é"
    with pytest.raises(UserError, match="made again while it was in use"):
        pickle.loads(pickle.dumps(found))


def test_the_fingerprint_is_that_of_one_json_and_the_arrays():
    catalogue, other = small_catalogue(), small()
    for found in (catalogue, other, dataclasses.replace(other, item_ids=Strings.of("abc"))):
        plain = {n: list(v) if isinstance(v, Strings) else v for n, v in vars(found).items()}
        arrays = {n: v for n, v in plain.items() if isinstance(v, np.ndarray)}
        text = sha256_json({n: v for n, v in plain.items() if n not in arrays})
        digest = hashlib.sha256(text.encode())
        for name, array in arrays.items():
            digest.update(f"{name}:{len(array)}:".encode() + array.tobytes())
        assert found.fingerprint == digest.hexdigest()


@given(
    lists=st.lists(st.lists(st.text(st.characters(codec="utf-8"), max_size=5), max_size=4)),
    rows=st.lists(st.integers(0, 10**6)),
)
def test_columns_are_their_lists(lists, rows):
    texts = [text for each in lists for text in each]
    column, nested = Strings.of(iter(texts)), Lists.of_texts(lists)
    assert column == texts and list(column) == texts and nested == lists and lists == nested
    assert [column[row] for row in range(len(texts))] == texts
    chosen = [row % len(texts) for row in rows] if texts else []
    assert column.take(np.array(chosen, int)) == [texts[row] for row in chosen]
    different = Strings.of(dict.fromkeys(texts))
    order = sorted_rows(different)
    assert list(map(str.encode, (different[row] for row in order))) == sorted(
        map(str.encode, different)
    )
    places = Places(different, order)
    assert all(places[text] == row for row, text in enumerate(different))
    if len(texts) > len(different):
        with pytest.raises(ValueError, match="there twice"):
            sorted_rows(column)
    spans = [[(len(text), 7)] * (k % 3) for k, text in enumerate(texts)]
    assert Lists.of_pairs(spans) == spans


def test_ties_count_known_timestamps_of_the_last_two_only():
    offsets = np.array([0, 3, 5, 6, 6, 8], np.int64)
    stamps = np.array([5, 5, 6, 7, 7, 1, -1, -1], np.int64)
    assert count_ties(offsets, stamps) == 1


@pytest.mark.parametrize("bounds", [[], [0], [1, 3], [0, 2, 1, 3], [0, 2], [0, 4]])
def test_bounds_that_are_not_those_of_the_entries_are_refused(bounds):
    bounds = np.array(bounds, np.int64)
    with pytest.raises(ValueError, match="bounds must"):
        Strings(np.frombuffer(b"abc", np.uint8), bounds)
    with pytest.raises(ValueError, match="bounds must"):
        Lists(np.zeros((3, 2), np.int32), bounds)
