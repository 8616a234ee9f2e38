"""Dropout whose mask costs eleven integer operations an entry and is the same on every mesh.

Threefry, the generator behind `jax.random`, takes twenty rounds of an addition, a rotation and an
exclusive-or (Salmon et al. 2011), in every program twice and more where activations are computed
again. A mask needs less: its bits are a hash of the position, keyed by two words of each row.
Position and key alone decide, so that a mask does not depend on how rows are split over devices.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, UInt32

# Multipliers of lowbias32, a 32-bit mixer found by search for low bias (C. Wellons, "Prospecting
# for hash functions", 2018).
_FIRST, _SECOND = 0x7FEB352D, 0x846CA68B


def _mix(
    counter: UInt32[Array, " *shape"],
    first: UInt32[Array, " *#shape"],
    second: UInt32[Array, " *#shape"],
) -> UInt32[Array, " *shape"]:
    """The mixer, one key word before its first product and one before its second."""
    x = counter ^ first
    x = (x ^ (x >> 16)) * jnp.uint32(_FIRST)
    x = ((x ^ (x >> 15)) + second) * jnp.uint32(_SECOND)
    return x ^ (x >> 16)


def keep_mask(key: jax.Array, shape: tuple[int, ...], rate: float) -> Bool[Array, "..."]:
    """True with probability 1 - rate, independently for all purposes of dropout.

    Args:
      key: random.
      shape: rows first; the entries of a row are counted in 32 bits.
      rate: in [0, 1), met to 2^-32.
    """
    words = jax.random.bits(key, (4,), jnp.uint32)
    rows = jnp.arange(shape[0], dtype=jnp.uint32).reshape(-1, *[1] * (len(shape) - 1))
    first, second = _mix(rows, words[0], words[1]), _mix(rows, words[2], words[3])
    counter = jnp.zeros((1, *shape[1:]), jnp.uint32)
    for axis in range(1, len(shape)):
        stride = math.prod(shape[axis + 1 :])
        counter += jax.lax.broadcasted_iota(jnp.uint32, counter.shape, axis) * jnp.uint32(stride)
    return _mix(counter, first, second) >= jnp.uint32(min(round(rate * 2**32), 2**32 - 1))


class Dropout(nn.Module):
    """Sets entries to zero with probability `rate` and scales the others by 1 / (1 - rate).

    Attributes:
      rate: in [0, 1).
    """

    rate: float

    @nn.compact
    def __call__(self, x: Float[Array, " *shape"], deterministic: bool) -> Float[Array, " *shape"]:
        """Draws from the rng "dropout"; `x` itself if deterministic."""
        if deterministic or self.rate == 0.0:
            return x
        keep = keep_mask(self.make_rng("dropout"), x.shape, self.rate)
        return jnp.where(keep, x / jnp.asarray(1 - self.rate, x.dtype), jnp.zeros_like(x))
