"""Floating-point operations of a compiled program's matrix products, loops apart."""

import math
import re

import numpy as np

from ilm_jax.compilation.hlo import Instruction, Module, Scope


def product_flops(module: Module, scope: Scope, one: Instruction) -> float:
    """Products of an instruction, those inside of a fusion included."""
    if one.opcode == "fusion":
        inner = [module[name] for name in one.called() if name in module]
        return sum(product_flops(module, body, x) for body in inner for x in body.values())
    if one.opcode == "convolution":
        return _convolution_flops(scope, one)
    if one.opcode == "dot":
        left = scope[one.operands[0]].types[0]
        contracted = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", one.rest)
        axes = [int(i) for i in contracted.group(1).split(",") if i] if contracted else []
        return 2.0 * math.prod(one.types[0].dims) * math.prod(left.dims[i] for i in axes)
    return 0.0


def _convolution_flops(scope: Scope, one: Instruction) -> float:
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
            """The window's entry for this spatial dimension."""
            return int(window[name].split("x")[number]) if name in window else default

        low = int(window["pad"].split("x")[number].split("_")[0]) if "pad" in window else 0
        pairs *= _hits(
            result[out.index(axis)],
            kernel[right.index(axis)],
            image[left.index(axis)],
            value("stride", 1),
            value("rhs_dilate", 1),
            value("lhs_dilate", 1),
            low,
        )
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
