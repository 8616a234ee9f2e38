"""What a compiled program does, read from its HLO text: products, bytes and collectives.

XLA's own cost analysis counts the body of a loop once. Here a body counts as often as it runs,
which is read from its condition and its counter's step: a scan counts from zero to a constant, one
by one; loops that the compiler makes, or unrolls, in larger steps.
"""

import dataclasses
import math
import re
from collections import defaultdict
from collections.abc import Iterator

import numpy as np

from ilm_jax.errors import UserError

_BITS = {
    "pred": 8, "s4": 4, "u4": 4, "s8": 8, "u8": 8, "s16": 16, "u16": 16, "bf16": 16, "f16": 16,
    "s32": 32, "u32": 32, "f32": 32, "s64": 64, "u64": 64, "f64": 64, "c64": 64,
}  # fmt: skip
_ARRAY = re.compile(r"\b([a-z][a-z0-9]*)\[([\d,]*)\](\{[^}]*\})?")
_LINE = re.compile(r"^\s*(?:ROOT )?%?([\w.\-]+) = (.*)$")
_OPCODE = re.compile(r"(?<![\w.\-%])([a-z][a-z0-9\-]*)\(")
COLLECTIVES = (
    "all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute",
    "ragged-all-to-all", "collective-broadcast",
)  # fmt: skip
# Their results are other names for what is there, or are counted where they are computed.
_FREE = {
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "conditional",
    "call", "after-all", "partition-id", "replica-id", "iota", "opt-barrier",
}  # fmt: skip


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


Module = dict[str, dict[str, Instruction]]


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
    types = tuple(_types(text[: opcode.start()]))
    end = _closing(text, opcode.end() - 1)
    operands = tuple(re.findall(r"%([\w.\-]+)", text[opcode.end() : end]))
    argument = text[opcode.end() : end]
    return Instruction(name, opcode.group(1), types, operands, argument, text[end + 1 :])


def _types(text: str) -> Iterator[ArrayType]:
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


def analyse(text: str) -> Costs:
    """Costs of an optimised HLO module; loops of unknown length count once."""
    module, entry = parse(text)
    costs = Costs()
    found: dict[str, Collective] = {}
    for name, times in _runs(module, entry).items():
        scope = module[name]
        for one in scope.values():
            costs.flops += times * _fused_flops(module, scope, one)
            costs.hbm_bytes += times * _traffic(module, scope, one)
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


def _runs(module: Module, entry: str) -> dict[str, int]:
    """How often each computation that is a sequence of steps (no fusion) runs."""
    runs: dict[str, int] = defaultdict(int)

    def visit(name: str, times: int) -> None:
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


def _step(module: Module, loop: Instruction, condition: dict[str, Instruction]) -> int:
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


def _fused_flops(module: Module, scope: dict[str, Instruction], one: Instruction) -> float:
    """Products of an instruction, those inside of a fusion included."""
    if one.opcode == "fusion":
        inner = [module[name] for name in one.called() if name in module]
        return sum(_fused_flops(module, body, x) for body in inner for x in body.values())
    if one.opcode == "convolution":
        return _convolution_flops(scope, one)
    if one.opcode == "dot":
        left = scope[one.operands[0]].types[0]
        contracted = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", one.rest)
        axes = [int(i) for i in contracted.group(1).split(",") if i] if contracted else []
        return 2.0 * math.prod(one.types[0].dims) * math.prod(left.dims[i] for i in axes)
    return 0.0


def _convolution_flops(scope: dict[str, Instruction], one: Instruction) -> float:
    """On TPU a product of matrices is a convolution, its batch dimensions windows of one hit."""
    labels = re.search(r"dim_labels=([\w?]+)_([\w?]+)->([\w?]+)", one.rest)
    if not labels:
        return 0.0
    left, right, out = (s.group() for s in map(re.compile(r".+").match, labels.groups()) if s)
    image, kernel = (scope[name].types[0].dims for name in one.operands[:2])
    result = one.types[0].dims
    window = dict(re.findall(r"(size|stride|pad|lhs_dilate|rhs_dilate)=([\dx_\-]+)", one.rest))
    features = kernel[right.index("i")]
    pairs = 1
    for axis in (label for label in out if label.isdigit()):
        number = int(axis)

        def value(name: str, default: int, number: int = number) -> int:
            return int(window[name].split("x")[number]) if name in window else default

        low = int(window["pad"].split("x")[number].split("_")[0]) if "pad" in window else 0
        pairs *= _hits(
            result[out.index(axis)], kernel[right.index(axis)], image[left.index(axis)],
            value("stride", 1), value("rhs_dilate", 1), value("lhs_dilate", 1), low,
        )  # fmt: skip
    return 2.0 * result[out.index("b")] * result[out.index("f")] * features * pairs


