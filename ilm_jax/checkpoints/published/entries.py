"""Entries: what stands on disk under our names, readable by slices, wherever it comes from.

`layer_07/attention/query/kernel` is an entry whether its numbers are a tensor of a published model
(through a Rule), one of our own checkpoints' arrays, an int8 version of either, or a weight with
its low-rank update added. Whoever reads takes the slices that it needs, in parts of bounded size.
"""

import dataclasses
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Protocol

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from ilm_jax.checkpoints.published.hugging_face import Index, resolve
from ilm_jax.checkpoints.published.rules import Rule, apply
from ilm_jax.errors import UserError

# Bytes of a tensor that are converted at a time: transposing is fastest where they fit a cache.
BLOCK_BYTES = 1 << 19


class Source(Protocol):
    """Tensors under their own names; `read` takes a slice with step 1 per dimension."""

    @property
    def where(self) -> str:
        """For messages."""

    @property
    def cheap_rows(self) -> bool:
        """Whether parts of a tensor's first dimension are cheap to read."""

    @property
    def notes(self) -> Sequence[str]:
        """Lines for a person, of what is there and not read as it stands."""

    def names(self) -> list[str]:
        """All tensors."""

    def shape(self, name: str) -> tuple[int, ...]:
        """Of a tensor."""

    def dtype(self, name: str) -> np.dtype:
        """As stored."""

    def read(self, name: str, index: Index = ()) -> np.ndarray:
        """A part of a tensor."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """One entry.

    Attributes:
      shape, dtype: as `read` gives it.
      part: reads a part; see `Source.read`.
      cheap_axis: parts along this axis cost no more than the whole; None where reading a part may
        decode the whole.
      step: length of parts along it that are stored together; None where that does not matter.
    """

    shape: tuple[int, ...]
    dtype: DTypeLike
    part: Callable[[Index], np.ndarray]
    cheap_axis: int | None = None
    step: int | None = None

    def read(self, index: Index = (), dtype: DTypeLike | None = None) -> np.ndarray:
        """The part that `index` names, in `dtype`, with little memory beside the result."""
        ranges = resolve(index, self.shape)
        dtype = np.dtype(self.dtype if dtype is None else dtype)
        if self.cheap_axis is None or not ranges:
            # (np.ascontiguousarray would make one dimension of none.)
            return np.asarray(self.part(_slices(ranges)), dtype, order="C")
        out = np.empty([stop - start for start, stop in ranges], dtype)
        for place, value in self.blocks(index):
            out[place] = value
        return out

    def blocks(self, index: Index = ()) -> Iterator[tuple[Index, np.ndarray]]:
        """(where in the part, values) of pieces that make up the part that `index` names."""
        ranges = resolve(index, self.shape)
        axis = self.cheap_axis
        if axis is None or not ranges:
            yield tuple(slice(None) for _ in ranges), self.part(_slices(ranges))
            return
        start, stop = ranges[axis]
        others = [b - a for i, (a, b) in enumerate(ranges) if i != axis]
        row = max(1, int(np.prod(others)) * np.dtype(self.dtype).itemsize)
        step = self.step or max(1, BLOCK_BYTES // row)
        first = start
        while first < stop:
            # A part that is stored together is decoded once, so cuts are at its ends.
            last = min((first // step + 1) * step if self.step else first + step, stop)
            piece = [*ranges[:axis], (first, last), *ranges[axis + 1 :]]
            place = [slice(None)] * len(ranges)
            place[axis] = slice(first - start, last - start)
            yield tuple(place), self.part(_slices(piece))
            first = last


def _slices(ranges: list[tuple[int, int]]) -> Index:
    return tuple(slice(start, stop) for start, stop in ranges)


def from_source(
    source: Source, name: str, *, cheap_axis: int | None, step: int | None = None
) -> Entry:
    """A tensor as it is; see `Entry` for how it is best read."""
    return Entry(
        tuple(source.shape(name)),
        source.dtype(name),
        lambda index: source.read(name, index),
        cheap_axis,
        step,
    )


def from_rule(rule: Rule, source: Source, *, cheap: bool) -> Entry:
    """A tensor as a rule says; a transposed one is read by translating the slice.

    Args:
      rule: its tensors must be there.
      source: of the tensors.
      cheap: slices of a tensor's first dimension are cheap to read.
    """
    stored, dtype = tuple(source.shape(rule.source)), source.dtype(rule.source)
    for name in filter(None, (rule.source, rule.plus_row)):
        if not jnp.issubdtype(source.dtype(name), jnp.floating):
            raise UserError(
                f"{source.where}: {name} is stored as {source.dtype(name)}, and weights are "
                "floating-point numbers: download it again, or give the model before it was "
                "quantized"
            )
    stored = stored[::-1] if rule.transposed else stored
    if rule.shape is not None:
        # Reshaped ones are small (queries, relative positions): read whole.
        return Entry(rule.shape, dtype, lambda index: apply(rule, source.read)[index])
    shape = stored if rule.rows is None else (rule.rows, *stored[1:])

    def part(index: Index) -> np.ndarray:
        """The slice of an entry, read as the slice of its source tensor that it needs."""
        whole = _slices(resolve(index, shape))
        first, last = (min(end, stored[0]) for end in (whole[0].start, whole[0].stop))
        there = (slice(first, last), *whole[1:])
        value = source.read(rule.source, there[::-1] if rule.transposed else there)
        value = value.T if rule.transposed else value
        if rule.plus_row:
            value = value + source.read(rule.plus_row, (slice(0, 1), *whole[1:]))
        # Rows that a table there lacks (its vocabulary filled up) are zeros.
        lacking = (whole[0].stop - whole[0].start) - len(value)
        return np.pad(value, [(0, lacking), *[(0, 0)] * (value.ndim - 1)]) if lacking else value

    axis = len(shape) - 1 if rule.transposed else 0
    return Entry(shape, dtype, part, axis if cheap and shape else None)


def with_int8(entries: Mapping[str, Entry], wanted: Collection[str]) -> dict[str, Entry]:
    """`entries`, with int8 versions of those that `wanted` asks for as `…_int8` and `…scale`.

    The arithmetic of models/quantization.py, on the host: the float tensor never lands on the
    devices. One scale per output channel of a kernel, one per row of a table.
    """
    result = dict(entries)
    for name in wanted:
        if not name.endswith("_int8") or name in entries:
            continue
        stem = name.rsplit("/", 1)[0]
        floats = name.removesuffix("_int8")
        if floats in entries:
            shared = 0 if floats.endswith("kernel") else 1
            result[name], result[f"{stem}/scale"] = _int8(entries[floats], shared)
            del result[floats]
    return result


def _int8(entry: Entry, shared: int) -> tuple[Entry, Entry]:
    """(int8 weights, scales) of a matrix whose dimension `shared` shares a scale."""
    kept = 1 - shared
    known: dict[tuple[int, int], np.ndarray] = {}

    def scales(span: slice) -> np.ndarray:
        """Largest magnitude of each kept channel over 127, computed once per span."""
        key = (span.start, span.stop)
        if key not in known:
            index = (slice(None), span) if shared == 0 else (span, slice(None))
            largest = np.zeros(span.stop - span.start, np.float32)
            for place, value in entry.blocks(index):
                peak = np.abs(value.astype(np.float32)).max(axis=shared)
                largest[place[kept]] = np.maximum(largest[place[kept]], peak)
            known[key] = largest / np.float32(127)
        return known[key]

    def weights(index: Index) -> np.ndarray:
        """Weights over their channels' scales, rounded to int8."""
        scale = np.expand_dims(scales(index[kept]), shared)
        scale = np.where(scale == 0, np.float32(1), scale)
        return np.rint(entry.read(index, np.float32) / scale).astype(np.int8)

    ints = Entry(entry.shape, np.dtype(np.int8), weights, entry.cheap_axis, entry.step)
    return ints, Entry((entry.shape[kept],), np.dtype(np.float32), lambda index: scales(index[0]))


