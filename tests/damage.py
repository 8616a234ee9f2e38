"""Damages what ilm_jax itself writes, seeded, and says what may be read of it afterwards.

A kind is a folder that `make` writes, and `read`, whose result must be as before or a UserError of
one line: numbers of tables, caches, catalogues and checkpoints have digests or checksums.
"""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import safetensors.numpy

from ilm_jax.cf.given_vectors import given_table
from ilm_jax.cf.ials import IALSConfig
from ilm_jax.cf.table import EmbeddingTable
from ilm_jax.checkpoints.checkpoints import CheckpointConfig, Checkpoints
from ilm_jax.data.catalogue.catalogue import Catalogue
from ilm_jax.data.catalogue.splits import make_splits
from ilm_jax.data.streams import task_cache
from ilm_jax.data.streams.cached_task import CachedTask
from ilm_jax.errors import UserError
from ilm_jax.runs.fitting import fit_method
from ilm_jax.training.resuming import check_bits
from tests.checkpoints.mutating import damage_json, pick
from tests.data.small_catalogue import small_catalogue
from tests.training.small import make_trainer

Rng = np.random.Generator
FEATURES = (("key", "text"), ("tokens", "ints"), ("row", "int"))
SPLITS = make_splits(small_catalogue())


class Kind(NamedTuple):
    """How a folder is made, damaged and read."""

    make: Callable[[pathlib.Path], None]
    read: Callable[[pathlib.Path], Any]
    damage: Callable[[pathlib.Path, Rng], str]


def damage_bytes(file: pathlib.Path, rng: Rng) -> str:
    """A bit turned, some bytes replaced, the end cut off, bytes put behind, or nothing left."""
    data = bytearray(file.read_bytes())
    kind = pick(rng, ("bit", "bit", "bytes", "cut", "more", "empty"))
    place = int(rng.integers(len(data) or 1))
    if kind == "bit":
        data[place] ^= 1 << int(rng.integers(8))
    elif kind == "bytes":
        data[place : place + 4] = rng.bytes(4)
    elif kind == "more":
        data += rng.bytes(8)
    file.write_bytes(data[:place] if kind == "cut" else b"" if kind == "empty" else data)
    return f"{kind} at {place} of {file.name}"


def damage_any(folder: pathlib.Path, rng: Rng) -> str:
    """One file lost or damaged; of JSON, its values too."""
    file = pick(rng, sorted(path for path in folder.rglob("*") if path.is_file()))
    kind = pick(rng, ("bytes", "bytes", "bytes", "json", "lose"))
    if kind == "lose":
        file.unlink()
        return f"{file.name} lost"
    if kind == "json" and file.suffix == ".json":
        return damage_json(file, rng)
    return damage_bytes(file, rng)


def _make_table(folder: pathlib.Path) -> None:
    folder.mkdir()
    fit_method(SPLITS, IALSConfig(dim=4, epochs=1)).save(folder / "t.safetensors")


def _table(folder: pathlib.Path) -> Any:
    table = EmbeddingTable.load(folder / "t.safetensors", SPLITS)
    return [table.item.tolist(), table.user.tolist(), table.item_ids, table.user_ids]


def _make_vectors(folder: pathlib.Path) -> None:
    folder.mkdir()
    item = np.random.default_rng(0).normal(size=(SPLITS.catalogue.num_items, 4))
    ids = "\n".join(SPLITS.catalogue.item_ids)
    safetensors.numpy.save_file(
        {"item": item.astype(np.float32)}, folder / "v.safetensors", {"item_ids": ids}
    )


def _vectors(folder: pathlib.Path) -> Any:
    """Somebody else's file: its numbers have no digest, so finite ones in their shape are right."""
    table = given_table(SPLITS, str(folder / "v.safetensors"))
    assert np.isfinite(table.item).all()
    return table.item.shape


def _make_cache(folder: pathlib.Path) -> None:
    rows = [
        {"key": f"k{i}", "tokens": np.arange(i % 9, dtype=np.int32), "row": i} for i in range(40)
    ]
    task_cache.write(folder / "t-1" / "train", FEATURES, iter(rows), {"dataset": "toy"}, len(rows))


def _cache(folder: pathlib.Path) -> Any:
    rows = list(CachedTask(folder / "t-1" / "train"))
    return [(row["key"], row["tokens"].tolist(), int(row["row"])) for row in rows]


def _make_catalogue(folder: pathlib.Path) -> None:
    SPLITS.catalogue.save(folder, {"builder": "1"})


def _catalogue(folder: pathlib.Path) -> str:
    """Its fingerprint, taken anew of what is read."""
    found = Catalogue.load(folder)
    return dataclasses.replace(found).fingerprint


def _make_run(folder: pathlib.Path) -> None:
    make_trainer(folder, steps=4, checkpoint=CheckpointConfig(keep_last=1, keep_best=0)).fit()


@functools.cache
def _fresh() -> Any:
    trainer = make_trainer("never written", steps=4)
    return trainer.initial_state(trainer.optimizer.build(4))[0]


def _run(folder: pathlib.Path) -> Any:
    state = _fresh()
    checkpoints = Checkpoints(folder)
    try:
        if checkpoints.latest_step is None:
            raise UserError("no checkpoint")
        state, positions, meta = checkpoints.resume(state)
        check_bits(str(folder), meta, state, meta["frozen"])
    finally:
        checkpoints.close()
    leaves = [np.asarray(leaf).tolist() for leaf in jax.tree.leaves(state)]
    return leaves, dict(positions.next_example)


KINDS = {
    "table": Kind(_make_table, _table, damage_any),
    "vectors": Kind(_make_vectors, _vectors, damage_any),
    "cache": Kind(_make_cache, _cache, damage_any),
    "catalogue": Kind(_make_catalogue, _catalogue, damage_any),
    "checkpoint": Kind(_make_run, _run, lambda f, rng: damage_any(f / "checkpoints", rng)),
}


def outcome(kind: Kind, folder: pathlib.Path, whole: Any) -> str:
    """Reads a damaged folder: "read" or "refused"; an AssertionError for anything else."""
    try:
        found = kind.read(folder)
    except UserError as error:
        assert "\n" not in str(error), f"more than one line: {error}"
        return "refused"
    assert json.dumps(found) == json.dumps(whole), "read as something else"
    return "read"
