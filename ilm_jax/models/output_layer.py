"""The output layer of a model of words, as arrays: what a loss reads without making all logits."""

from flax import struct
from jaxtyping import Array, Float


@struct.dataclass
class OutputLayer:
    """logits = softcap * tanh(raw / softcap) of raw = scale * <hidden, table[word]> + bias[word].

    Attributes:
      table: a vector per word.
      bias: a number per word; none if None.
      scale: of the inner products.
      softcap: bound of the logits; none if None.
      dtype: of the products' factors; sums and logits are float32.
    """

    table: Float[Array, "vocab embed"]
    bias: Float[Array, " vocab"] | None = None
    scale: float = struct.field(pytree_node=False, default=1.0)
    softcap: float | None = struct.field(pytree_node=False, default=None)
    dtype: str = struct.field(pytree_node=False, default="float32")
