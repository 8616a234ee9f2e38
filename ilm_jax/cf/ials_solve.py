"""Solves one side of iALS on a mesh: both tables split by rows, the Gramian all-reduced.

The shape is ALX's (Mehta et al. 2021, arXiv 2112.02194). Every device solves its own rows. Their
partners' vectors are either taken from a whole copy of the other table, made once for each half
epoch (`gather="whole"`), or exchanged block by block (`gather="rows"`): ids are all-gathered,
every device answers with the rows it has and zeros for the rest, and the answers are summed where
they are needed (a reduce-scatter), so that no table is ever whole on a device. What is exchanged at
once is bounded, but for one row's partners, which travel together: shards * partners * dim numbers.
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Float32, Int32

from ilm_jax.cf.ials_blocks import Side

AXIS = "shard"
_IN_FLIGHT = 8
"""Blocks that are started ahead: with more, XLA's CPU client (32 programs at once) can wait for a
device's turn while all threads wait for that device in a collective."""
STREAMED = 1 << 29
"""Bytes of a side's blocks that are kept on the devices, all together."""
CACHED_FLOATS = 1 << 16
"""Of partners' vectors that conjugate gradients work on at once on a CPU: all are read seven times,
and a quarter of a MiB stays in a core's own cache (docs/speed.md)."""
PIECE_FLOATS = 1 << 14
"""Of a row's partners' vectors that are one product there: XLA's own loop for a product of one long
row with a vector is half as fast as its loop over several short ones."""
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
    return {"xla_cpu_multi_thread_eigen": False} if _share_threads(mesh) else {}


def _on_cpu(mesh: Mesh) -> bool:
    return mesh.devices.flat[0].platform == "cpu"


def _share_threads(mesh: Mesh) -> bool:
    return mesh.size > 1 and _on_cpu(mesh)


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
    table_spec = P(AXIS) if gather == "rows" else P()
    on_cpu, alone = _on_cpu(mesh), _share_threads(mesh)

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
            pieces = _pieces(partners.shape[-1], other.shape[1]) if on_cpu else 1

            def descend(rows: tuple[Array, Array, Array]) -> Float32[Array, "rows dim"]:
                """Rows anew, from their partners, ridges and vectors."""
                return conjugate_gradients(fetch(other, rows[0]), gram, *rows[1:], cg_steps, pieces)

            start = solution.at[slots[0]].get(mode="fill", fill_value=0.0)
            rows = partners[0], ridge[0], start
            # What is exchanged is exchanged at once.
            in_parts = on_cpu and gather == "whole"
            vectors = _by_parts(descend, rows) if in_parts else descend(rows)
        else:
            vectors = cholesky(fetch(other, partners[0]), gram, ridge[0], alone)
        return solution.at[slots[0]].set(vectors, mode="drop")

    split = P(AXIS)
    mapped = jax.shard_map(
        solve, mesh=mesh, in_specs=(split, table_spec, P(), split, split, split), out_specs=split
    )
    return jax.jit(mapped, donate_argnums=0, compiler_options=_options(mesh))


def _pieces(length: int, dim: int) -> int:
    """Pieces of like length of a row with so many partners, at best of `PIECE_FLOATS`."""
    pieces = 1
    while length % (2 * pieces) == 0 and length * dim > pieces * PIECE_FLOATS:
        pieces *= 2
    return pieces


