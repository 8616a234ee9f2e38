"""The output layer of a model of words, as arrays: what a loss reads without making all logits."""

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float

from ilm_jax.models.attention import soft_cap

# Logit of an id that no word has: its probability is zero, and times zero it is zero.
NEVER = -1e9


@struct.dataclass
class OutputLayer:
    """logits = softcap * tanh(raw / softcap) of raw = scale * <hidden, table[word]> + bias[word].

    Attributes:
      table: a vector per word.
      bias: a number per word; none if None.
      scale: of the inner products.
      softcap: bound of the logits; none if None.
      dtype: of the products' factors; sums and logits are float32.
      new: vectors of words beside the table, without a bias; none if None.
      first: id of the first of them; what the table has under their ids is no word.
    """

    table: Float[Array, "vocab embed"]
    bias: Float[Array, " vocab"] | None = None
    scale: float = struct.field(pytree_node=False, default=1.0)
    softcap: float | None = struct.field(pytree_node=False, default=None)
    dtype: str = struct.field(pytree_node=False, default="float32")
    new: Float[Array, "new embed"] | None = None
    first: int = struct.field(pytree_node=False, default=0)

    def new_logits(self, hidden: Float[Array, "*batch embed"]) -> Float[Array, "*batch new"]:
        """Logits of the words beside the table, in float32."""
        assert self.new is not None, "there are none"
        dtype = jnp.dtype(self.dtype)
        factors = hidden.astype(dtype), self.new.astype(dtype)
        logits = jnp.einsum("...d,vd->...v", *factors, preferred_element_type=jnp.float32)
        logits = logits * self.scale
        return logits if self.softcap is None else soft_cap(logits, self.softcap)
