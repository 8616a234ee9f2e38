"""Bytes that a compiled program's instructions move to and from HBM, exchanges and loops apart."""

import math

from ilm_jax.compilation.hlo import (
    COLLECTIVES,
    Instruction,
    Module,
    Scope,
    base_opcode,
    bytes_of,
)

# Their results are other names for what is there, or are counted where they are computed.
_FREE = {
    "parameter",
    "constant",
    "tuple",
    "get-tuple-element",
    "bitcast",
    "while",
    "conditional",
    "call",
    "after-all",
    "partition-id",
    "replica-id",
    "iota",
    "opt-barrier",
}


def hbm_traffic(module: Module, scope: Scope, one: Instruction) -> float:
    """Bytes that an instruction reads from and writes to HBM."""
    if one.opcode in _FREE or one.opcode.endswith("-done"):
        return 0.0
    if one.opcode == "dynamic-update-slice":
        return 2.0 * bytes_of(scope, one.operands[1])
    if one.opcode in ("dynamic-slice", "slice", "gather"):
        return 2.0 * one.bytes
    if base_opcode(one.opcode) in COLLECTIVES:
        return 0.0  # counted where exchanges are
    if one.opcode == "copy-start":  # (to, from, a token): between memories
        return sum(t.bytes for t in one.types[:2] if t.space == 0)
    if one.opcode.endswith("-start"):
        return min((t.bytes for t in one.types if t.dims), default=0)
    body = next((module[n] for n in one.called() if n in module), None)
    if one.opcode != "fusion" or body is None:
        return one.bytes + sum(bytes_of(scope, name) for name in one.operands)
    return _fusion_traffic(module, scope, one, body)


def _fusion_traffic(module: Module, scope: Scope, one: Instruction, body: Scope) -> float:
    """A fusion that only slices an operand reads the slice, and writes only what it updates."""
    inner = list(body.values())
    if any(base_opcode(x.opcode) in COLLECTIVES for x in inner) and not any(
        x.opcode in ("convolution", "dot", "fusion") for x in inner
    ):
        return 0.0  # the start or the end of an exchange that is counted elsewhere
    total = 0.0
    for parameter in inner:
        if parameter.opcode != "parameter":
            continue
        number = int(parameter.argument)
        if number < len(one.operands):
            whole = bytes_of(scope, one.operands[number])
            total += min(whole, _read(module, body, parameter.name))
    return total + _written(one, body)


def _read(module: Module, body: Scope, name: str) -> float:
    """Bytes that a fusion reads of one of its parameters; infinite stands for all of it."""
    total = 0.0
    for user in body.values():
        if (
            name not in user.operands
            or user.opcode == "tuple"
            or base_opcode(user.opcode) in COLLECTIVES
        ):
            continue
        if user.opcode == "dynamic-slice" and user.operands[0] == name:
            total += sum(t.bytes for t in user.types)
        elif user.opcode == "fusion":
            inner = module.get(next(iter(user.called()), ""), {})
            for parameter in inner.values():
                if parameter.opcode == "parameter":
                    if user.operands[int(parameter.argument)] == name:
                        total += _read(module, inner, parameter.name)
        elif user.opcode != "dynamic-update-slice" or user.operands[0] != name:
            return math.inf
    return total


def _written(one: Instruction, body: Scope) -> float:
    """What a fusion writes: not what it hands on, nor what an exchange inside of it does."""
    updates = [x for x in body.values() if x.opcode == "dynamic-update-slice"]
    whole = {x.types[0].dims: bytes_of(body, x.operands[1]) for x in updates}
    root = list(body.values())[-1]
    made: list[Instruction | None] = [None] * len(one.types)
    if root.opcode == "tuple" and len(root.operands) == len(one.types):
        made = [body.get(name) for name in root.operands]
    total = 0.0
    for kind, source in zip(one.types, made, strict=True):
        handed_on = source is not None and (
            source.opcode == "parameter" or base_opcode(source.opcode) in COLLECTIVES
        )
        if kind.space == 0 and not handed_on:
            total += whole.get(kind.dims, kind.bytes)
    return total
