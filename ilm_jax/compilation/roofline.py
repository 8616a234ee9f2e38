"""The least time that a program takes on a chip: products, memory and the network, each alone.

The largest of the three bounds a step from below, as if the others were hidden behind it. Times of
collectives are those of rings over the torus axes that a group of devices spans ("How to Scale Your
Model", Austin et al. 2025, chapter "Sharding").
"""

import dataclasses
import math
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ilm_jax.compilation.costs import Collective, Costs, Kernel
from ilm_jax.models.splash import LARGEST_BLOCK
from ilm_jax.training.chips import Chip

if TYPE_CHECKING:
    import jax

# Products of [length, length, dim] in each of the attention kernels.
_SPLASH_PRODUCTS = {"dkv": 4, "dq": 3, "fwd": 2}


@dataclasses.dataclass(frozen=True)
class Roofline:
    """Seconds of one run of a program, each limit alone.

    Attributes:
      matmul, hbm, ici, dcn: seconds.
      flops: compiled, per device, kernels included.
      traffic: HBM bytes per device.
    """

    matmul: float
    hbm: float
    ici: float
    dcn: float
    flops: float
    traffic: float

    @property
    def limit(self) -> str:
        """The resource that takes longest."""
        times = {"matmul": self.matmul, "HBM": self.hbm, "ICI": self.ici, "DCN": self.dcn}
        return max(times, key=lambda name: times[name])

    @property
    def seconds(self) -> float:
        """The longest of all."""
        return max(self.matmul, self.hbm, self.ici, self.dcn)


def roofline(costs: Costs, chip: Chip, devices: Sequence["jax.Device"]) -> Roofline:
    """Limits of a program that was compiled for `devices`, in their order of the mesh."""
    flops = costs.flops + sum(k.times * kernel_flops(k) for k in costs.kernels)
    permutes = [c for c in costs.collectives if c.opcode == "collective-permute"]
    ici, dcn = permute_seconds(permutes, chip, devices)
    for collective in costs.collectives:
        if collective.opcode == "collective-permute":
            continue
        inside, outside = collective_seconds(collective, chip, devices)
        ici += collective.times * inside
        dcn += collective.times * outside
    return Roofline(
        flops / chip.flops, costs.hbm_bytes / chip.hbm_bandwidth, ici, dcn, flops, costs.hbm_bytes
    )


def kernel_flops(kernel: Kernel) -> float:
    """Of one run of an attention kernel: blocks that causality hides are not computed."""
    products = next((n for name, n in _SPLASH_PRODUCTS.items() if name in kernel.name), 0)
    queries = next((dims for dims in kernel.operands if len(dims) == 4), None)
    if queries is None or not products:
        return 0.0
    rows, heads, length, dim = queries
    seen = (1 + min(1.0, LARGEST_BLOCK / length)) / 2
    return 2.0 * products * rows * heads * length * length * dim * seen


def first_group(text: str, count: int) -> list[int]:
    """Device numbers of the first group of a collective, as XLA writes groups.

    Args:
      text: `{{0,1},{2,3}}`, `[2,4]<=[4,2]T(1,0)`, `mesh['a'=2,'b'=4] {'b'}`, or "" for all.
      count: number of devices.
    """
    listed = re.match(r"\{\{([\d,]+)\}", text)
    if listed:
        return [int(number) for number in listed.group(1).split(",")]
    iota = re.match(r"\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", text)
    if iota:
        shape, dims, order = ([int(x) for x in (g or "").split(",") if x] for g in iota.groups())
        numbers = np.arange(math.prod(dims)).reshape(dims)
        return (numbers.transpose(order) if order else numbers).reshape(shape)[0].tolist()
    mesh = re.match(
        r"mesh\[([^\]]*)\](?:, ?device_ids=\(\[([\d,]+)\](?:T\(([\d,]+)\))?\))? \{", text
    )
    if mesh:
        sizes = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", mesh.group(1))}
        names = re.findall(r"'([^']+)'", text[mesh.end() :])
        dims, order = ([int(x) for x in (g or "").split(",") if x] for g in mesh.groups()[1:])
        numbers = np.arange(math.prod(sizes.values()))
        if dims:
            numbers = numbers.reshape(dims).transpose(order or None)
        where = tuple(slice(None) if name in names else 0 for name in sizes)
        return numbers.reshape(list(sizes.values()))[where].reshape(-1).tolist()
    return list(range(count))


