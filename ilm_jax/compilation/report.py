"""The report of `ilm precompile`: as JSON, as lines for a person, as a row of a table."""

import dataclasses
import math
import re
import resource
import sys
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np

from ilm_jax.compilation.abstract import Program, bytes_per_device, needed_flops
from ilm_jax.compilation.costs import Collective, analyse
from ilm_jax.compilation.roofline import roofline
from ilm_jax.compilation.topology import Topology, mismatch
from ilm_jax.errors import UserError
from ilm_jax.sharding.partitioning import MeshConfig
from ilm_jax.sharding.state import TrainState
from ilm_jax.training.chips import GIB, described

LARGE = 64 * 2**20  # bytes from which a tensor is worth a warning
# The compiler's words where a program, or its temporaries alone, exceed the memory.
_AMOUNT = r"([\d.]+)([KMGT])"
_USED = (
    re.compile(rf"Used {_AMOUNT} of {_AMOUNT} hbm"),
    re.compile(rf"\({_AMOUNT}\) exceeds available HBM \({_AMOUNT}\)"),
)


def compile_program(
    program: Program, topology: Topology, devices: Sequence[jax.Device]
) -> dict[str, Any]:
    """Compiles one program and measures it; a program that does not fit is reported, not raised."""
    start = time.monotonic()
    chip = described(topology.generation, len(devices) / topology.chips)
    record: dict[str, Any] = {"program": program.name, "rows": program.rows, "share": program.share}
    held = bytes_per_device(program.state) if program.state else 0
    if held > chip.hbm_bytes:  # parameters and optimizer alone: compiling shows nothing more
        return record | {"fits": False, "hbm": {"peak": held, "room": chip.hbm_bytes}}
    lowered = program.lower()
    lowering = time.monotonic() - start
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        too_much = exceeded(str(error))
        if not too_much and (wrong := mismatch()):
            words = f"{program.name} ({' '.join(str(error).split())[:200]})"
            raise UserError(f"the TPU compiler fails on {words}: {': '.join(wrong)}") from error
        if not too_much:
            raise
        return record | {
            "fits": False,
            "lowering_seconds": lowering,
            "compile_seconds": time.monotonic() - start - lowering,
            "hbm": too_much,
        }
    seconds = time.monotonic() - start - lowering
    costs = analyse(compiled.as_text() or "")
    limits = roofline(costs, chip, devices)
    needed = needed_flops(program)
    memory = hbm(compiled.memory_analysis(), chip.hbm_bytes)
    return record | {
        "fits": memory["peak"] <= chip.hbm_bytes,
        "lowering_seconds": lowering,
        "compile_seconds": seconds,
        "hbm": memory,
        "flops": {
            "needed": needed,
            "frozen_4n": program.frozen_flops,
            "compiled": limits.flops * len(devices),
        },
        "collectives": _by_kind(costs.collectives),
        "kernels": sorted({re.sub(r"[.\d]+$", "", kernel.name) for kernel in costs.kernels}),
        "seconds": {
            "matmul": limits.matmul,
            "hbm": limits.hbm,
            "ici": limits.ici,
            "dcn": limits.dcn,
            "step": limits.seconds,
        },
        "limit": limits.limit,
        "mfu_bound": needed / (limits.seconds * chip.flops * len(devices)),
        "shardings_kept": shardings_kept(compiled, program.state),
        "warnings": [*_large_gathers(costs.collectives, program.state), *_stored(program.state)],
    }