def merged(weights: Entry, a: Entry, b: Entry, factor: float) -> Entry:
    """W + factor A B in float32: a weight with its low-rank update (factor: alpha / rank)."""

    def part(index: Index) -> np.ndarray:
        """The slice of W + factor (A B), in float32."""
        left, right = a.read(index[:1], np.float32), b.read((slice(None), index[1]), np.float32)
        return weights.part(index).astype(np.float32) + np.float32(factor) * (left @ right)

    return Entry(weights.shape, np.dtype(np.float32), part, weights.cheap_axis, weights.step)


def with_lora_merged(entries: Mapping[str, Entry], alpha: float, where: str) -> dict[str, Entry]:
    """`entries` with every pair `lora_a`, `lora_b` added into the weight beside it.

    Raises:
      UserError: for an update without its other half or its weight, or of another shape.
    """
    result = {p: e for p, e in entries.items() if not p.endswith(("/lora_a", "/lora_b"))}
    for stem in {p.rsplit("lora_", 1)[0] for p in entries if p not in result}:
        halves = [f"{stem}lora_a", f"{stem}lora_b"]
        name = next((n for n in (f"{stem}kernel", f"{stem}embedding") if n in entries), None)
        lacking = [half for half in halves if half not in entries]
        lacking += [] if name else [f"{stem}kernel"]
        if lacking or name is None:
            raise UserError(
                f"{where} holds a low-rank update of {stem.rstrip('/')} without {lacking[0]}: is "
                "its base there, and of the same architecture?"
            )
        a, b, weight = entries[halves[0]], entries[halves[1]], entries[name]
        if (a.shape[0], b.shape[1], a.shape[1]) != (*weight.shape, b.shape[0]):
            raise UserError(
                f"{where}: the low-rank update {a.shape} by {b.shape} does not fit {name} "
                f"{weight.shape}: is its base of the same architecture?"
            )
        result[name] = merged(weight, a, b, alpha / a.shape[1])
    return result
