"""Soft tokens that start as words: a reader's last layer, set from what it will read.

Drawn weights know neither the scale of a language model's token vectors nor that of the reader's
hidden values, much of which is one vector common to all items. A layer that starts from data (as in
Salimans & Kingma 2016, arXiv 1602.07868, section 3, and Krähenbühl et al. 2016, arXiv 1511.06856)
gives soft tokens that are centred over the items, and as large as words.
"""

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ilm_jax.errors import UserError

# A hidden value that hardly varies is not blown up further than to this share of the others.
_LEAST_SPREAD = 1e-2
_TINY = jnp.finfo(jnp.float32).tiny


class Linear(NamedTuple):
    """The leaves of a linear layer."""

    kernel: Float[Array, "in out"]
    bias: Float[Array, " out"] | None


def inputs_of(
    module: nn.Module, params: PyTree[Array], layer: str, vectors: Float[Array, "items cf"]
) -> Float[Array, "items positions in"]:
    """Inputs of a reader's layer for each vector, in float32.

    Args:
      module: the reader's.
      params: nested; what is not the reader's is left alone.
      layer: path of the layer's parameters, such as "adaptor/down".
      vectors: of the items.

    Raises:
      UserError: if the reader calls no such layer, or calls it more than once.
    """
    read: list[Array] = []

    def note(
        call: Callable[..., object],
        args: tuple[Array, ...],
        kwargs: dict[str, object],
        context: nn.module.InterceptorContext,
    ) -> object:
        """flax.linen.intercept_methods' hook: keeps what the layer is called with."""
        if context.method_name == "__call__" and "/".join(context.module.path) == layer:
            read.append(args[0])
        return call(*args, **kwargs)

    with nn.intercept_methods(note):
        module.apply({"params": params}, vectors)
    if len(read) != 1:
        raise UserError(
            f"{type(module).__name__} calls the layer {layer!r} {len(read)} times, but its reader "
            "names it as the output_layer, which is called once: name the linear layer that gives "
            'the soft tokens, or "" for none'
        )
    x = read[0].astype(jnp.float32)
    return x.reshape(len(vectors), -1, x.shape[-1])


def standardised(
    inputs: Float[Array, "items positions in"], drawn: Linear, rms: Float[Array, ""]
) -> Linear:
    """A drawn layer that reads its inputs standardised, with outputs of this root mean square.

    Every input is divided by its deviation over the items, and with a bias the mean over items and
    positions goes. Where positions (a Q-Former's queries) share the layer, what is common to the
    items but differs from query to query stays: it tells the language model which soft token it
    reads. But it is turned down to half of the outputs' mean square, where it is more: that of an
    untrained Q-Former is hundreds of times what it says of an item.

    Args:
      inputs: of the layer, for each item and each position at which it is called.
      drawn: the random map; its scale does not matter.
      rms: of the outputs' entries.
    """
    mean = jnp.mean(inputs, axis=0)
    spread = jnp.sqrt(jnp.mean(jnp.square(inputs - mean), axis=(0, 1)))
    spread = jnp.maximum(jnp.maximum(spread, _LEAST_SPREAD * root_mean_square(spread)), _TINY)
    own, mean = (inputs - mean) / spread, mean / spread
    centre = jnp.mean(mean, axis=0) if drawn.bias is not None else jnp.zeros(mean.shape[-1])
    kernel = drawn.kernel.astype(jnp.float32)
    shared = _along(mean - centre, kernel)
    kernel = kernel - shared
    common = root_mean_square((mean - centre) @ shared)
    share = jnp.minimum(1.0, root_mean_square(own @ kernel) / jnp.maximum(common, _TINY))
    kernel = kernel + share * shared
    size = root_mean_square((own + mean - centre) @ kernel)
    kernel = kernel * (rms / jnp.maximum(size, _TINY))
    bias = None if drawn.bias is None else (-centre @ kernel).astype(drawn.bias.dtype)
    return Linear((kernel / spread[:, None]).astype(drawn.kernel.dtype), bias)


def common_share(outputs: Float[Array, "items positions out"]) -> Float[Array, ""]:
    """The share of the mean square that is the same for all items."""
    outputs = outputs.astype(jnp.float32)
    return jnp.mean(jnp.square(jnp.mean(outputs, axis=0))) / jnp.mean(jnp.square(outputs))


def root_mean_square(x: Array) -> Float[Array, ""]:
    """Of all entries, in float32."""
    return jnp.sqrt(jnp.mean(jnp.square(x.astype(jnp.float32))))


def _along(
    directions: Float[Array, "count in"], kernel: Float[Array, "in out"]
) -> Float[Array, "in out"]:
    """The part of a map that reads what lies along these directions."""
    _, sizes, basis = jnp.linalg.svd(directions, full_matrices=False)
    basis = jnp.where((sizes > 1e-5 * sizes[0])[:, None], basis, 0.0)
    return basis.T @ (basis @ kernel)
