"""A recurrent encoder of a user's items, after GRU4Rec (Hidasi et al. 2016, arXiv 1511.06939).

Gated recurrent units (Cho et al. 2014, arXiv 1406.1078; the reset gate is applied behind the
product, as in cuDNN):

    r = sigmoid(W_r x + U_r h)      z = sigmoid(W_z x + U_z h)
    n = tanh(W_n x + r * (U_n h))   h' = (1 - z) * n + z * h

Ours: several sequences share a row (the state is zero where one begins), layers are dropped but not
added, and the loss is that of the objective.
"""

import dataclasses
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ilm_jax.checks import BelowOne, Count, DTypeName, check
from ilm_jax.models.dropout import Dropout
from ilm_jax.models.layers import Dense, Types, constrain, make_param
from ilm_jax.models.stacking import layer_name


@dataclasses.dataclass(frozen=True)
class GRU4RecConfig:
    """Sizes of the encoder.

    Attributes:
      max_length: items that are read at most.
      num_layers, embed_dim: sizes; item vectors and states have `embed_dim` numbers.
      dropout: of the vectors that enter a layer, and of the last states.
      dtype, param_dtype: of the computation and of the weights.
    """

    name: ClassVar[str] = "gru4rec"

    max_length: Count = 50
    num_layers: Count = 1
    embed_dim: Count = 64
    dropout: BelowOne = 0.2
    dtype: DTypeName = "float32"
    param_dtype: DTypeName = "float32"

    def __post_init__(self) -> None:
        check(self)

    def build(self) -> "GRU4Rec":
        """The encoder."""
        return GRU4Rec(self)

    @property
    def types(self) -> Types:
        """Keyword arguments that every layer takes."""
        return Types(dtype=self.dtype, param_dtype=self.param_dtype)


class GRULayer(nn.Module):
    """One layer of gated recurrent units; what does not depend on states is one product."""

    config: GRU4RecConfig

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch length embed"], begins: Array
    ) -> Float[Array, "batch length embed"]:
        """States behind every item; a state is zero before an item that begins a sequence."""
        cfg = self.config
        width = cfg.embed_dim
        gates = Dense(3 * width, ("embed", "mlp"), True, name="input", **cfg.types)(x)
        init = nn.initializers.orthogonal()
        shape = (width, 3 * width)
        kernel = make_param(self, "kernel", init, shape, ("embed", "mlp"), cfg.param_dtype)
        kernel = kernel.astype(cfg.dtype)

        def step(state: Array, xs: tuple[Array, Array]) -> tuple[Array, Array]:
            """The state behind one more item."""
            given, first = xs
            state = jnp.where(first[:, None], 0, state)
            kept = state @ kernel
            reset, update = jnp.split(jax.nn.sigmoid((given + kept)[:, : 2 * width]), 2, axis=1)
            new = jnp.tanh(given[:, 2 * width :] + reset * kept[:, 2 * width :])
            state = (1 - update) * new + update * state
            return state, state

        start = jnp.zeros((len(x), width), gates.dtype)
        _, states = jax.lax.scan(step, start, (gates.swapaxes(0, 1), begins.swapaxes(0, 1)))
        return constrain(states.swapaxes(0, 1), "batch", "length", "embed")


class GRU4Rec(nn.Module):
    """The encoder.

    Attributes:
      config: sizes.
    """

    config: GRU4RecConfig

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch length embed"],
        positions: Int[Array, "batch length"],
        segment_ids: Int[Array, "batch length"],
        deterministic: bool = True,
    ) -> Float[Array, "batch length embed"]:
        """States behind each item; arguments as of `SASRec`."""
        cfg = self.config
        # Padding begins a sequence at every place, so that no state runs through it.
        begins = (positions == 0) | (segment_ids == 0)
        x = x.astype(cfg.dtype)
        for i in range(cfg.num_layers):
            x = Dropout(cfg.dropout)(x, deterministic)
            x = GRULayer(cfg, name=layer_name(i))(x, begins)
        return Dropout(cfg.dropout)(x, deterministic)
