"""int8 weights for layers that are built with `quantized=True`: symmetric, a scale per output.

Ours instead of qwix or AQT: qwix (0.1.8) replaces leaves by objects of its own and quantizes arrays
that are on the devices whole, AQT (0.9.0) keeps weights in a collection of its own; neither can
quantize a slice on its way from disk into a shard, and all that is needed of them are two lines.
Training quantizes while it loads, with checkpoints/published/entries.py.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int8


def quantize(
    weights: Float[Array, "*stack in out"], axis: int = -2
) -> tuple[Int8[Array, "*stack in out"], Float[Array, "*stack out"]]:
    """(int8, scale) with int8 * scale closest to the weights, scale = max |w| / 127 per output.

    Args:
      weights: a kernel [in, out], or a stack of them.
      axis: the dimension that shares a scale: -2 for kernels, -1 for the rows of a table.
    """
    scale = jnp.max(jnp.abs(weights), axis=axis, keepdims=True) / 127
    safe = jnp.where(scale == 0, 1, scale)
    return jnp.round(weights / safe).astype(jnp.int8), jnp.squeeze(scale, axis)
