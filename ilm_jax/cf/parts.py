"""Rows worked off in equal parts, so that what a part takes stays small."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, PyTree, Shaped


def split(rows: PyTree[Array], parts: int) -> tuple[PyTree[Array], Bool[Array, "parts size"]]:
    """Arrays of as many rows each in equal parts, the last filled up with zeros.

    Args:
      rows: a tree of arrays [rows, ...].
      parts: how many.

    Returns:
      The tree of arrays [parts, size, ...], and which of those rows are real.
    """
    count = len(jax.tree.leaves(rows)[0])
    size = -(-count // parts)

    def one(x: Shaped[Array, "rows ..."]) -> Shaped[Array, "parts size ..."]:
        """Rows filled up with zeros and cut into equal parts."""
        filled = jnp.pad(x, [(0, parts * size - count)] + [(0, 0)] * (x.ndim - 1))
        return filled.reshape(parts, size, *x.shape[1:])

    return jax.tree.map(one, rows), (jnp.arange(parts * size) < count).reshape(parts, size)


def joined(x: Shaped[Array, "parts size ..."], count: int) -> Shaped[Array, "rows ..."]:
    """The first `count` rows of all parts: what `split` has split."""
    return x.reshape(-1, *x.shape[2:])[:count]
