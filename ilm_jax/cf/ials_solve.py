"""Solves one side of iALS on a mesh: both tables split by rows, the Gramian all-reduced.

The shape is ALX's (Mehta et al. 2021, arXiv 2112.02194). Every device solves its own rows. Their
partners' vectors are either taken from a whole copy of the other table, made once for each half
epoch (`gather="whole"`), or exchanged block by block (`gather="rows"`): ids are all-gathered,
every device answers with the rows it has and zeros for the rest, and the answers are summed where
they are needed (a reduce-scatter), so that no table is ever whole on a device. What is exchanged at
once is bounded, but for one row's partners, which travel together: shards * partners * dim numbers.
"""

import functools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Float32, Int32

from ilm_jax.cf.ials_blocks import AXIS, Side
from ilm_jax.cf.ials_rows import by_parts, cholesky, conjugate_gradients

_IN_FLIGHT = 8
"""Blocks that are started ahead: with more, XLA's CPU client (32 programs at once) can wait for a
device's turn while all threads wait for that device in a collective."""
STREAMED = 1 << 29
"""Bytes of a side's blocks that are kept on the devices, all together."""
# Of compilation.
_ONE_THREAD = {"xla_cpu_multi_thread_eigen": False}
_HIGHEST = jax.lax.Precision.HIGHEST  # a TPU's default would square in bfloat16


def flat_mesh(mesh: Mesh | None) -> Mesh:
    """All devices of a mesh in one row; this process's first device alone for None."""
    devices = np.array(jax.local_devices()[:1]) if mesh is None else mesh.devices.reshape(-1)
    return Mesh(devices, (AXIS,), axis_types=(jax.sharding.AxisType.Auto,))


def place(mesh: Mesh, array: np.ndarray, split: bool = True) -> jax.Array:
    """Puts an array on the mesh, its first axis split over all devices or whole on each."""
    return jax.device_put(array, NamedSharding(mesh, P(AXIS) if split else P()))


def fetched(array: jax.Array) -> np.ndarray:
    """A copy of the whole array on this host; where processes share the mesh, on each."""
    if array.is_fully_addressable:
        return np.array(array)
    return np.array(multihost_utils.process_allgather(array, tiled=True))


def _options(mesh: Mesh) -> dict[str, bool]:
    """Of compilation: on a CPU's virtual devices each keeps to a thread of its own.

    Those that wait in an exchange would starve the one that they wait for of threads.
    """
    return _ONE_THREAD if _share_threads(mesh) else {}


def _on_cpu(mesh: Mesh) -> bool:
    return mesh.devices.flat[0].platform == "cpu"


def _share_threads(mesh: Mesh) -> bool:
    return mesh.size > 1 and _on_cpu(mesh)


def apart(mesh: Mesh, gather: str, cg_steps: int) -> bool:
    """Whether blocks are worked off in parts, and solved side by side, each on a core of a CPU.

    XLA divides such small operations badly between cores: on two an epoch took longer than on one.
    """
    return bool(cg_steps) and gather == "whole" and mesh.size == 1 and _on_cpu(mesh)


@functools.lru_cache(maxsize=64)
def _gramian(mesh: Mesh):  # noqa: ANN202 - a compiled function
    def gramian(vectors: Float32[Array, "slots dim"]) -> Float32[Array, "dim dim"]:
        """Y'Y over all devices' rows."""
        return jax.lax.psum(jnp.matmul(vectors.T, vectors, precision=_HIGHEST), AXIS)

    mapped = jax.shard_map(gramian, mesh=mesh, in_specs=P(AXIS), out_specs=P())
    return jax.jit(mapped, compiler_options=_options(mesh))


@functools.lru_cache(maxsize=64)
def _whole(mesh: Mesh):  # noqa: ANN202 - a compiled function
    whole = NamedSharding(mesh, P())
    return jax.jit(lambda table: table, out_shardings=whole, compiler_options=_options(mesh))


@functools.lru_cache(maxsize=64)
def _block_solver(mesh: Mesh, gather: str, cg_steps: int):  # noqa: ANN202 - a compiled function
    """Of (solution, …) to the solution, or to a block's rows alone where `apart`."""
    table_spec = P(AXIS) if gather == "rows" else P()
    on_cpu, alone, by_core = _on_cpu(mesh), _share_threads(mesh), apart(mesh, gather, cg_steps)

    def solve(
        solution: Float32[Array, "slots dim"],
        other: Float[Array, "others dim"],
        gram: Float32[Array, "dim dim"],
        slots: Int32[Array, "1 rows"],
        partners: Int32[Array, "1 rows length"],
        ridge: Float32[Array, "1 rows"],
    ) -> Float32[Array, "slots dim"]:
        """The factors with one block's rows solved anew, on one device's share of them."""
        fetch = _exchanged if gather == "rows" else _taken
        if cg_steps:
            start = solution.at[slots[0]].get(mode="fill", fill_value=0.0)
            rows = partners[0], ridge[0], start
            if on_cpu and gather == "whole":  # what is exchanged is exchanged at once
                vectors = by_parts(functools.partial(_taken, other), gram, rows, cg_steps)
            else:
                met = fetch(other, partners[0])
                vectors = conjugate_gradients(met, gram, *rows[1:], cg_steps)
        else:
            vectors = cholesky(fetch(other, partners[0]), gram, ridge[0], alone)
        return vectors if by_core else solution.at[slots[0]].set(vectors, mode="drop")

    split = P(AXIS)
    mapped = jax.shard_map(
        solve, mesh=mesh, in_specs=(split, table_spec, P(), split, split, split), out_specs=split
    )
    if by_core:
        return jax.jit(mapped, compiler_options=_ONE_THREAD)
    return jax.jit(mapped, donate_argnums=0, compiler_options=_options(mesh))


