"""Layout of parameters on disk: an entry per layer, however layers are stacked in memory."""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from ilm_jax.models.stacking import STACKED, unstack_layers
from ilm_jax.sharding.freezing import Leaf

Placed = jax.Array | jax.ShapeDtypeStruct


def disk_names(shapes: Mapping[str, Leaf]) -> dict[str, list[str]]:
    """{path in memory: its entries on disk}; more than one entry where layers are stacked.

    Args:
      shapes: {path: anything with a shape} of a whole tree (the period is seen from siblings).
    """
    paths = list(shapes)
    # Every stack becomes rows (its number, the row): unstacking them shows what goes where.
    marked = {
        path: np.array([[i, row] for row in range(shapes[path].shape[0])])
        if STACKED.match(path)
        else np.array(i)
        for i, path in enumerate(paths)
    }
    names: dict[str, dict[int, str]] = {path: {} for path in paths}
    for entry, mark in unstack_layers(marked).items():
        number, row = (mark, 0) if np.ndim(mark) == 0 else np.reshape(mark, (-1, 2))[0]
        names[paths[int(number)]][int(row)] = entry
    return {path: [rows[row] for row in sorted(rows)] for path, rows in names.items()}


def disk_layout(
    like: Mapping[str, Placed], names: Mapping[str, list[str]]
) -> dict[str, jax.ShapeDtypeStruct]:
    """{entry on disk: shape, dtype and sharding} for arrays in memory."""
    layout = {}
    for path, leaf in like.items():
        shape, sharding = leaf.shape, leaf.sharding
        if is_stacked(path, names):
            assert isinstance(sharding, NamedSharding)
            spec = tuple(sharding.spec)[1:]
            shape, sharding = shape[1:], NamedSharding(sharding.mesh, PartitionSpec(*spec))
        for name in names[path]:
            layout[name] = jax.ShapeDtypeStruct(shape, leaf.dtype, sharding=sharding)
    return layout


def is_stacked(path: str, names: Mapping[str, list[str]]) -> bool:
    """Whether the array at `path` holds several layers (a stack of one layer is renamed too)."""
    return len(names[path]) > 1 or names[path] != [path]


def to_disk(
    arrays: Mapping[str, jax.Array], names: Mapping[str, list[str]]
) -> dict[str, jax.Array]:
    """Splits stacked arrays into entries on disk."""
    entries: dict[str, jax.Array] = {}
    for path, array in arrays.items():
        parts = _rows(array) if is_stacked(path, names) else [array]
        entries |= dict(zip(names[path], parts, strict=True))
    return entries


def _rows(array: jax.Array) -> Sequence[jax.Array]:
    """The rows of a stack, each in its part of the stack's sharding."""
    if array.is_fully_addressable:
        return list(array)
    sharding = array.sharding  # of several processes, none of which may slice alone
    assert isinstance(sharding, NamedSharding)
    row = NamedSharding(sharding.mesh, PartitionSpec(*sharding.spec[1:]))
    return _unstacked(row)(array)


@functools.lru_cache
def _unstacked(row: NamedSharding) -> Callable[[jax.Array], tuple[jax.Array, ...]]:
    def split(stack: jax.Array) -> tuple[jax.Array, ...]:
        """A leaf stacked over layers, as one array per layer."""
        return tuple(stack[i] for i in range(stack.shape[0]))

    return jax.jit(split, out_shardings=row)


def slot_names(slots: Iterable[str], names: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """`disk_names` of optimizer slots, whose paths end in their parameter's."""
    found = {}
    for slot in slots:
        parts = slot.split("/")
        tails = ["/".join(parts[i:]) for i in range(1, len(parts))]
        path = next((tail for tail in tails if tail in names), None)
        prefix = slot.removesuffix(path) if path else ""
        found[slot] = [prefix + name for name in names[path]] if path else [slot]
    return found


def to_memory(
    entries: Mapping[str, jax.Array], like: Mapping[str, Placed], names: Mapping[str, list[str]]
) -> dict[str, jax.Array]:
    """Joins entries on disk into arrays with the shapes and shardings of `like`."""

    def join(entries: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        """Entries of the disk as the model holds them: layers stacked where it scans."""
        return {
            path: jnp.stack([entries[name] for name in names[path]])
            if is_stacked(path, names)
            else entries[path]
            for path in like
        }

    return jax.jit(join, out_shardings={p: x.sharding for p, x in like.items()})(dict(entries))
