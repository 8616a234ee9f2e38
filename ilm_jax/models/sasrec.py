"""SASRec: causal self-attention over a user's items (Kang and McAuley 2018, arXiv 1808.09781).

As in the paper: learned positions, item vectors times sqrt(dim), layers of attention and of a
two-layer ReLU network, each normed before, dropped and added, and a last norm. Ours: positions
count from the oldest item that is read (the paper pads on the left, so that its last item has
always the same), attention's output has a projection, and its weights are not dropped, so that
attention may be computed in blocks.
"""

import dataclasses
from typing import Annotated, ClassVar

import flax.linen as nn
import jax
from jaxtyping import Array, Float, Int

from ilm_jax.checks import BelowOne, Choice, Count, DTypeName, Weight, check
from ilm_jax.models.attention import BACKENDS, causal_attention, check_heads
from ilm_jax.models.dropout import Dropout
from ilm_jax.models.layers import Dense, Embed, LayerNorm, Types, constrain, normal_002
from ilm_jax.models.stacking import layer_name


@dataclasses.dataclass(frozen=True)
class SASRecConfig:
    """Sizes of the encoder.

    Attributes:
      max_length: items that are read at most.
      num_layers, embed_dim, num_heads: sizes; item vectors have `embed_dim` numbers.
      mlp_dim: width inside the feed-forward network; embed_dim if None, as in the paper.
      dropout: of vectors and updates.
      norm_eps: of the norms.
      attention_backend: see `attention.causal_attention`.
      dtype, param_dtype: of the computation and of the weights.

    Raises:
      UserError: if heads do not divide the width.
    """

    name: ClassVar[str] = "sasrec"

    max_length: Count = 50
    num_layers: Count = 2
    embed_dim: Count = 64
    num_heads: Count = 1
    mlp_dim: Count | None = None
    dropout: BelowOne = 0.2
    norm_eps: Weight = 1e-8
    attention_backend: Annotated[str, Choice(BACKENDS)] = "auto"
    dtype: DTypeName = "float32"
    param_dtype: DTypeName = "float32"

    def __post_init__(self) -> None:
        check(self)
        check_heads(self)

    def build(self) -> "SASRec":
        """The encoder."""
        return SASRec(self)

    @property
    def types(self) -> Types:
        """Keyword arguments that every layer takes."""
        return Types(dtype=self.dtype, param_dtype=self.param_dtype)


class SASRecLayer(nn.Module):
    """Attention and feed-forward network, each normed before, dropped and added."""

    config: SASRecConfig

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch length embed"],
        segment_ids: Int[Array, "batch length"],
        deterministic: bool,
    ) -> Float[Array, "batch length embed"]:
        """Applies the layer; an item sees itself and what is before it in its segment."""
        cfg = self.config
        drop = Dropout(cfg.dropout)

        def dense(name: str, features: int, axes: tuple[str, str]) -> Dense:
            """A projection with a bias."""
            return Dense(features, axes, True, kernel_init=normal_002, name=name, **cfg.types)

        def heads(name: str, y: Array) -> Array:
            """Projection [batch, length, heads, kv]."""
            y = dense(name, cfg.embed_dim, ("embed", "heads"))(y)
            y = y.reshape(*y.shape[:-1], cfg.num_heads, cfg.embed_dim // cfg.num_heads)
            return constrain(y, "batch", "length", "heads", "kv")

        normed = LayerNorm(cfg.norm_eps, name="attention_norm", **cfg.types)(x)
        query, key, value = (heads(name, normed) for name in ("query", "key", "value"))
        seen = causal_attention(query, key, value, segment_ids, backend=cfg.attention_backend)
        update = dense("out", cfg.embed_dim, ("heads", "embed"))(seen.reshape(x.shape))
        x = constrain(x + drop(update, deterministic), "batch", "length", "embed")

        normed = LayerNorm(cfg.norm_eps, name="mlp_norm", **cfg.types)(x)
        hidden = dense("up", cfg.mlp_dim or cfg.embed_dim, ("embed", "mlp"))(normed)
        hidden = constrain(drop(jax.nn.relu(hidden), deterministic), "batch", "length", "mlp")
        update = dense("down", cfg.embed_dim, ("mlp", "embed"))(hidden)
        return constrain(x + drop(update, deterministic), "batch", "length", "embed")


class SASRec(nn.Module):
    """The encoder.

    Attributes:
      config: sizes.
    """

    config: SASRecConfig

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch length embed"],
        positions: Int[Array, "batch length"],
        segment_ids: Int[Array, "batch length"],
        deterministic: bool = True,
    ) -> Float[Array, "batch length embed"]:
        """States behind each item, from vectors of items.

        Args:
          x: vectors of items, oldest first.
          positions: in each segment, from 0.
          segment_ids: sequences that share a row; 0 is padding, which no item sees.
          deterministic: nothing is dropped.
        """
        cfg = self.config
        axes = ("length", "embed")
        place = Embed(cfg.max_length, cfg.embed_dim, axes, name="position", **cfg.types)
        x = x.astype(cfg.dtype) * cfg.embed_dim**0.5 + place(positions)
        x = constrain(Dropout(cfg.dropout)(x, deterministic), "batch", "length", "embed")
        for i in range(cfg.num_layers):
            x = SASRecLayer(cfg, name=layer_name(i))(x, segment_ids, deterministic)
        return LayerNorm(cfg.norm_eps, name="final_norm", **cfg.types)(x)
