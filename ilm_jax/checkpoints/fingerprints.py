"""Fingerprints of parameters: the same whatever the mesh, the stacking and the device."""

import hashlib
from collections.abc import Mapping
from types import ModuleType

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, UInt32

from ilm_jax.checkpoints.layout import disk_names, is_stacked
from ilm_jax.checkpoints.published.entries import BLOCK_BYTES

# A leaf up to this size is summed by NumPy: compiling a program for its shape takes longer.
SMALL_BYTES = 16 << 20
_WIDTHS = {1: "uint8", 2: "uint16", 4: "uint32"}


def _sum(
    xp: ModuleType, bits: UInt32[Array | np.ndarray, "*shape"], start: Array | int = 0
) -> UInt32[Array | np.ndarray, ""]:
    """A 32-bit checksum: wrapping sums of whole numbers, so that their order does not count.

    Args:
      xp: numpy or jax.numpy.
      bits: of an array.
      start: number of the first row, where they are a part of it: the sums of parts add up.
    """
    position = xp.uint32(0)
    for axis, size in enumerate(bits.shape):
        index = xp.arange(size, dtype=xp.uint32)
        index = index + xp.asarray(start, xp.uint32) if axis == 0 else index
        position = position[..., None] * xp.uint32(1_000_003) + index
    mixed = (bits ^ (position * xp.uint32(2_654_435_761))) * xp.uint32(2_246_822_519)
    return xp.sum(mixed ^ (mixed >> xp.uint32(15)), dtype=xp.uint32)


@jax.jit
def _on_device(leaf: jax.Array, start: jax.Array | int = 0) -> jax.Array:
    bits = jax.lax.bitcast_convert_type(leaf, _WIDTHS[leaf.dtype.itemsize])
    return jnp.asarray(_sum(jnp, bits.astype(jnp.uint32), start))


_rows_on_device = jax.jit(jax.vmap(_on_device))


def _on_host(value: np.ndarray) -> int:
    bits = value.view(_WIDTHS[value.dtype.itemsize]).astype(np.uint32)
    with np.errstate(over="ignore"):  # a scalar's product says that it wraps
        return int(_sum(np, bits))


def checksum(value: np.ndarray) -> int:
    """The checksum of an array on the host, with little memory beside it."""
    if value.nbytes <= SMALL_BYTES:
        return _on_host(value)
    rows = max(1, BLOCK_BYTES // value[0].nbytes)
    parts = ((value[first : first + rows], first) for first in range(0, len(value), rows))
    return sum(int(_on_device(*part)) for part in parts) % 2**32


def _checksums(leaf: jax.Array, stacked: bool) -> list[int]:
    """The checksum of a leaf, or of every layer that is stacked in it."""
    if leaf.nbytes > SMALL_BYTES or not leaf.is_fully_addressable:
        values = np.asarray(_rows_on_device(leaf) if stacked else _on_device(leaf))
        return [int(value) for value in values.reshape(-1)]
    value = np.asarray(leaf)
    return [_on_host(row) for row in value] if stacked else [_on_host(value)]


def fingerprint(params: Mapping[str, jax.Array]) -> str:
    """Hex digest of names, shapes, types and bits; the same whatever the sharding and stacking."""
    names = disk_names(params)
    checksums: dict[str, tuple[tuple[int, ...], np.dtype, int]] = {}
    for path, leaf in params.items():
        stacked = is_stacked(path, names)
        shape = leaf.shape[1:] if stacked else leaf.shape
        for name, value in zip(names[path], _checksums(leaf, stacked), strict=True):
            checksums[name] = (shape, leaf.dtype, value)
    return digest(checksums)


def digest(checksums: Mapping[str, tuple[tuple[int, ...], np.dtype, int]]) -> str:
    """The fingerprint of {entry: (shape, type, checksum)}."""
    result = hashlib.sha256()
    for name in sorted(checksums):
        shape, dtype, value = checksums[name]
        result.update(f"{name} {tuple(shape)} {np.dtype(dtype)} {value}\n".encode())
    return result.hexdigest()[:16]
