"""Costs of a compiled program, read from its HLO text: products, bytes, kernels, collectives.

XLA's own cost analysis counts the body of a loop once. Here a body counts as often as it runs.
"""

import dataclasses
import re
from collections.abc import Iterator

from ilm_jax.compilation.hlo import (
    COLLECTIVES,
    Instruction,
    Module,
    Scope,
    array_types,
    base_opcode,
    computation_runs,
    parse,
)
from ilm_jax.compilation.products import product_flops
from ilm_jax.compilation.traffic import hbm_traffic


@dataclasses.dataclass(frozen=True)
class Collective:
    """One kind of exchange, all its runs in a step together.

    Attributes:
      opcode: "all-gather", …
      bytes: of the largest of operand and result on one device, per run.
      times: runs in a step.
      groups: text of the groups of devices.
      where: the operation of the model that it comes from, if the compiler says so.
      shape: of the result.
    """

    opcode: str
    bytes: int
    times: int
    groups: str
    where: str
    shape: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Kernel:
    """A Pallas kernel: its name, how often it runs, and its operands' dimensions."""

    name: str
    times: int
    operands: tuple[tuple[int, ...], ...]


@dataclasses.dataclass
class Costs:
    """Of one device and one run of a program."""

    flops: float = 0.0  # of products outside of kernels
    hbm_bytes: float = 0.0
    kernels: list[Kernel] = dataclasses.field(default_factory=list)
    collectives: list[Collective] = dataclasses.field(default_factory=list)


def analyse(text: str) -> Costs:
    """Costs of an optimised HLO module; loops of unknown length count once."""
    module, entry = parse(text)
    costs = Costs()
    found: dict[str, Collective] = {}
    for name, times in computation_runs(module, entry).items():
        scope = module[name]
        for one in scope.values():
            costs.flops += times * product_flops(module, scope, one)
            costs.hbm_bytes += times * hbm_traffic(module, scope, one)
            if one.opcode == "custom-call":
                target = re.search(r'custom_call_target="([^"]+)"', one.rest)
                if target and target.group(1) == "tpu_custom_call":
                    costs.kernels.append(_kernel(one, times))
            for inner, exchange in _exchanges(module, scope, one):
                # A pipelined exchange stands in a loop's body, before and behind it.
                channel = re.search(r"channel_id=(\d+)", exchange.rest)
                key = channel.group(1) if channel else f"{name}/{exchange.name}"
                if key not in found or found[key].times < times:
                    found[key] = _collective(inner, exchange, times)
    costs.collectives = list(found.values())
    # What arrives is written; who reads it counts that.
    costs.hbm_bytes += sum(c.bytes * c.times for c in costs.collectives)
    return costs


def _exchanges(
    module: Module, scope: Scope, one: Instruction
) -> Iterator[tuple[Scope, Instruction]]:
    """(its computation, the collective) for an instruction and what it fuses."""
    if base_opcode(one.opcode) in COLLECTIVES:
        yield scope, one
    elif one.opcode == "fusion":
        for name in one.called():
            for inner in module.get(name, {}).values():
                yield from _exchanges(module, module[name], inner)


def _collective(scope: Scope, one: Instruction, times: int) -> Collective:
    operands = [t for name in one.operands if name in scope for t in scope[name].types]
    # Of a tuple every member travels.
    sent, got = sum(t.bytes for t in operands), sum(t.bytes for t in one.types)
    if one.opcode.endswith("-start"):  # its result holds the operands too
        got = max((t.bytes for t in one.types), default=0)
    largest = max((*one.types, *operands), key=lambda t: t.bytes)
    groups = re.search(
        r"(?:replica_groups|source_target_pairs)="
        r"(\{\{.*?\}\}|\{\}|mesh\[.*?\] ?(?:, ?device_ids=\([^ ]*\))? ?\{[^}]*\}"
        r"|\[[\d,]+\]<=\[[\d,]+\](?:T\([\d,]+\))?)",
        one.rest,
    )
    where = re.search(r'op_name="([^"]*)"', one.rest)
    return Collective(
        base_opcode(one.opcode),
        max(sent, got),
        times,
        groups.group(1) if groups else "",
        where.group(1) if where else "",
        largest.dims,
    )


def _kernel(one: Instruction, times: int) -> Kernel:
    shapes = re.search(r"operand_layout_constraints=\{(.*?\})\}", one.rest)
    dims = tuple(t.dims for t in array_types(shapes.group(1))) if shapes else ()
    return Kernel(one.name, times, dims)
