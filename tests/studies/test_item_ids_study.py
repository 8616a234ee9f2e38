"""The study of ids trains the same recipe by ids of every kind, and deals vectors anew for one."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest

from ilm_jax.cf.table import EmbeddingTable
from ilm_jax.data.catalogue.splits import SplitConfig, make_splits
from tests.data.small_catalogue import small_catalogue

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def study(script):
    return script("item_ids")


def test_rows_differ_in_the_ids_alone(study, tmp_path):
    made = study.ItemIdsStudy("toy", 0, tmp_path, bindings={"TRAIN_STEPS": 3})
    steps = {name: words for name, words, _ in made.steps([0, 5])}
    ids = ("ITEM_INDEX", "new_tokens", "item_codes", "MODEL_DIR", "SEED")

    def shared(words):
        return [word for word in words if not any(f"{name}=" in word for name in ids)]

    for seed in (0, 5):
        trained = [steps[f"{row}-{seed}"] for row in study.ROWS]
        assert all(shared(words) == shared(trained[0]) for words in trained)
        assert f"--gin.SEED={seed}" in trained[0] and "--gin.AUXILIARY=0.0" in trained[0]
    for row in ("semantic", "shuffled"):
        (codes,) = [word for word in steps[f"{row}-0"] if "item_codes" in word]
        assert codes.endswith(f"{steps[f'codes of {row}'][-1].removeprefix('--output=')}'")
    assert f"--tables={tmp_path / 'shuffled.cf.safetensors'}" in steps["codes of shuffled"]


def test_rows_without_codes_need_no_vectors(study, tmp_path):
    made = study.ItemIdsStudy("toy", 0, tmp_path, rows=("random",))
    assert [name for name, _, _ in made.steps([0])] == ["random-0", "evaluate random-0"]


def test_vectors_are_dealt_anew_to_the_items_that_have_one(tmp_path):
    splits = make_splits(small_catalogue(items=12, users=40), SplitConfig(0.0))
    item = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)
    item[[2, 7]] = 0
    table = EmbeddingTable.of(splits, item, np.zeros((40, 3), np.float32), {})
    table.save(tmp_path / "one.safetensors")
    script = [sys.executable, str(ROOT / "studies/shuffled_vectors.py")]
    script += [f"--table={tmp_path}/one.safetensors", f"--output={tmp_path}/two.safetensors"]
    subprocess.run(script, check=True)
    dealt = EmbeddingTable.load(tmp_path / "two.safetensors", splits)
    moved = (dealt.item != table.item).any(axis=1)
    assert moved.sum() >= 6 and not moved[[2, 7]].any()
    assert sorted(map(tuple, dealt.item)) == sorted(map(tuple, table.item))
    assert np.array_equal(dealt.user, table.user)
    script[2] = f"--table={tmp_path}/none.safetensors"
    missing = subprocess.run(script, capture_output=True, text=True, check=False)
    assert (missing.returncode, missing.stderr.count("\n")) == (2, 1)
