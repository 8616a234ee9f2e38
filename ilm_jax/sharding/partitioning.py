"""Sharding is data: a mesh from a few sizes, and rules that map logical axis names to its axes.

Models name their axes ("batch", "embed", …) and know nothing of the mesh. One device, eight
virtual ones, many processes and a pod run the same program; only `MeshConfig` differs.
"""

import contextlib
import dataclasses
import functools
import math
from collections.abc import Iterator, Sequence
from typing import Annotated

import flax.linen as nn
import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from ilm_jax.checks import Count, Range, check
from ilm_jax.errors import UserError

AXES = ("data", "fsdp", "tensor")
LogicalRules = Sequence[tuple[str, str | tuple[str, ...] | None]]

# A mesh axis serves at most one dimension of an array, first rule first: activations ("batch"
# first) keep "embed" whole, parameters (which have no batch) shard it over "fsdp". Of a table of
# tokens the words are split, not "embed": its rows and logits are made where the words are, for the
# "readout" rows of all that share the words, so that no device gathers the table. Tables of users
# and items have "rows", which all devices share.
DEFAULT_RULES: LogicalRules = (
    ("batch", ("data", "fsdp")),
    ("readout", "data"),
    ("rows", AXES),
    ("vocab", ("tensor", "fsdp")),
    ("vocab", "tensor"),
    ("mlp", "tensor"),
    ("heads", "tensor"),
    ("embed", "fsdp"),
    ("kv", None),
    ("length", None),
    ("layers", None),
    ("queries", None),
    ("cf", None),
)


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Sizes of the mesh axes inside a slice (ICI) and over slices (DCN); one ICI size may be -1.

    Attributes:
      data: replicas of the parameters, each with its share of the batch.
      fsdp: parameters and batch are both split over this axis.
      tensor: heads, MLP columns and vocabulary are split over this axis.
      dcn_data, dcn_fsdp, dcn_tensor: the same over slices that are joined by the slower network.
    """

    data: Annotated[int, Range(-1)] = -1
    fsdp: Annotated[int, Range(-1)] = 1
    tensor: Annotated[int, Range(-1)] = 1
    dcn_data: Count = 1
    dcn_fsdp: Count = 1
    dcn_tensor: Count = 1

    def __post_init__(self) -> None:
        check(self)

    def resolve(self, num_devices: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Fills in -1. Returns (ICI sizes, DCN sizes).

        Raises:
          UserError: if the sizes do not multiply to the number of devices.
        """
        ici = [self.data, self.fsdp, self.tensor]
        dcn = (self.dcn_data, self.dcn_fsdp, self.dcn_tensor)
        shown = f"MeshConfig(data={self.data}, fsdp={self.fsdp}, tensor={self.tensor}, dcn={dcn})"
        if any(size == 0 or size < -1 for size in ici) or any(size < 1 for size in dcn):
            raise UserError(
                f"{shown}: sizes must be at least 1 (one of data, fsdp, tensor may be -1)"
            )
        if ici.count(-1) > 1:
            raise UserError(f"{shown}: at most one of data, fsdp, tensor may be -1")
        if -1 in ici:
            known = -math.prod(ici) * math.prod(dcn)
            ici[ici.index(-1)] = max(1, num_devices // known)
        if math.prod(ici) * math.prod(dcn) != num_devices:
            raise UserError(
                f"{shown} needs {math.prod(ici) * math.prod(dcn)} devices and there are "
                f"{num_devices}: set partitioning.MeshConfig.data = -1, or sizes whose product is "
                f"{num_devices}"
            )
        return tuple(ici), dcn


@dataclasses.dataclass(frozen=True)
class Partitioner:
    """The mesh and the rules of one run; everything that is placed on devices asks here.

    Attributes:
      mesh_config: axis sizes.
      rules: (logical axis, mesh axis or axes or None), first match first.
      devices: the devices to use; all of them if None.
    """

    mesh_config: MeshConfig = MeshConfig()
    rules: LogicalRules = DEFAULT_RULES
    devices: tuple[jax.Device, ...] | None = None

    def __post_init__(self) -> None:
        check(self)
        for name, axes in self.rules:
            for axis in (axes,) if isinstance(axes, str) else axes or ():
                if axis not in AXES:
                    raise UserError(
                        f"Partitioner.rules: {name!r} is split over {axis!r}, and a mesh has the "
                        f"axes {', '.join(AXES)}"
                    )

    @functools.cached_property
    def mesh(self) -> Mesh:
        """The device mesh with axes `data`, `fsdp`, `tensor`, all of type Auto."""
        devices = list(self.devices or jax.devices())
        ici, dcn = self.mesh_config.resolve(len(devices))
        if math.prod(dcn) > 1:
            try:
                grid = mesh_utils.create_hybrid_device_mesh(
                    ici, dcn, devices, process_is_granule=devices[0].platform == "cpu"
                )
            except ValueError as error:
                raise UserError(
                    f"MeshConfig(dcn={dcn}): the devices are no such slices ({error})"
                ) from error
        else:
            grid = mesh_utils.create_device_mesh(ici, devices)
        return Mesh(grid, AXES, axis_types=(AxisType.Auto,) * len(AXES))

    @contextlib.contextmanager
    def context(self) -> Iterator[None]:
        """Makes the mesh and the rules current, for models' logical constraints."""
        with jax.set_mesh(self.mesh), nn.logical_axis_rules(self.rules):
            yield

    def spec(self, axes: Sequence[str | None], shape: Sequence[int]) -> PartitionSpec:
        """The PartitionSpec of an array with these logical axes.

        A rule whose mesh axes do not divide the dimension does not count; one without a rule stays
        whole (model-info.txt shows it so).
        """
        sizes = list(zip(axes, shape, strict=True))
        rules = [
            (name, mesh_axes)
            for name, mesh_axes in self.rules
            if not mesh_axes or all(s % self._size(mesh_axes) == 0 for n, s in sizes if n == name)
        ]
        return PartitionSpec(*(nn.logical_to_mesh_axes(tuple(axes), rules) or ()))

    def sharding(self, axes: Sequence[str | None], shape: Sequence[int]) -> NamedSharding:
        """As `spec`, on this mesh."""
        return NamedSharding(self.mesh, self.spec(axes, shape))

    @property
    def replicated(self) -> NamedSharding:
        """A whole copy on every device."""
        return NamedSharding(self.mesh, PartitionSpec())

    @property
    def batch_axes(self) -> tuple[str, ...]:
        """Mesh axes over which the rows of a batch are split."""
        (names,) = nn.logical_to_mesh_axes(("batch",), self.rules) or (None,)
        return (names,) if isinstance(names, str) else tuple(names or ())

    def batch_sharding(self, batch_size: int) -> NamedSharding:
        """Sharding of arrays whose first dimension is the global batch.

        Raises:
          UserError: if the batch size is not a multiple of the number of batch shards.
        """
        shards = self._size(self.batch_axes)
        if batch_size % shards:
            raise UserError(
                f"batch size {batch_size} is not divisible by the {shards} batch shards of the "
                f"mesh ({' x '.join(self.batch_axes)}): set BATCH_SIZE to a multiple of {shards}"
            )
        return NamedSharding(self.mesh, PartitionSpec(self.batch_axes))

    def local_rows(self, batch_size: int) -> np.ndarray:
        """Global rows that this process's devices hold, ascending.

        Taken from the sharding's index map: a slice by process index would be wrong wherever the
        batch is not split over processes.
        """
        if batch_size not in self._local_rows:  # every batch asks
            sharding = self.batch_sharding(batch_size)
            index_map = sharding.addressable_devices_indices_map((batch_size,))
            slices = [index[0] for index in index_map.values() if index is not None]
            rows = {row for part in slices for row in range(*part.indices(batch_size))}
            self._local_rows[batch_size] = np.array(sorted(rows))
        return self._local_rows[batch_size]

    @functools.cached_property
    def _local_rows(self) -> dict[int, np.ndarray]:
        return {}

    def global_batch(self, local: dict[str, np.ndarray], batch_size: int) -> dict[str, jax.Array]:
        """Assembles global arrays from this process's rows (in the order of `local_rows`)."""
        sharding = self.batch_sharding(batch_size)
        here = self.local_rows(batch_size)

        def place(array: np.ndarray) -> jax.Array:
            """One global array of every process's rows."""

            def rows(index: tuple[slice, ...] | None) -> np.ndarray:
                """Those rows of the local array that a device addresses."""
                assert index is not None
                start, stop, _ = index[0].indices(batch_size)
                first = int(np.searchsorted(here, start))
                return array[first : first + stop - start]

            return jax.make_array_from_callback((batch_size, *array.shape[1:]), sharding, rows)

        return {name: place(array) for name, array in local.items()}

    def _size(self, names: str | Sequence[str]) -> int:
        names = (names,) if isinstance(names, str) else names
        return math.prod(self.mesh.shape[name] for name in names)