def collective_seconds(
    one: Collective, chip: Chip, devices: Sequence["jax.Device"]
) -> tuple[float, float]:
    """(seconds on the slice's links, seconds on the data-centre network) of one run."""
    numbers = first_group(one.groups, len(devices))
    group = [devices[i] for i in numbers]
    slices = {getattr(device, "slice_index", None) or 0 for device in group}
    inside = [d for d in group if (getattr(d, "slice_index", None) or 0) == min(slices)]
    size, passes = len(inside), 2 if one.opcode == "all-reduce" else 1
    seconds = outside = 0.0
    if size > 1:
        share = one.bytes * (size - 1) / size
        width = _bandwidth(inside, devices, chip)
        if one.opcode == "all-to-all":
            seconds = share * size / 4 / width
        else:
            seconds = passes * share / width
    if len(slices) > 1:
        # What is left of the array on each chip crosses once (twice for a sum).
        outside = passes * one.bytes / size * (len(slices) - 1) / len(slices) / chip.dcn_bandwidth
    return seconds, outside


def permute_seconds(
    permutes: Sequence[Collective], chip: Chip, devices: Sequence["jax.Device"]
) -> tuple[float, float]:
    """As `collective_seconds`, of all runs of exchanges between pairs of devices together.

    Each array goes along one axis of the torus after the other. What crosses different links, or
    one link in both directions, crosses at once: the most loaded link counts.
    """
    extent = _extent(devices)
    amounts: dict[str, float] = defaultdict(float)
    for one in permutes:
        amounts[one.groups] += one.times * one.bytes
    links: dict[tuple[int, tuple[tuple[int, ...], int, int]], float] = defaultdict(float)
    outside: dict[int, float] = defaultdict(float)
    for text, amount in amounts.items():
        for source, target in re.findall(r"(\d+),(\d+)", text):
            here, there = devices[int(source)], devices[int(target)]
            home = getattr(here, "slice_index", None) or 0
            if home != (getattr(there, "slice_index", None) or 0):
                outside[int(source)] += amount
            else:
                for link in _path(here.coords, there.coords, extent, chip):
                    links[home, link] += amount
    most, most_outside = (max(loads.values(), default=0.0) for loads in (links, outside))
    return most / chip.link_bandwidth, most_outside / chip.dcn_bandwidth


def _path(
    start: Sequence[int], end: Sequence[int], extent: Sequence[int], chip: Chip
) -> Iterator[tuple[tuple[int, ...], int, int]]:
    """The links (where from, along which axis, in which direction) from one device to another."""
    at = list(start)
    for axis, length in enumerate(extent):
        steps = end[axis] - start[axis]
        if length >= chip.wraps and abs(steps) > length // 2:  # the shorter way around
            steps -= length if steps > 0 else -length
        way = 1 if steps > 0 else -1
        for _ in range(abs(steps)):
            yield tuple(at), axis, way
            at[axis] = (at[axis] + way) % length


def _extent(devices: Sequence["jax.Device"]) -> list[int]:
    places = np.array([device.coords for device in devices])
    return [int(n) for n in places.max(0) - places.min(0) + 1]


def _bandwidth(group: Sequence["jax.Device"], devices: Sequence["jax.Device"], chip: Chip) -> float:
    """Bytes per second into each device over the axes that the group spans."""
    extent = _extent(devices)
    here = np.array([device.coords for device in group])
    total = 0.0
    for axis, length in enumerate(extent):
        along = len(set(here[:, axis].tolist()))
        if along > 1:
            ring = along == length and length >= chip.wraps
            total += chip.link_bandwidth * (2 if ring else 1)
    return total or chip.link_bandwidth  # cores of one chip