def _hits(out: int, size: int, length: int, stride: int, dilate: int, spread: int, low: int) -> int:
    """How many (output, kernel) places of one dimension meet an element of the input.

    Place o and tap k meet element (o stride + k dilate - low) / spread, if that is a whole number
    and one of the input's: for each tap, the o of a residue class between two bounds.
    """
    start = np.arange(size, dtype=np.int64) * dilate - low
    first = np.maximum(0, -(start // stride))  # the least o with o stride + start >= 0
    last = np.minimum(out - 1, ((length - 1) * spread - start) // stride)
    common = math.gcd(stride, spread)
    period = spread // common
    inverse = pow(stride // common, -1, period) if period > 1 else 0
    residue = (-start // common * inverse) % period
    count = (last - residue) // period - (first - 1 - residue) // period
    return int(np.where((start % common == 0) & (last >= first), count, 0).sum())


def _traffic(module: Module, scope: dict[str, Instruction], one: Instruction) -> float:
    """Bytes that an instruction reads from and writes to HBM."""
    if one.opcode in _FREE or one.opcode.endswith("-done"):
        return 0.0
    if one.opcode == "dynamic-update-slice":
        return 2.0 * _bytes(scope, one.operands[1])
    if one.opcode in ("dynamic-slice", "slice", "gather"):
        return 2.0 * one.bytes
    if _base(one.opcode) in COLLECTIVES:
        return 0.0  # counted where exchanges are
    if one.opcode == "copy-start":  # (to, from, a token): between memories
        return sum(t.bytes for t in one.types[:2] if t.space == 0)
    if one.opcode.endswith("-start"):
        return min((t.bytes for t in one.types if t.dims), default=0)
    body = next((module[n] for n in one.called() if n in module), None)
    if one.opcode != "fusion" or body is None:
        return one.bytes + sum(_bytes(scope, name) for name in one.operands)
    return _fusion_traffic(module, scope, one, body)


def _fusion_traffic(
    module: Module, scope: dict[str, Instruction], one: Instruction, body: dict[str, Instruction]
) -> float:
    """A fusion that only slices an operand reads the slice, and writes only what it updates."""
    inner = list(body.values())
    if any(_base(x.opcode) in COLLECTIVES for x in inner) and not any(
        x.opcode in ("convolution", "dot", "fusion") for x in inner
    ):
        return 0.0  # the start or the end of an exchange that is counted elsewhere
    total = 0.0
    for parameter in inner:
        if parameter.opcode != "parameter":
            continue
        number = int(parameter.argument)
        if number < len(one.operands):
            whole = _bytes(scope, one.operands[number])
            total += min(whole, _read(module, body, parameter.name))
    return total + _written(one, body)


def _read(module: Module, body: dict[str, Instruction], name: str) -> float:
    """Bytes that a fusion reads of one of its parameters; infinite stands for all of it."""
    total = 0.0
    for user in body.values():
        if name not in user.operands or user.opcode == "tuple" or _base(user.opcode) in COLLECTIVES:
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


def _written(one: Instruction, body: dict[str, Instruction]) -> float:
    """What a fusion writes: not what it hands on, nor what an exchange inside of it does."""
    updates = [x for x in body.values() if x.opcode == "dynamic-update-slice"]
    whole = {x.types[0].dims: _bytes(body, x.operands[1]) for x in updates}
    root = list(body.values())[-1]
    made: list[Instruction | None] = [None] * len(one.types)
    if root.opcode == "tuple" and len(root.operands) == len(one.types):
        made = [body.get(name) for name in root.operands]
    total = 0.0
    for kind, source in zip(one.types, made, strict=True):
        handed_on = source is not None and (
            source.opcode == "parameter" or _base(source.opcode) in COLLECTIVES
        )
        if kind.space == 0 and not handed_on:
            total += whole.get(kind.dims, kind.bytes)
    return total


def _base(opcode: str) -> str:
    return opcode.removesuffix("-start").removesuffix("-done")


def _bytes(scope: dict[str, Instruction], name: str) -> int:
    return scope[name].bytes if name in scope else 0


def _exchanges(
    module: Module, scope: dict[str, Instruction], one: Instruction
) -> Iterator[tuple[dict[str, Instruction], Instruction]]:
    """(its computation, the collective) for an instruction and what it fuses."""
    if _base(one.opcode) in COLLECTIVES:
        yield scope, one
    elif one.opcode == "fusion":
        for name in one.called():
            for inner in module.get(name, {}).values():
                yield from _exchanges(module, module[name], inner)


def _collective(scope: dict[str, Instruction], one: Instruction, times: int) -> Collective:
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
        _base(one.opcode), max(sent, got), times, groups.group(1) if groups else "",
        where.group(1) if where else "", largest.dims,
    )  # fmt: skip


def _kernel(one: Instruction, times: int) -> Kernel:
    shapes = re.search(r"operand_layout_constraints=\{(.*?\})\}", one.rest)
    dims = tuple(t.dims for t in _types(shapes.group(1))) if shapes else ()
    return Kernel(one.name, times, dims)