def _by_parts(
    solve: Callable[[tuple[Array, Array, Array]], Array],
    block: tuple[Int32[Array, "rows length"], Float32[Array, " rows"], Float32[Array, "rows dim"]],
) -> Float32[Array, "rows dim"]:
    """Solves a block's rows a few at a time, whose partners' vectors stay in cache."""
    (rows, length), dim = block[0].shape, block[2].shape[1]
    most = max(1, CACHED_FLOATS // (length * dim))
    part = max(count for count in range(1, min(rows, most) + 1) if rows % count == 0)
    parts = jax.tree.map(lambda x: x.reshape(rows // part, part, *x.shape[1:]), block)
    return jax.lax.map(solve, parts).reshape(rows, dim)


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


def cholesky(
    met: Float[Array, "rows length dim"],
    gram: Float32[Array, "dim dim"],
    ridge: Float32[Array, " rows"],
    one_by_one: bool = False,
) -> Float32[Array, "rows dim"]:
    """Exact solution of (met' met + gram + ridge 1) x = sum of met, for every row.

    `one_by_one` factorises no two rows at once: jaxlib's LAPACK deals a batch to the threads of all
    devices and waits for them in one of these, for ever where each device does so at once.
    """
    dim = met.shape[-1]
    matrix = jnp.einsum(
        "bld,ble->bde", met, met, precision=_HIGHEST, preferred_element_type=jnp.float32
    )
    matrix += gram + ridge[:, None, None] * jnp.eye(dim, dtype=jnp.float32)
    total = met.astype(jnp.float32).sum(1)
    if one_by_one:
        return jax.lax.map(lambda one: _solved(*one), (matrix, total))
    return _solved(matrix, total)


def _solved(
    matrix: Float32[Array, "... dim dim"], total: Float32[Array, "... dim"]
) -> Float32[Array, "... dim"]:
    factor = jax.scipy.linalg.cho_factor(matrix, lower=True)
    return jax.scipy.linalg.cho_solve(factor, total[..., None])[..., 0]


def conjugate_gradients(
    met: Float[Array, "rows length dim"],
    gram: Float32[Array, "dim dim"],
    ridge: Float32[Array, " rows"],
    start: Float32[Array, "rows dim"],
    steps: int,
    pieces: int = 1,
) -> Float32[Array, "rows dim"]:
    """The same by `steps` of conjugate gradients from `start`; no matrix is formed.

    A row's partners are read as so many `pieces`, side by side.
    """
    rows, length, dim = met.shape
    met = met.reshape(rows * pieces, length // pieces, dim)

    def scores(x: Float32[Array, "rows dim"]) -> Float32[Array, "pieces part"]:
        """Each partner's inner product with x."""
        x = jnp.repeat(x, pieces, axis=0)
        return jnp.einsum(
            "bld,bd->bl", met, x, precision=_HIGHEST, preferred_element_type=jnp.float32
        )

    def back(weights: Float32[Array, "pieces part"]) -> Float32[Array, "rows dim"]:
        """The transpose of `scores`: partners summed by weight."""
        found = jnp.einsum(
            "bld,bl->bd", met, weights, precision=_HIGHEST, preferred_element_type=jnp.float32
        )
        return found.reshape(rows, pieces, dim).sum(1)

    def shared(x: Float32[Array, "rows dim"]) -> Float32[Array, "rows dim"]:
        """x (gram + ridge 1): the part that no partner is read for."""
        return jnp.matmul(x, gram, precision=_HIGHEST) + ridge[:, None] * x

    def step(_: int, state: tuple[Array, Array, Array, Array]) -> tuple[Array, ...]:
        """One iteration for every row at once."""
        x, residual, direction, size = state
        image = back(scores(direction)) + shared(direction)
        # A row that is solved exactly stands still.
        length = size / jnp.maximum(jnp.sum(direction * image, -1), 1e-30)
        residual -= length[:, None] * image
        new = jnp.sum(residual**2, -1)
        turned = residual + (new / jnp.maximum(size, 1e-30))[:, None] * direction
        return x + length[:, None] * direction, residual, turned, new

    # The partners are read once for the target and what `start` makes of it: reading is the time.
    residual = back(1.0 - scores(start)) - shared(start)
    state = (start, residual, residual, jnp.sum(residual**2, -1))
    x, _, direction, size = jax.lax.fori_loop(0, steps - 1, step, state)
    # The last step's residual is not wanted, and its length needs one reading: for a direction d,
    # d'Ad = |met d|^2 + d'(gram + ridge 1)d.
    squares = jnp.sum(scores(direction).reshape(rows, length) ** 2, -1)
    curvature = squares + jnp.sum(direction * shared(direction), -1)
    return x + (size / jnp.maximum(curvature, 1e-30))[:, None] * direction


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
    for number, block in enumerate(blocks, 1):
        solution = solve(solution, moved, gram, *block)
        if number % _IN_FLIGHT == 0 or number == len(blocks):
            solution.block_until_ready()
    return solution
