"""Entries straight into the shards of arrays on the mesh, one tensor at a time.

Each process reads the slices that its own devices hold, no more. A stack of layers is made on the
devices and filled row by row, so that the host never holds more than one layer's part.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from ilm_jax.interop.entries import Entry


def read_array(entries: Sequence[Entry], like: jax.ShapeDtypeStruct, *, stacked: bool) -> jax.Array:
    """An array in the shape, type and sharding of `like`.

    Args:
      entries: its rows where `stacked`, else it alone.
      like: what it shall be, on a NamedSharding.
      stacked: the first dimension is made of entries.
    """
    if not stacked:
        return _place(entries[0], like)
    sharding = like.sharding
    assert isinstance(sharding, NamedSharding)
    row = jax.ShapeDtypeStruct(
        like.shape[1:],
        like.dtype,
        sharding=NamedSharding(sharding.mesh, PartitionSpec(*sharding.spec[1:])),
    )
    stack = _zeros(like.shape, like.dtype, sharding)
    for i, entry in enumerate(entries):
        # Waiting keeps at most one row on the host.
        stack = jax.block_until_ready(_set_row(sharding)(stack, _place(entry, row), np.int32(i)))
    return stack


def _place(entry: Entry, like: jax.ShapeDtypeStruct) -> jax.Array:
    parts: dict[tuple[tuple[Any, Any], ...], np.ndarray] = {}

    def read(index: tuple[slice, ...] | None) -> np.ndarray:
        assert index is not None
        # Replicas share a read.
        key = tuple((part.start, part.stop) for part in index)
        if key not in parts:
            parts[key] = entry.read(index, like.dtype)
        return parts[key]

    assert like.sharding is not None
    return jax.make_array_from_callback(like.shape, like.sharding, read, dtype=like.dtype)


@functools.lru_cache
def _set_row(sharding: NamedSharding) -> Any:
    def put(stack: jax.Array, row: jax.Array, i: jax.Array) -> jax.Array:
        return jax.lax.dynamic_update_index_in_dim(stack, row, i, 0)

    return jax.jit(put, donate_argnums=0, out_shardings=sharding)


def _zeros(shape: tuple[int, ...], dtype: Any, sharding: NamedSharding) -> jax.Array:
    return jax.jit(lambda: jnp.zeros(shape, dtype), out_shardings=sharding)()
