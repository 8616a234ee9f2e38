"""Sizes and layers of the Q-Former (see qformer.py for the model and its sources)."""

import dataclasses

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ilm_jax.checks import BelowOne, Count, DTypeName, Number, Remat, Weight, check
from ilm_jax.errors import UserError
from ilm_jax.models.attention import check_heads
from ilm_jax.models.bert import BertAttention, BertMLP
from ilm_jax.models.dropout import Dropout
from ilm_jax.models.layers import DType, LayerNorm, Types, constrain, make_param, normal_002


@dataclasses.dataclass(frozen=True)
class QFormerConfig:
    """Sizes of a Q-Former.

    Attributes:
      cf_dim: width of the vectors that it reads.
      vocab_size: of the text's tokenizer.
      num_layers, embed_dim, num_heads, mlp_dim: BERT's sizes.
      num_queries: queries, hence soft tokens, per vector.
      cross_attention_period: layers 0, p, 2p, ... have cross-attention.
      num_item_tokens: tokens into which a vector is projected. With one, the softmax over a single
        key is constant, and every query reads the same thing.
      token_dim: width of these tokens, which cross-attention reads; embed_dim if None. BLIP-2's
        weights read image features of width 1408.
      max_text_length: longest text.
      projection_dim: width of the contrastive features.
      dropout: rate, also on attention weights.
      pad_id, dec_id: tokens that mask a text and that start a caption.
      norm_eps: of BERT's norms.
      dtype, param_dtype: of the computation and of the weights.
      remat: "none", "full" or "minimal" (products with weights are kept).
      scan_layers: one compiled body for all layers, weights stacked; else `layer_00`, `layer_01`...

    Raises:
      UserError: if heads do not divide the width, or the period the scanned layers.
    """

    cf_dim: Number
    vocab_size: Number
    num_layers: Count = 8
    num_queries: Count = 8
    embed_dim: Count = 768
    num_heads: Count = 12
    mlp_dim: Count = 3072
    cross_attention_period: Count = 2
    num_item_tokens: Count = 1
    token_dim: Count | None = None
    max_text_length: Count = 64
    projection_dim: Count = 256
    dropout: BelowOne = 0.1
    pad_id: Number = 0
    dec_id: Number = 5
    norm_eps: Weight = 1e-12
    dtype: DTypeName = "float32"
    param_dtype: DTypeName = "float32"
    remat: Remat = "none"
    scan_layers: bool = True

    def __post_init__(self) -> None:
        """Checks what would otherwise fail deep inside a trace."""
        check(self)
        check_heads(self)
        if self.scan_layers and self.num_layers % self.cross_attention_period:
            raise UserError(
                f"QFormerConfig.num_layers={self.num_layers} is not a multiple of "
                f"cross_attention_period={self.cross_attention_period}: change one, or set "
                "scan_layers=False"
            )

    @property
    def token_width(self) -> int:
        """Width of what cross-attention reads."""
        return self.token_dim or self.embed_dim

    @property
    def types(self) -> Types:
        """Keyword arguments that every layer takes."""
        return Types(dtype=self.dtype, param_dtype=self.param_dtype)


# Hidden states of (queries, text), each [batch, length, embed] or None where absent.
Streams = tuple[Array | None, Array | None]


class QFormerLayer(nn.Module):
    """One layer over queries, text, or both; what is absent costs nothing and needs no weights."""

    config: QFormerConfig
    has_cross_attention: bool

    @nn.compact
    def __call__(
        self,
        streams: Streams,
        tokens: Float[Array, "batch item_tokens token"] | None,
        mask: Bool[Array, "#batch #length length"] | None,
        deterministic: bool,
    ) -> Streams:
        """Attention, cross-attention of the queries, and feed-forward, each added and normed.

        Args:
          streams: queries and text.
          tokens: what queries attend to; None without queries.
          mask: True where a position (queries first, then text) may look; all if None.
          deterministic: no dropout.
        """
        cfg = self.config
        drop = Dropout(cfg.dropout)

        def add(x: Array, update: Array, name: str) -> Array:
            """Residual, then LayerNorm: BERT normalises behind each block."""
            x = LayerNorm(cfg.norm_eps, name=name, **cfg.types)(x + drop(update, deterministic))
            return constrain(x, "batch", "length", "embed")

        def attention(name: str) -> BertAttention:
            """An attention block of this layer's sizes."""
            sizes = (cfg.embed_dim, cfg.num_heads, cfg.dropout)
            return BertAttention(*sizes, name=name, **cfg.types)

        def mlp(name: str) -> BertMLP:
            """A feed-forward block of this layer's sizes."""
            return BertMLP(cfg.embed_dim, cfg.mlp_dim, name=name, **cfg.types)

        x = jnp.concatenate([part for part in streams if part is not None], axis=1)
        x = add(x, attention("attention")(x, x, mask, deterministic), "attention_norm")
        split = 0 if streams[0] is None else streams[0].shape[1]
        queries, text = x[:, :split], x[:, split:]
        if streams[0] is not None:
            if self.has_cross_attention:
                assert tokens is not None
                cross = attention("cross_attention")
                update = cross(queries, tokens, None, deterministic)
                queries = add(queries, update, "cross_attention_norm")
            queries = add(queries, mlp("query_mlp")(queries), "query_mlp_norm")
        if streams[1] is not None:
            text = add(text, mlp("text_mlp")(text), "text_mlp_norm")
        return (None if streams[0] is None else queries, None if streams[1] is None else text)


class QFormerPeriod(nn.Module):
    """One cross-attention period of layers: the body of the scan."""

    config: QFormerConfig

    @nn.compact
    def __call__(
        self, streams: Streams, tokens: Array | None, mask: Array | None, deterministic: bool
    ) -> tuple[Streams, None]:
        """Applies `sub_0` (with cross-attention), `sub_1`, ..."""
        for j in range(self.config.cross_attention_period):
            layer = QFormerLayer(self.config, j == 0, name=f"sub_{j}")
            streams = layer(streams, tokens, mask, deterministic)
        return streams, None


class LogTemperatures(nn.Module):
    """log(temperature) of each contrastive loss: trained as a logarithm, so it stays positive.

    Attributes:
      starts: (loss, temperature before training).
    """

    starts: tuple[tuple[str, float], ...]

    @nn.compact
    def __call__(self, kind: str) -> Float[Array, ""]:
        """The temperature of one of the losses."""
        logs = {}
        for name, start in self.starts:
            initial = nn.initializers.constant(jnp.log(start))
            logs[name] = make_param(self, name, initial, (), ())
        return jnp.exp(logs[kind])


class Queries(nn.Module):
    """The learned queries."""

    num_queries: int
    embed_dim: int
    param_dtype: DType

    @nn.compact
    def __call__(self) -> Float[Array, "queries embed"]:
        """The table `embedding`, N(0, 0.02)."""
        shape, axes = (self.num_queries, self.embed_dim), ("queries", "embed")
        return make_param(self, "embedding", normal_002, shape, axes, self.param_dtype)
