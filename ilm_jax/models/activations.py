"""Activations of the feed-forward blocks."""

import math

import jax
from jaxtyping import Array, Float


def gelu(x: Float[Array, " *shape"]) -> Float[Array, " *shape"]:
    """x Phi(x), exactly (Hendrycks and Gimpel 2016, arXiv 1606.08415); inside in float32.

    Its gradient is made from `x` alone: what a layer keeps for it is as wide as the block, and
    making it again takes less time than writing and reading it.
    """
    return jax.checkpoint(_gelu, prevent_cse=False)(x)


def _gelu(x: Array) -> Array:
    # By erf, which compilers have a short program for; erfc, which is exact to the last digits of
    # values that are 0 beside all others, takes twice as long on a CPU.
    wide = x.astype("float32")
    return (0.5 * wide * (1 + jax.lax.erf(wide * math.sqrt(0.5)))).astype(x.dtype)
