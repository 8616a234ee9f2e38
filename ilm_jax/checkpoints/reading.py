"""Entries straight into the shards of arrays on the mesh, one tensor at a time.

Each process reads the slices that its own devices hold, no more. A stack of layers is made on the
devices and filled row by row, so that the host never holds more than one layer's part.
"""

import functools
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jax.typing import ArrayLike

from ilm_jax.checkpoints.published.entries import Entry
from ilm_jax.checkpoints.published.hugging_face import Index, resolve


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
    stack = jnp.zeros(like.shape, like.dtype, device=sharding)
    for i, entry in enumerate(entries):
        # Waiting keeps at most one row on the host.
        stack = jax.block_until_ready(_set_row(sharding)(stack, _place(entry, row), np.int32(i)))
    return stack


Ranges = tuple[tuple[int, int], ...]


def _place(entry: Entry, like: jax.ShapeDtypeStruct) -> jax.Array:
    """An entry on the mesh; its own process's part is read once, whatever the devices share."""
    shape, sharding = like.shape, like.sharding
    assert sharding is not None
    indices = sharding.addressable_devices_indices_map(shape).values()
    parts: dict[Ranges, np.ndarray] = {}
    for ranges in {_ranges(index, shape) for index in indices}:
        parts[ranges] = np.empty([stop - start for start, stop in ranges], like.dtype)
    ends = [list(zip(*axis, strict=True)) for axis in zip(*parts, strict=True)]
    box: Ranges = tuple((min(starts), max(stops)) for starts, stops in ends)
    together = sum(part.size for part in parts.values()) == math.prod(b - a for a, b in box)
    if len(parts) > 1 and together and entry.cheap_axis is not None:
        _deal(entry, box, parts)
    else:
        for ranges in parts:
            parts[ranges] = entry.read(_slices(ranges), like.dtype)

    def read(index: tuple[slice, ...] | None) -> np.ndarray:
        """The part at this index, which was read above."""
        return parts[_ranges(index, shape)]

    return jax.make_array_from_callback(shape, sharding, read, dtype=like.dtype)


def _deal(entry: Entry, box: Ranges, parts: dict[Ranges, np.ndarray]) -> None:
    """Reads `box` a block at a time and gives every part its share of it."""
    for place, value in entry.blocks(_slices(box)):
        block = [start for start, _ in box]
        starts = [first + (p.start or 0) for first, p in zip(block, place, strict=True)]
        for ranges, part in parts.items():
            here, there = [], []
            for start, size, (a, b) in zip(starts, value.shape, ranges, strict=True):
                low, high = max(start, a), max(min(start + size, b), max(start, a))
                here.append(slice(low - start, high - start))
                there.append(slice(low - a, high - a))
            part[tuple(there)] = value[tuple(here)]


def _ranges(index: tuple[slice, ...] | None, shape: Sequence[int]) -> Ranges:
    assert index is not None
    return tuple(resolve(index, shape))


def _slices(ranges: Ranges) -> Index:
    return tuple(slice(start, stop) for start, stop in ranges)


@functools.lru_cache
def _set_row(
    sharding: NamedSharding,
) -> Callable[[jax.Array, jax.Array, ArrayLike], jax.Array]:
    def put(stack: jax.Array, row: jax.Array, i: jax.Array) -> jax.Array:
        """The stack with layer i replaced by `row`."""
        return jax.lax.dynamic_update_index_in_dim(stack, row, i, 0)

    return jax.jit(put, donate_argnums=0, out_shardings=sharding)
