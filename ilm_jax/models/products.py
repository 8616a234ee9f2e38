"""The product of activations with a weight, the bias, and on CPUs fast forms of their gradients.

The gradient of a weight is x^T g, summed over all tokens. As differentiation writes it, both
factors come to XLA's CPU backend with the tokens in the wrong place, and the product runs at
half of the rate of others (jaxlib 0.10.2). Here the narrower factor is turned first,
which costs a copy of it, and the product has the form of a layer's own.

The gradient of a bias is the sum of g over all tokens. XLA's CPU backend reads what is summed in
the order of whatever made it, and comes to 1 GB/s where heads, many words or scores lie
between two tokens; as a product with ones it reads what the weight's gradient reads.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax.custom_derivatives import CustomVJPPrimal, SymbolicZero
from jaxtyping import Array, Float

from ilm_jax.models.platforms import platform

# Of (x, weight): what is kept of them, or their gradients; None where nothing is asked for.
_Pair = tuple[Array | None, Array | None]


def product(
    x: Float[Array, "*batch in"], weight: Float[Array, "in out"]
) -> Float[Array, "*batch out"]:
    """x W, in the factors' type. A weight that does not train costs no product for its gradient."""
    return _product(x, weight) if platform() == "cpu" else jnp.dot(x, weight)


def add_bias(y: Float[Array, " *shape"], bias: Float[Array, " *out"]) -> Float[Array, " *shape"]:
    """y + b, the same b for all that comes before its dimensions."""
    return _add_bias(bias.ndim, y, bias) if platform() == "cpu" else y + bias


def column_sums(x: Float[Array, "rows columns"]) -> Float[Array, " columns"]:
    """The sum over rows, added up in float32, in the type of `x`."""
    if platform() != "cpu":  # where products may round their factors
        return x.sum(0)
    ones = jnp.ones((1, x.shape[0]), x.dtype)
    return jnp.dot(ones, x, preferred_element_type=jnp.float32)[0].astype(x.dtype)


@jax.custom_vjp
def _product(x: Array, weight: Array) -> Array:
    return jnp.dot(x, weight)


def _forward(x: CustomVJPPrimal, weight: CustomVJPPrimal) -> tuple[Array, _Pair]:
    kept = x.value if weight.perturbed else None, weight.value if x.perturbed else None
    return jnp.dot(x.value, weight.value), kept


def _backward(kept: _Pair, of_out: Array | SymbolicZero) -> _Pair:
    x, weight = kept
    if isinstance(of_out, SymbolicZero):
        return None, None
    of_x = None
    if weight is not None:
        last = of_out.ndim - 1
        of_x = jax.lax.dot_general(of_out, weight, (((last,), (1,)), ((), ())))
    return of_x, None if x is None else _of_weight(x, of_out)


_product.defvjp(_forward, _backward, symbolic_zeros=True)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _add_bias(rank: int, y: Array, bias: Array) -> Array:
    return y + bias


def _add_forward(
    rank: int, y: CustomVJPPrimal, bias: CustomVJPPrimal
) -> tuple[Array, tuple[tuple | None, tuple | None]]:
    """The sum, and () for each of the two that trains: known when a program is traced."""
    return y.value + bias.value, (() if y.perturbed else None, () if bias.perturbed else None)


def _add_backward(
    rank: int, trains: tuple[tuple | None, tuple | None], g: Array | SymbolicZero
) -> _Pair:
    if isinstance(g, SymbolicZero):
        return None, None
    of_y, of_bias = (None if which is None else g for which in trains)
    if of_bias is not None:
        out = g.shape[g.ndim - rank :]
        of_bias = column_sums(g.reshape(-1, math.prod(out))).reshape(out)
    return of_y, of_bias


_add_bias.defvjp(_add_forward, _add_backward, symbolic_zeros=True)


def _of_weight(x: Float[Array, "*batch in"], g: Float[Array, "*batch out"]) -> Array:
    """x^T g over all tokens; barriers keep XLA from folding the turns into the product."""
    x, g = (y.reshape(-1, y.shape[-1]) for y in (x, g))
    barrier = jax.lax.optimization_barrier
    if x.shape[1] <= g.shape[1]:
        return jnp.dot(barrier(x.T), g)
    return barrier(jnp.dot(barrier(g.T), x)).T
