"""Draws of items by given shares, exact to 62 bits: a float32 in [0, 1) has 2^23 values or so.

The whole numbers below 2^62 are dealt out to the items, to each a run of them (its cell); a draw is
a random one of them, and the item whose cell it lies in. Numbers are kept in two words, as JAX has
no 64-bit ones by default.
"""

import dataclasses
import functools
import hashlib

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int32, Int64, UInt32

BITS = 62


@dataclasses.dataclass(frozen=True, eq=False)
class Cells:
    """Every item's cell; made by `of`.

    Attributes:
      sizes: how many of the 2^62 numbers are each item's.
    """

    sizes: Int64[np.ndarray, " items"]

    @classmethod
    def of(cls, shares: Float[np.ndarray, " items"]) -> "Cells":
        """Of such shares; one that is above 0 has a cell, one that is 0 has none.

        Raises:
          ValueError: if no share is above 0, or one is below it or not finite.
        """
        weights = shares.astype(np.float64)
        total = weights.sum()
        if not (np.isfinite(total) and total > 0 and weights.min() >= 0):
            raise ValueError("shares must be finite and at least 0, and one of them above")
        # A little is kept back, so that rounding never deals out more than there is.
        sizes = np.floor(weights / total * (1 - 2.0**-40) * 2.0**BITS).astype(np.int64)
        some = np.flatnonzero(weights)
        sizes[some] = np.maximum(sizes[some], 1)
        each, left = divmod((1 << BITS) - int(sizes.sum()), len(some))
        sizes[some] += each
        sizes[some[:left]] += 1
        return cls(sizes)

    @functools.cached_property
    def probability(self) -> Float32[np.ndarray, " items"]:
        """With which a draw gives each item."""
        return (self.sizes * 2.0**-BITS).astype(np.float32)

    @functools.cached_property
    def digest(self) -> str:
        """Hex SHA-256 of the cells."""
        return hashlib.sha256(self.sizes.astype("<i8").tobytes()).hexdigest()

    @functools.cached_property
    def _starts(self) -> tuple[UInt32[np.ndarray, " items"], UInt32[np.ndarray, " items"]]:
        """(high, low word) of the first number of each cell, up to the last item that has one."""
        count = int(np.flatnonzero(self.sizes)[-1]) + 1
        starts = np.concatenate([[0], np.cumsum(self.sizes[: count - 1])])
        return (starts >> 32).astype(np.uint32), (starts & 0xFFFFFFFF).astype(np.uint32)

    def draw(self, key: Array, count: int) -> Int32[Array, " drawn"]:
        """Rows of so many items, drawn with replacement; the same ones on any devices."""
        bits = jax.random.bits(key, (2, count), jnp.uint32)
        return self.rows_at(bits[0] >> (64 - BITS), bits[1])

    def rows_at(
        self, high: UInt32[Array, " drawn"], low: UInt32[Array, " drawn"]
    ) -> Int32[Array, " drawn"]:
        """Rows of the items in whose cells these numbers lie, given by their two words."""
        highs, lows = map(jnp.asarray, self._starts)

        def halve(_: int, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
            """Bounds, both included, of the last cell that starts at the number or before it."""
            first, last = bounds
            middle = last - (last - first) // 2
            starts = highs[middle]
            behind = (starts < high) | ((starts == high) & (lows[middle] <= low))
            return jnp.where(behind, middle, first), jnp.where(behind, last, middle - 1)

        begin = jnp.zeros(high.shape, jnp.int32), jnp.full(high.shape, len(highs) - 1, jnp.int32)
        return jax.lax.fori_loop(0, len(highs).bit_length(), halve, begin)[0]
