"""Limits of a chip of each TPU generation, for rooflines.

Peak and HBM bandwidth are Google Cloud's (https://cloud.google.com/tpu/docs, the page of each
generation); memory is what the compiler grants to a program, a little under the chip's. Bandwidths
of links and of the data-centre network are the usable ones in "How to Scale Your Model" (Austin et
al. 2025, https://jax-ml.github.io/scaling-book/tpus), a little under the specified ones.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Chip:
    """One device as JAX sees it.

    Attributes:
      hbm_bytes: memory that a program may use.
      flops: bfloat16 operations per second at most.
      hbm_bandwidth: bytes per second.
      link_bandwidth: bytes per second of one link in one direction; a torus axis has two links.
      dcn_bandwidth: bytes per second and chip out of a slice.
      wraps: length from which an axis of a slice closes to a ring.
    """

    hbm_bytes: int
    flops: float
    hbm_bandwidth: float
    link_bandwidth: float
    dcn_bandwidth: float
    wraps: int


GIB = 2**30
CHIPS = {
    "v4": Chip(round(30.5 * GIB), 275e12, 1228e9, 45e9, 3.1e9, 4),
    "v5e": Chip(round(15.75 * GIB), 197e12, 819e9, 45e9, 3.1e9, 16),
    "v5p": Chip(round(95.73 * GIB), 459e12, 2765e9, 90e9, 6.2e9, 4),
    "v6e": Chip(round(31.24 * GIB), 918e12, 1640e9, 90e9, 12.5e9, 16),
    # JAX sees each chip as two devices, with half of everything.
    "tpu7x": Chip(round(94.74 * GIB), 1153e12, 3690e9, 90e9, 12.5e9, 4),
}

# Names that JAX gives to devices.
_KINDS = {
    "TPU v4": "v4",
    "TPU v5 lite": "v5e",
    "TPU v5": "v5p",
    "TPU v5p": "v5p",
    "TPU v6 lite": "v6e",
    "TPU7x": "tpu7x",
}


def of_kind(kind: str) -> Chip | None:
    """The chip of `jax.Device.device_kind`; None if it is not one of these."""
    return CHIPS.get(_KINDS.get(kind, ""))


def described(generation: str, devices_per_chip: float) -> Chip:
    """A device of a topology: libtpu describes the two cores of a v4 chip apart."""
    chip = CHIPS[generation]
    if generation != "v4" or devices_per_chip == 1:
        return chip
    return dataclasses.replace(
        chip,
        hbm_bytes=chip.hbm_bytes // 2,
        flops=chip.flops / 2,
        hbm_bandwidth=chip.hbm_bandwidth / 2,
        dcn_bandwidth=chip.dcn_bandwidth / 2,
    )
