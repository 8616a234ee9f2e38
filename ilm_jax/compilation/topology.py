"""TPU topologies without a TPU: libtpu describes the devices of a pod and compiles for them.

`v5e:16x16` is one slice, `v5e:8x8*2` two of them joined by the data-centre network. Accelerator
types as Google Cloud sells them (`v5e-256`, `v5p-128`; https://cloud.google.com/tpu/docs) stand
for the shape that they come in.
"""

import dataclasses
import importlib.metadata
import math
import os
import re
from typing import TYPE_CHECKING

from packaging.requirements import Requirement

from ilm_jax.errors import UserError

if TYPE_CHECKING:
    import jax

# Numbers in accelerator types count chips, or two cores per chip (v4, v5p).
_FLAT = {1: "1x1", 4: "2x2", 8: "2x4", 16: "4x4", 32: "4x8", 64: "8x8", 128: "8x16", 256: "16x16"}
_CUBES = {
    8: "2x2x1",
    16: "2x2x2",
    32: "2x2x4",
    64: "2x4x4",
    128: "4x4x4",
    256: "4x4x8",
    512: "4x8x8",
    1024: "8x8x8",
}
SHAPES = {"v5e": _FLAT, "v6e": _FLAT, "v4": _CUBES, "v5p": _CUBES}
GENERATIONS = ("v4", "v5e", "v5p", "v6e", "tpu7x")
_CLOUD_NAMES = {"v5e": "v5litepod", "tpu7x": "tpu7x"}
CORES_PER_CHIP = {"v4": 2, "v5p": 2, "tpu7x": 2}
EXAMPLES = "v5e:4x4, v5e:16x16, v5p:4x4x4, v6e:8x8, v5e:8x8*2 (two slices)"


@dataclasses.dataclass(frozen=True)
class Topology:
    """A pod by name.

    Attributes:
      generation: "v5e", …
      shape: chips along each axis of a slice's torus.
      slices: how many slices.
    """

    generation: str
    shape: tuple[int, ...]
    slices: int = 1

    @classmethod
    def parse(cls, name: str) -> "Topology":
        """From `v5e:16x16`, `v5e:8x8*2` or an accelerator type such as `v5p-128`.

        Raises:
          UserError: for anything else, with names that would do.
        """
        found = re.fullmatch(r"([a-z0-9]+):(\d+(?:x\d+)+)(?:\*(\d+))?", name.strip())
        if found:
            generation, shape, slices = found.groups()
        else:
            found = re.fullmatch(r"([a-z0-9]+)-(\d+)(?:\*(\d+))?", name.strip())
            if not found:
                raise UserError(f"topology {name!r} is not written like {EXAMPLES}, v5e-256")
            generation, size, slices = found.groups()
            generation = "v5e" if generation == "v5litepod" else generation
            shapes = SHAPES.get(generation, {})
            if generation in GENERATIONS and int(size) not in shapes:
                known = ", ".join(f"{generation}-{n}" for n in shapes) or "shapes like tpu7x:4x4x4"
                raise UserError(f"topology {name!r}: {generation} comes as {known}")
            shape = shapes.get(int(size), "1x1")
        if generation not in GENERATIONS:
            known = ", ".join(GENERATIONS)
            raise UserError(f"topology {name!r}: TPU {generation!r} is not one of {known}")
        sizes = tuple(int(size) for size in shape.split("x"))
        flat = SHAPES.get(generation) is _FLAT
        if flat and shape not in _FLAT.values() and 0 not in sizes:
            known = ", ".join(_FLAT.values())
            raise UserError(f"topology {name!r}: a slice of {generation} is one of {known}")
        if not flat and len(sizes) != 3:
            raise UserError(
                f"topology {name!r}: {generation} is a cube, such as {generation}:2x2x4"
            )
        if 0 in sizes or slices == "0":
            raise UserError(f"topology {name!r} has no chips: write it like {EXAMPLES}")
        return cls(generation, sizes, int(slices or 1))

    @property
    def name(self) -> str:
        """One slice, as libtpu spells it."""
        return f"{self.generation}:{'x'.join(map(str, self.shape))}"

    def __str__(self) -> str:
        return self.name if self.slices == 1 else f"{self.name}*{self.slices}"

    @property
    def chips(self) -> int:
        """Chips of all slices."""
        return math.prod(self.shape) * self.slices

    @property
    def accelerator_type(self) -> str:
        """One slice, as Google Cloud spells it: v5litepod-256."""
        count = math.prod(self.shape) * CORES_PER_CHIP.get(self.generation, 1)
        return f"{_CLOUD_NAMES.get(self.generation, self.generation)}-{count}"

    def devices(self) -> tuple["jax.Device", ...]:
        """The devices, which can be compiled for and hold nothing.

        Raises:
          UserError: without libtpu, or for a shape that it does not know.
        """
        prepare_environment(self)
        try:
            import libtpu  # noqa: F401
        except ImportError as error:
            raise UserError(
                "the TPU compiler is not installed: pip install 'jax[tpu]' (libtpu, in the version "
                "that goes with this jax)"
            ) from error
        from jax.experimental import topologies

        # Only several slices are spelt out: the argument is newer than the function.
        more = {"num_slices": self.slices} if self.slices > 1 else {}
        try:
            described = topologies.get_topology_desc(
                platform="tpu", topology_name=self.name, **more
            )
        except Exception as error:  # noqa: BLE001 - jaxlib's error types vary by version
            reason = " ".join(str(error).split())[:200]
            raise UserError(
                f"libtpu knows no topology {self.name!r} ({reason}): write it like {EXAMPLES}"
            ) from error
        return tuple(described.devices)


def mismatch() -> tuple[str, str] | None:
    """(What is wrong with libtpu's version, what to do); None if nothing is known to be.

    pip installs the newest libtpu by itself; jax asks for the one that it was built with, and
    others fail on some programs.
    """
    try:
        jax, libtpu = (importlib.metadata.version(name) for name in ("jax", "libtpu"))
    except importlib.metadata.PackageNotFoundError:
        return None
    for asked in map(Requirement, importlib.metadata.requires("jax") or ()):
        if asked.name == "libtpu" and not asked.specifier.contains(libtpu, prereleases=True):
            wanted = f"libtpu{asked.specifier}"
            return f"jax {jax} goes with {wanted}, not {libtpu}", f"pip install '{wanted}'"
    return None


def prepare_environment(topology: Topology) -> None:
    """Sets what libtpu needs on a machine without TPUs; JAX itself runs on the CPU."""
    import jax

    # Asking the metadata server of a cloud that is not there takes minutes.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", topology.accelerator_type)
    # Compiling holds no TPU: two of it may run at once, which a lock file would forbid.
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    jax.config.update("jax_platforms", "cpu")
