"""A dataset of a new format comes from outside; one that is there is never replaced."""

import numpy as np
import pytest

from ilm_jax import user_modules
from ilm_jax.data.examples.prompts import dataset_word
from ilm_jax.data.sources import prepare, registry
from ilm_jax.data.sources.assemble import from_sequences
from ilm_jax.data.sources.dataset_source import DatasetSource, folder_hashes
from ilm_jax.data.sources.registry import DATASETS, check_name, register_dataset
from ilm_jax.errors import UserError


def read(folder, dataset):
    return from_sequences(dataset, "1.0.0", {"u": ["a", "b", "a"], "v": ["b", "c", "d"]})


@pytest.fixture(autouse=True)
def apart(monkeypatch):
    """What a test registers is forgotten after it."""
    monkeypatch.setattr(DATASETS, "_entries", dict(DATASETS._entries))
    monkeypatch.setattr(user_modules, "_noted", {})


def test_a_registered_dataset_is_known_by_its_name(tmp_path):
    register_dataset(DatasetSource("shop", "1.0.0", read))
    register_dataset(DatasetSource("fair", "2.0.1", read, releases=("spring", "autumn")))
    assert check_name("shop") == ("shop", "") and check_name("fair/spring") == ("fair", "spring")
    assert registry.known_names()[-3:] == ["shop", "fair/spring", "fair/autumn"]
    assert dataset_word("shop") == "shop" and dataset_word("fair/spring") == "spring"
    for wrong in ("shop/x", "fair", "fair/summer", "shops"):
        with pytest.raises(UserError, match=f"no dataset '{wrong}'.*custom.*fair/autumn"):
            check_name(wrong)
    # Made again when a file or the reader's version changes.
    (tmp_path / "baskets.txt").write_text("one")
    path = prepare.catalogue_dir("shop", tmp_path / "cache")
    sources = {"builder": "1.0.0"} | folder_hashes(str(tmp_path))
    read("", "shop").save(path, sources)
    assert prepare.is_fresh("shop", tmp_path, path)
    (tmp_path / "baskets.txt").write_text("two")
    assert prepare.why_stale("shop", tmp_path, path) == "baskets.txt has changed"
    with pytest.raises(UserError, match="no such folder"):
        prepare.why_stale("shop", tmp_path / "none", path)


def test_a_second_dataset_of_a_name_is_refused():
    with pytest.raises(UserError, match="there is a dataset 'toy' already"):
        register_dataset(DatasetSource("toy", "1.0.0", read))
    with pytest.raises(UserError, match="give a function `read`"):
        register_dataset(DatasetSource("shop", "1.0.0"))
    with pytest.raises(UserError, match="give a name of a-z"):
        DatasetSource("My shop", "1.0.0", read)
    with pytest.raises(UserError, match="give one like 1.0.0"):
        DatasetSource("shop", "1", read)


def test_sequences_become_a_catalogue():
    catalogue = read("", "shop")
    assert catalogue.item_ids == ["a", "b", "c", "d"] and catalogue.user_ids == ["u", "v"]
    assert [catalogue.sequence(user).tolist() for user in (0, 1)] == [[0, 1, 0], [1, 2, 3]]
    assert catalogue.titles == catalogue.item_ids and np.isnan(catalogue.ratings).all()


def test_what_a_notebook_registers_no_other_process_can_import(monkeypatch):
    monkeypatch.setattr(user_modules, "_noted", {"__main__": None})
    import sys

    main = type(sys)("__main__")
    monkeypatch.setitem(sys.modules, "__main__", main)
    with pytest.raises(UserError, match="write the registration into a file"):
        user_modules.words()


def test_a_module_that_cannot_be_imported_is_one_line():
    with pytest.raises(UserError, match="--import=no_such_module: .*name a module that Python"):
        user_modules.load(["no_such_module"])
    with pytest.raises(UserError, match="--import=/no/file.py"):
        user_modules.load(["/no/file.py"])