def compile_programs(
    programs: Sequence[Program], topology: Topology, devices: Sequence[jax.Device]
) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """Compiles programs two at a time; what each is like, and what all took of this machine.

    The compiler has threads of its own, but begins and ends with steps that one thread takes.
    """
    start, busy = time.monotonic(), time.process_time()

    def one(program: Program) -> dict[str, Any]:
        """Compiles one program and returns its record; says on stderr which."""
        sys.stderr.write(f"compiling {program.name} for {topology} …\n")  # in one piece
        return compile_program(program, topology, devices)

    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(one, programs))
    return done, {
        "seconds": time.monotonic() - start,
        "cpu_seconds": time.process_time() - busy,
        "host_peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def hbm(memory: Any, room: int) -> dict[str, int]:
    """Bytes on a chip, from the compiler's memory analysis.

    `allocated` is what the program's buffers take: arguments, the room set aside for temporaries
    (holes between them included), results that do not stand in an argument's place, and the code.
    `live` is the most that is in use at a time, without holes. The larger of the two is the peak.
    """
    parts = {
        "arguments": memory.argument_size_in_bytes,
        "temporaries": memory.temp_size_in_bytes,
        "output": memory.output_size_in_bytes,
        "aliased": memory.alias_size_in_bytes,
        "code": memory.generated_code_size_in_bytes,
    }
    allocated = sum(parts.values()) - 2 * parts["aliased"]
    live = getattr(memory, "peak_memory_in_bytes", 0)
    peak = max(allocated, live)
    return parts | {"allocated": allocated, "live": live, "peak": peak, "room": room}


def exceeded(words: str) -> dict[str, int] | None:
    """What a program takes and what it may, from the compiler's refusal; None for another error."""
    for pattern in _USED:
        if found := pattern.search(words):
            used, unit, room, other = found.groups()
            return {"peak": int(float(used) * _UNIT[unit]), "room": int(float(room) * _UNIT[other])}
    return None


_UNIT = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def _by_kind(collectives: Sequence[Collective]) -> list[dict[str, Any]]:
    """Runs and bytes of a step per device, by operation."""
    totals: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for one in collectives:
        totals[one.opcode][0] += one.times
        totals[one.opcode][1] += one.times * one.bytes
    return [
        {"operation": name, "runs": runs, "bytes": size}
        for name, (runs, size) in sorted(totals.items(), key=lambda x: -x[1][1])
    ]


def shardings_kept(compiled: jax.stages.Compiled, state: TrainState | None) -> bool:
    """Whether parameters and optimizer slots leave a step as they entered it."""
    if state is None:
        return True
    after = compiled.output_shardings[0]
    pairs = jax.tree.map(lambda x, s: x.sharding.is_equivalent_to(s, x.ndim), state, after)
    return all(jax.tree.leaves(pairs))


def whole_stacks(
    collectives: Sequence[Collective], state: TrainState | None
) -> list[tuple[Collective, str]]:
    """All-gathers that bring a whole stack of frozen layers together at once."""
    if state is None:
        return []
    stacks = {
        leaf.shape: path
        for path, leaf in state.frozen.items()
        if "/layers/" in path and leaf.shape[0] > 1 and leaf.ndim > 2
    }
    return [
        (one, path)
        for one in collectives
        if one.opcode == "all-gather"
        for shape, path in stacks.items()
        if one.shape[:1] == shape[:1] and math.prod(one.shape) == math.prod(shape)
    ]


def _large_gathers(collectives: Sequence[Collective], state: TrainState | None) -> list[str]:
    found = [
        f"gathers the whole stack {path} at once ({one.bytes / GIB:.2f} GiB)"
        for one, path in whole_stacks(collectives, state)
    ]
    for one in collectives:
        if one.opcode == "all-gather" and one.bytes >= GIB:
            parameter = re.search(r"\[\\?'(.*?)\\?'\]", one.where)  # state.frozen['lm/…']
            where = parameter.group(1) if parameter else one.where.split("/", 1)[-1]
            found.append(f"all-gather of {one.bytes / GIB:.2f} GiB: {where[-80:] or '?'}")
    return found


def _stored(state: TrainState | None) -> list[str]:
    """Large parameters that every chip holds whole, or that tiles of (8, 128) enlarge."""
    if state is None:
        return []
    found = []
    for path, leaf in {**state.trainable, **state.frozen}.items():
        size = math.prod(leaf.shape) * np.dtype(leaf.dtype).itemsize
        shard = leaf.sharding.shard_shape(leaf.shape)
        devices = len(leaf.sharding.device_set)
        if size >= LARGE and shard == leaf.shape and devices > 1:
            found.append(f"{path} ({size / GIB:.2f} GiB) is whole on every chip")
        if len(shard) < 2 or size < LARGE:
            continue
        rows = 8 * (4 // min(4, np.dtype(leaf.dtype).itemsize))
        tiled = -(-shard[-1] // 128) * 128 * -(-shard[-2] // rows) * rows
        # XLA may turn an array so that its longer side lies along the lanes.
        turned = -(-shard[-2] // 128) * 128 * -(-shard[-1] // rows) * rows
        waste = min(tiled, turned) / (shard[-1] * shard[-2]) - 1
        if waste > 0.1:
            found.append(f"{path}: padding adds {waste:.0%} to its shards {tuple(shard)}")
    return found


def summary(
    recipe: str,
    topology: Topology,
    mesh: MeshConfig,
    batch: int,
    steps: int,
    programs: list[dict],
    took: Mapping[str, float],
) -> dict[str, Any]:
    """The whole record of a recipe: its programs, and hours and chip-hours of its steps.

    Args:
      recipe: its name. topology, mesh: what it was compiled for.
      batch: rows of a step. steps: of the run; 0 where data say how many: no hours.
      programs, took: of `compile_programs`.
    """
    trained = [p for p in programs if p["share"] and "seconds" in p]
    fits = all(p["fits"] for p in programs)
    record: dict[str, Any] = {
        "recipe": recipe,
        "topology": str(topology),
        "chips": topology.chips,
        "batch": batch,
        "steps": steps,
        "mesh": dataclasses.asdict(mesh),
        "jax": jax.__version__,
        "fits": fits,
        "compiling": dict(took),
        "programs": programs,
    }
    if trained:
        total = sum(p["share"] for p in trained)
        step = sum(p["share"] * p["seconds"]["step"] for p in trained) / total
        record["step_seconds"] = step
        if steps:
            hours = step * steps / 3600
            record |= {"hours": hours, "chip_hours": hours * topology.chips}
    return record