@functools.partial(jax.jit, donate_argnums=0)
def _put(
    solution: Float32[Array, "size dim"],
    slots: Int32[Array, "1 rows"],
    vectors: Float32[Array, "rows dim"],
) -> Float32[Array, "size dim"]:
    return solution.at[slots[0]].set(vectors, mode="drop")


def _taken(
    table: Float[Array, "others dim"], partners: Int32[Array, "rows length"]
) -> Float[Array, "rows length dim"]:
    return table.at[partners].get(mode="fill", fill_value=0.0)


def _exchanged(
    table: Float[Array, "slots dim"], partners: Int32[Array, "rows length"]
) -> Float[Array, "rows length dim"]:
    wanted = jax.lax.all_gather(partners, AXIS)
    local = wanted - jax.lax.axis_index(AXIS) * len(table)
    mine = (local >= 0) & (local < len(table))
    answers = jnp.where(mine[..., None], table[jnp.where(mine, local, 0)], 0.0)
    return jax.lax.psum_scatter(answers, AXIS)


class PlacedBlock(NamedTuple):
    """A `Block` on the mesh, with the weight of the L2 penalty of each row."""

    slots: Int32[Array, "shards rows"]
    partners: Int32[Array, "shards rows length"]
    ridge: Float32[Array, "shards rows"]


class PlacedBlocks(Sequence[PlacedBlock]):
    """The blocks of a side, put on the mesh when they are taken."""

    def __init__(self, mesh: Mesh, side: Side, weight: Callable[[np.ndarray], np.ndarray]) -> None:
        """`weight` gives the L2 penalty's of rows with so many partners."""
        self._mesh, self._side, self._weight = mesh, side, weight

    def __len__(self) -> int:
        """Number of blocks."""
        return len(self._side.blocks)

    def __getitem__(self, at):  # noqa: ANN001, ANN204 - only whole numbers are asked for
        """Makes a block and puts it there."""
        block = self._side.blocks[at]
        parts = block.slots, block.partners, self._weight(block.counts).astype(np.float32)
        return PlacedBlock(*(place(self._mesh, part) for part in parts))


def placed(
    mesh: Mesh, side: Side, *, alpha: float, regularisation: float, nu: float
) -> Sequence[PlacedBlock]:
    """The blocks of a side on the mesh.

    They stay there for a fit where they are few. More than `STREAMED` bytes of them are made and
    put there anew in every epoch, which takes a hundredth of the time of solving them.

    Args:
      mesh: of `flat_mesh`.
      side: rows in blocks.
      alpha, regularisation, nu: of the objective.
    """

    def weight(counts: np.ndarray) -> np.ndarray:
        """Of the L2 penalty."""
        return regularisation * (counts + alpha * side.others) ** nu

    blocks = PlacedBlocks(mesh, side, weight)
    return blocks if 4 * side.blocks.cells > STREAMED else list(blocks)


def solve_side(
    mesh: Mesh,
    blocks: Sequence[PlacedBlock],
    other: Float32[Array, "others dim"],
    start: Float32[Array, "size dim"],
    *,
    alpha: float,
    dtype: str = "float32",
    gather: str = "whole",
    cg_steps: int = 0,
) -> Float32[Array, "size dim"]:
    """The stacked table of one side that minimises the objective, the other fixed.

    Args:
      mesh: of `flat_mesh`.
      blocks: of `placed`.
      other: the other side's stacked table, split over the mesh.
      start: is overwritten; rows in no block (those without partners) stay as they are.
      alpha: of the objective.
      dtype: of the partners' vectors when they are moved and multiplied; sums and solves are
        float32.
      gather: "whole" or "rows".
      cg_steps: 0 solves exactly; else steps of conjugate gradients from `start`.
    """
    gram = alpha * _gramian(mesh)(other)
    moved = other.astype(dtype)
    moved = _whole(mesh)(moved) if gather == "whole" else moved
    solve, solution = _block_solver(mesh, gather, cg_steps), start
    if apart(mesh, gather, cg_steps):
        return _side_by_side(lambda block: solve(start, moved, gram, *block), blocks, start)
    for number, block in enumerate(blocks, 1):
        solution = solve(solution, moved, gram, *block)
        if number % _IN_FLIGHT == 0 or number == len(blocks):
            solution.block_until_ready()
    return solution


def _side_by_side(
    solve: Callable[[PlacedBlock], Array],
    blocks: Sequence[PlacedBlock],
    solution: Float32[Array, "size dim"],
) -> Float32[Array, "size dim"]:
    """Every core solves a block at a time, the longest first; then all are put in place."""

    def solved(number: int) -> tuple[Array, Array]:
        """(slots, vectors) of a block."""
        block = blocks[number]
        return block.slots, solve(block).block_until_ready()

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = list(pool.map(solved, reversed(range(len(blocks)))))
    for slots, vectors in found:
        solution = _put(solution, slots, vectors)
    return solution
