"""The instructions of a compiled program, read from its HLO text, and how often each runs.

A loop's body runs as often as its condition and its counter's step say: a scan counts from zero to
a constant, one by one; loops that the compiler makes, or unrolls, in larger steps.
"""

import dataclasses
import math
import re
from collections import defaultdict
from collections.abc import Iterator

from ilm_jax.errors import UserError

_BITS = {
    "pred": 8,
    "s4": 4,
    "u4": 4,
    "s8": 8,
    "u8": 8,
    "s16": 16,
    "u16": 16,
    "bf16": 16,
    "f16": 16,
    "s32": 32,
    "u32": 32,
    "f32": 32,
    "s64": 64,
    "u64": 64,
    "f64": 64,
    "c64": 64,
}
_ARRAY = re.compile(r"\b([a-z][a-z0-9]*)\[([\d,]*)\](\{[^}]*\})?")
_LINE = re.compile(r"^\s*(?:ROOT )?%?([\w.\-]+) = (.*)$")
_OPCODE = re.compile(r"(?<![\w.\-%])([a-z][a-z0-9\-]*)\(")
COLLECTIVES = (
    "all-gather",
    "all-reduce",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
    "ragged-all-to-all",
    "collective-broadcast",
)


@dataclasses.dataclass(frozen=True)
class ArrayType:
    """A dtype, dimensions and a memory space (0 is HBM)."""

    dtype: str
    dims: tuple[int, ...]
    space: int = 0

    @property
    def bytes(self) -> int:
        """Of its elements, without padding."""
        return math.prod(self.dims) * _BITS.get(self.dtype, 0) // 8


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a computation.

    Attributes:
      name, opcode: of the instruction.
      types: of its result, several for a tuple.
      operands: names.
      argument: the text between its parentheses: a constant's value, a parameter's number.
      rest: the text behind them.
    """

    name: str
    opcode: str
    types: tuple[ArrayType, ...]
    operands: tuple[str, ...]
    argument: str
    rest: str

    @property
    def bytes(self) -> int:
        """Of its results in HBM."""
        return sum(t.bytes for t in self.types if t.space == 0)

    def called(self) -> list[str]:
        """Names of the computations that it runs."""
        found = re.findall(r"(?:calls|to_apply|body|condition)=%?([\w.\-]+)", self.rest)
        for branches in re.findall(r"branch_computations=\{([^}]*)\}", self.rest):
            found += [name.strip().lstrip("%") for name in branches.split(",")]
        return found


Scope = dict[str, Instruction]
"""A computation: its instructions by name."""
Module = dict[str, Scope]
"""Computations by name."""


def parse(text: str) -> tuple[Module, str]:
    """({computation: {name: instruction}}, the entry's name) of an HLO module's text."""
    module: Module = {}
    entry = current = ""
    for line in text.splitlines():
        head = re.match(r"^(ENTRY )?%?([\w.\-]+) \(.*\) -> .*\{$", line)
        if head:
            current = head.group(2)
            module[current] = {}
            entry = current if head.group(1) else entry
        elif current and (found := _LINE.match(line)):
            instruction = _instruction(*found.groups())
            if instruction:
                module[current][instruction.name] = instruction
    if not entry:
        raise UserError("the compiler's text has no ENTRY computation: is it optimised HLO?")
    return module, entry


def _instruction(name: str, text: str) -> Instruction | None:
    opcode = _OPCODE.search(re.sub(r"\{[^{}]*\}", lambda m: "~" * len(m.group()), text))
    if not opcode:
        return None
    types = tuple(array_types(text[: opcode.start()]))
    end = _closing(text, opcode.end() - 1)
    operands = tuple(re.findall(r"%([\w.\-]+)", text[opcode.end() : end]))
    argument = text[opcode.end() : end]
    return Instruction(name, opcode.group(1), types, operands, argument, text[end + 1 :])


def array_types(text: str) -> Iterator[ArrayType]:
    """All that a piece of text names."""
    for dtype, dims, layout in _ARRAY.findall(text):
        space = re.search(r"S\((\d+)\)", layout)
        shape = tuple(int(d) for d in dims.split(",") if d)
        yield ArrayType(dtype, shape, int(space.group(1)) if space else 0)


def _closing(text: str, start: int) -> int:
    depth = 0
    for place in range(start, len(text)):
        depth += (text[place] == "(") - (text[place] == ")")
        if depth == 0:
            return place
    return len(text) - 1


def base_opcode(opcode: str) -> str:
    """Without what marks the halves of an asynchronous instruction."""
    return opcode.removesuffix("-start").removesuffix("-done")


def bytes_of(scope: Scope, name: str) -> int:
    """Of an operand in HBM; 0 if it is not of this computation."""
    return scope[name].bytes if name in scope else 0


def computation_runs(module: Module, entry: str) -> dict[str, int]:
    """Number of runs of each computation that is a sequence of steps (no fusion)."""
    runs: dict[str, int] = defaultdict(int)

    def visit(name: str, times: int) -> None:
        """Counts `name` and, times the trip counts of loops, all that it calls."""
        runs[name] += times
        for instruction in module[name].values():
            if instruction.opcode == "while":
                body = re.search(r"body=%?([\w.\-]+)", instruction.rest)
                if body and body.group(1) in module:
                    visit(body.group(1), times * _length(module, instruction))
            elif instruction.opcode in ("call", "conditional", "async-start"):
                for called in instruction.called():
                    if called in module:
                        visit(called, times)

    visit(entry, 1)
    return runs


def _length(module: Module, loop: Instruction) -> int:
    """How often a loop's body runs; 1 where that is not a constant."""
    stated = re.search(r'known_trip_count":\s*\{"n":"?(\d+)', loop.rest)
    if stated:
        return int(stated.group(1))
    condition = re.search(r"condition=%?([\w.\-]+)", loop.rest)
    body = module.get(condition.group(1), {}) if condition else {}
    bound = max((n for n in map(_constant, body.values()) if n is not None), default=1)
    return -(-bound // _step(module, loop, body))


def _constant(one: Instruction) -> int | None:
    """The value of a whole-number scalar."""
    if one.opcode != "constant" or one.types[0].dims:
        return None
    found = re.match(r"-?\d+$", one.argument)
    return int(found.group()) if found else None


def _step(module: Module, loop: Instruction, condition: Scope) -> int:
    """What a loop's body adds to the number that its condition looks at; 1 if that is not clear."""
    called = re.search(r"body=%?([\w.\-]+)", loop.rest)
    body = module.get(called.group(1), {}) if called else {}
    looks = [x for x in condition.values() if x.opcode == "get-tuple-element"]
    places = {found.group() for x in looks if (found := re.search(r"(?<=index=)\d+", x.rest))}
    root = list(body.values())[-1:]
    if len(places) != 1 or not root or root[0].opcode != "tuple":
        return 1
    name, total = root[0].operands[int(places.pop())], 0
    while name in body and body[name].opcode in ("add", "copy", "bitcast"):
        added = [_constant(body[x]) for x in body[name].operands if x in body]
        total += sum(n for n in added if n is not None)
        rest = [x for x in body[name].operands if x in body and _constant(body[x]) is None]
        if len(rest) != 1:
            return 1
        name = rest[0]
    return max(1, total)
