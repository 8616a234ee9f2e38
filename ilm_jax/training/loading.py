"""Initial parameters: from other runs' checkpoints where named, drawn anew where allowed."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ilm_jax.errors import UserError
from ilm_jax.objectives.objective import Objective
from ilm_jax.training.checkpoints import Checkpoints, InitFrom, check_same, shorten
from ilm_jax.training.freezing import matches
from ilm_jax.training.layout import disk_layout, disk_names
from ilm_jax.training.partitioning import Partitioner
from ilm_jax.training.state import FlatParams, Variable, initialise, param_shardings


def load_sources(
    objective: Objective,
    variables: Mapping[str, Variable],
    sources: Sequence[InitFrom],
    allow_fresh: Sequence[str],
    partitioner: Partitioner,
    key: jax.Array,
) -> tuple[FlatParams, str]:
    """Reads parameters from `sources` (the first that holds one wins) and draws the others.

    Returns:
      The parameters on the mesh, and a report of three lists: restored, fresh, unused.

    Raises:
      UserError: if a parameter would start fresh or go unused without leave, or shapes differ.
    """
    shardings = param_shardings(variables, partitioner)
    wanted = {
        path: jax.ShapeDtypeStruct(v.shape, v.dtype, sharding=shardings[path])
        for path, v in variables.items()
    }
    names = disk_names(wanted)
    params: FlatParams = {}
    lines = []
    for source in sources:
        candidates = {path: x for path, x in wanted.items() if path not in params}
        restored, line = _read_source(source, candidates, names)
        params |= restored
        lines.append(line)
    fresh = [path for path in wanted if path not in params]
    surprise = [path for path in fresh if sources and not matches(path, allow_fresh)]
    if surprise:
        raise UserError(
            f"no source holds {len(surprise)} parameters {shorten(surprise)} (restored "
            f"{len(params)}): add a source to TrainerConfig.init, or let them start fresh by "
            "TrainerConfig.allow_fresh"
        )
    lines.append(f"  fresh {len(fresh)} {shorten(fresh) if sources else ''}".rstrip())
    params |= initialise(objective, variables, fresh, partitioner, key)
    return params, "\n".join(lines)


def _read_source(
    source: InitFrom, wanted: Mapping[str, Any], names: Mapping[str, list[str]]
) -> tuple[FlatParams, str]:
    checkpoints = Checkpoints(source.path)
    step = checkpoints.resolve(source.step)
    where = f"{source.path} (step {step})"
    saved = checkpoints.shapes(step)
    chosen = {
        path: x
        for path, x in wanted.items()
        if matches(path, source.parameters) and any(name in saved for name in names[path])
    }
    check_same(saved, disk_layout(chosen, names), where)
    used = {name for path in chosen for name in names[path]}
    unused = [name for name in saved if name not in used and matches(name, source.parameters)]
    surprise = [name for name in unused if not matches(name, source.allow_unused)]
    if surprise or not chosen:
        fresh = [p for p in wanted if p not in chosen and matches(p, source.parameters)]
        raise UserError(
            f"{where} does not fit: restored {len(chosen)} {shorten(sorted(chosen))}; fresh "
            f"{len(fresh)} {shorten(fresh)}; unused {len(surprise)} {shorten(surprise)}; correct "
            "InitFrom.parameters or allow_unused, or use the architecture it was trained with"
        )
    params = checkpoints.read_params(step, chosen, names)
    checkpoints.close()
    return params, f"  restored {len(chosen)} from {where}, unused there by leave {len(unused)}"


@jax.jit
def _checksum(leaf: jax.Array) -> jax.Array:
    """A 32-bit checksum of the bits: wrapping integer sums, so equal on every mesh."""
    width = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}[leaf.dtype.itemsize]
    bits = jax.lax.bitcast_convert_type(leaf, width).astype(jnp.uint32)
    position = jnp.zeros(bits.shape, jnp.uint32)
    for axis in range(bits.ndim):
        index = jax.lax.broadcasted_iota(jnp.uint32, bits.shape, axis)
        position = position * jnp.uint32(1_000_003) + index
    mixed = (bits ^ (position * jnp.uint32(2_654_435_761))) * jnp.uint32(2_246_822_519)
    return jnp.sum(mixed ^ (mixed >> 15), dtype=jnp.uint32)


def fingerprint(params: Mapping[str, jax.Array]) -> str:
    """Hex digest of names, shapes, types and bits; the same whatever the sharding."""
    digest = hashlib.sha256()
    for path in sorted(params):
        leaf = params[path]
        value = int(np.asarray(_checksum(leaf)))
        digest.update(f"{path} {leaf.shape} {leaf.dtype} {value}\n".encode())
    return digest.hexdigest()[:16]
