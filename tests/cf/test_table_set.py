"""Tables stacked into one array: blocks, scales, fingerprints; the same whatever their size."""

import subprocess
import sys

import numpy as np
import pytest

from ilm_jax.cf import row_blocks, table_file, table_ids
from ilm_jax.cf.ials import IALSConfig
from ilm_jax.cf.table import EmbeddingTable
from ilm_jax.cf.table_set import BLOCK_MULTIPLE, TableSet, unit_rms
from ilm_jax.errors import UserError
from ilm_jax.runs.fitting import fit_method

CONFIG = IALSConfig(dim=4, epochs=1)


@pytest.fixture
def table(two_tastes):
    return fit_method(two_tastes(), CONFIG)


def test_tables_stack_into_blocks_with_room(table, two_tastes):
    other = fit_method(two_tastes(users=700, name="other/b"), CONFIG)
    stacked = TableSet(table, other)
    sizes = {name: block.capacity for name, block in stacked.blocks.items()}
    assert sizes == {
        "tiny/item": BLOCK_MULTIPLE,
        "tiny/user": BLOCK_MULTIPLE,
        "other/b/item": BLOCK_MULTIPLE,
        "other/b/user": 2 * BLOCK_MULTIPLE,
    }
    assert stacked.vectors.shape == (5 * BLOCK_MULTIPLE, 4)
    row = stacked.row("other/b/user", 3)
    assert row == 3 * BLOCK_MULTIPLE + 3
    scale = stacked.vectors[row] / other.user[3]
    np.testing.assert_allclose(scale, scale[0], rtol=1e-5)
    rows = stacked.rows("other/b/user", np.arange(700))
    assert np.mean(stacked.vectors[rows] ** 2) == pytest.approx(1.0, rel=1e-4)
    assert stacked.cold.sum() == 5 * BLOCK_MULTIPLE - 24 - 60 - 24 - 700 + 4
    plain = TableSet(table, normalise="none")
    np.testing.assert_array_equal(plain.vectors[:24], table.item)
    assert plain.fingerprint != TableSet(table).fingerprint == TableSet(table).fingerprint


def test_vectors_are_scaled_by_the_rows_that_are_not_cold():
    vectors, cold = np.array([[3.0, 4.0], [90.0, 0.0]], np.float32), np.array([False, True])
    scaled = unit_rms(vectors, cold)
    assert np.mean(scaled[0] ** 2) == pytest.approx(1) and scaled.dtype == np.float32
    assert scaled[1, 0] == pytest.approx(90 / np.sqrt(12.5))
    np.testing.assert_array_equal(unit_rms(vectors, ~np.zeros(2, bool)), vectors)
    assert not unit_rms(np.zeros_like(vectors), cold).any()


def test_wrong_rows_blocks_and_tables_are_user_errors(table, two_tastes):
    stacked = TableSet(table)
    with pytest.raises(UserError, match="outside block 'tiny/item'"):
        stacked.row("tiny/item", 24)
    with pytest.raises(UserError, match="outside"):
        stacked.row("tiny/item", -1)
    with pytest.raises(UserError, match="no block"):
        stacked.row("large/item", 0)
    with pytest.raises(UserError, match="once"):
        TableSet(table, table)
    wide = fit_method(two_tastes(name="wide"), IALSConfig(dim=5, epochs=1))
    with pytest.raises(UserError, match="tiny has 4, wide has 5"):
        TableSet(table, wide)


@pytest.mark.parametrize("normalise", ["rms", "none"])
def test_large_tables_are_mapped_and_say_the_same(tmp_path, monkeypatch, table, normalise):
    monkeypatch.setenv("ILM_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "cf.safetensors"
    table.save(file)
    known = {"tiny/item": 20, "tiny/user": 50}
    whole = TableSet(table, normalise=normalise, known=known)
    grown = whole.fingerprint_of(known)
    monkeypatch.setattr(table_ids, "IN_HEADER", 0)
    table.save(tmp_path / "many.safetensors")
    monkeypatch.setattr(row_blocks, "BLOCK_ENTRIES", 28)
    monkeypatch.setattr(row_blocks, "IN_MEMORY_BYTES", 1)
    monkeypatch.setattr(table_file, "MAPPED_BYTES", 1)
    for name in ("cf", "many"):
        read = EmbeddingTable.load(tmp_path / f"{name}.safetensors")
        assert not read.item.flags.writeable and list(read.item_ids) == list(table.item_ids)
        stacked = TableSet(read, normalise=normalise, known=known)
        np.testing.assert_allclose(stacked.vectors, whole.vectors, rtol=1e-6)
        np.testing.assert_array_equal(stacked.cold, whole.cold)
        if normalise == "none":  # a sum over blocks may round otherwise
            assert stacked.fingerprint == whole.fingerprint
            assert stacked.fingerprint_of(known) == grown != whole.fingerprint
        assert not list((tmp_path / "cache").iterdir())  # the file has no name


@pytest.mark.parametrize("kept", [0, 7, 300, -1])
def test_a_mapped_file_that_is_cut_is_a_user_error(tmp_path, monkeypatch, table, kept):
    monkeypatch.setattr(table_file, "MAPPED_BYTES", 1)
    file = tmp_path / "cf.safetensors"
    table.save(file)
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(UserError, match="truncated or no safetensors file"):
        EmbeddingTable.load(file)


LIMITED = """
import resource, sys
import numpy as np
from ilm_jax.cf import row_blocks, table_file
from ilm_jax.cf.table import EmbeddingTable
from ilm_jax.cf.table_set import TableSet

row_blocks.BLOCK_ENTRIES, row_blocks.IN_MEMORY_BYTES = 1 << 20, int(sys.argv[2])
told = open("/proc/self/status").read()
taken = int(told.split("VmData:")[1].split()[0]) << 10
resource.setrlimit(resource.RLIMIT_DATA, (taken + (180 << 20),) * 2)
stacked = TableSet(EmbeddingTable.load(sys.argv[1]))
print(round(float(np.mean(stacked.vectors[:1000] ** 2)), 2), stacked.vectors.nbytes >> 20)
"""


def test_a_table_above_memory_is_opened(tmp_path, monkeypatch):
    """400 MiB of vectors with 180 MiB of memory to spend, a third of it for threads."""
    rng = np.random.default_rng(0)
    item, user = (rng.normal(0, 3, (rows, 512)).astype(np.float32) for rows in (200_000, 5_000))
    ids = {kind: [f"{kind}{n}" for n in range(len(x))] for kind, x in (("i", item), ("u", user))}
    file = tmp_path / "cf.safetensors"
    EmbeddingTable(
        catalogue="large",
        item=item,
        user=user,
        item_cold=np.zeros(len(item), bool),
        user_cold=np.zeros(len(user), bool),
        item_ids=ids["i"],
        user_ids=ids["u"],
        split_fingerprint="none",
        settings={},
    ).save(file)
    monkeypatch.setenv("ILM_CACHE", str(tmp_path / "cache"))

    def opened(in_memory):
        command = [sys.executable, "-c", LIMITED, str(file), str(in_memory)]
        return subprocess.run(command, check=False, capture_output=True, text=True)

    done = opened(1 << 20)
    assert done.stdout.split() == ["1.0", "401"], done.stderr[-500:]
    assert "MemoryError" in opened(1 << 40).stderr  # the limit is one
