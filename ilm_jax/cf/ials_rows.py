"""Solves rows of iALS, each from its partners' vectors: exactly, or by conjugate gradients.

A row's vector x minimises its part of the objective: (met' met + gram + ridge 1) x = sum of met,
with `met` its partners' vectors and `gram` the weighted Gramian of the whole other table.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Int32

from ilm_jax.cf.ials_blocks import AXIS

CACHED_FLOATS = 1 << 17
"""Of partners' vectors that conjugate gradients work on at once on a CPU: all are read seven times,
and half a MiB stays in a core's own cache (docs/speed.md)."""
PIECE_FLOATS = 1 << 13
"""Of a row's partners' vectors that are one product there: XLA's own loop for a product of one long
row with a vector is half as fast as its loop over several short ones."""
_HIGHEST = jax.lax.Precision.HIGHEST  # a TPU's default would square in bfloat16


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
    met: Float[Array, "blocks piece dim"],
    gram: Float32[Array, "dim dim"],
    ridge: Float32[Array, " rows"],
    start: Float32[Array, "rows dim"],
    steps: int,
    pieces: int = 1,
) -> Float32[Array, "rows dim"]:
    """The same by `steps` of conjugate gradients from `start`; no matrix is formed.

    A row's partners stand in so many `pieces` of `met`, one behind the other; what is in `met`
    behind those of all rows is not read.
    """
    rows, dim = start.shape
    spare = len(met) - rows * pieces

    def scores(x: Float32[Array, "rows dim"]) -> Float32[Array, "blocks piece"]:
        """Each partner's inner product with x."""
        x = jnp.pad(jnp.repeat(x, pieces, axis=0), ((0, spare), (0, 0)))
        return jnp.einsum(
            "bld,bd->bl", met, x, precision=_HIGHEST, preferred_element_type=jnp.float32
        )

    def back(weights: Float32[Array, "blocks piece"]) -> Float32[Array, "rows dim"]:
        """The transpose of `scores`: partners summed by weight."""
        found = jnp.einsum(
            "bld,bl->bd", met, weights, precision=_HIGHEST, preferred_element_type=jnp.float32
        )
        return found[: rows * pieces].reshape(rows, pieces, dim).sum(1)

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
    squares = jnp.sum(scores(direction)[: rows * pieces].reshape(rows, -1) ** 2, -1)
    curvature = squares + jnp.sum(direction * shared(direction), -1)
    return x + (size / jnp.maximum(curvature, 1e-30))[:, None] * direction


def by_parts(
    gather: Callable[[Int32[Array, "part length"]], Float[Array, "part length dim"]],
    gram: Float32[Array, "dim dim"],
    block: tuple[Int32[Array, "rows length"], Float32[Array, " rows"], Float32[Array, "rows dim"]],
    steps: int,
) -> Float32[Array, "rows dim"]:
    """Conjugate gradients for a few rows at a time, whose partners' vectors stay in cache.

    They are gathered into the front of one buffer: XLA shares the work of a gather between all
    threads, but for one that may be in place, and changing threads costs more than it.
    """
    (rows, length), dim = block[0].shape, block[2].shape[1]
    most = max(1, CACHED_FLOATS // (length * dim))
    part = max(count for count in range(1, min(rows, most) + 1) if rows % count == 0)
    pieces = _pieces(length, dim)
    parts = jax.tree.map(lambda x: x.reshape(rows // part, part, *x.shape[1:]), block)

    def solve(
        buffer: Float[Array, "blocks piece dim"], some: tuple[Array, Array, Array]
    ) -> tuple[Array, Array]:
        """One part."""
        met = gather(some[0]).reshape(part * pieces, length // pieces, dim)
        buffer = jax.lax.dynamic_update_slice(buffer, met, (0, 0, 0))
        return buffer, conjugate_gradients(buffer, gram, *some[1:], steps, pieces)

    buffer = jnp.zeros(
        (part * pieces + 1, length // pieces, dim), jax.eval_shape(gather, parts[0][0]).dtype
    )
    buffer = jax.lax.pcast(buffer, AXIS, to="varying")
    return jax.lax.scan(solve, buffer, parts)[1].reshape(rows, dim)


def _pieces(length: int, dim: int) -> int:
    """Pieces of like length of a row with so many partners, at best of `PIECE_FLOATS`."""
    pieces = 1
    while length % (2 * pieces) == 0 and length * dim > pieces * PIECE_FLOATS:
        pieces *= 2
    return pieces
