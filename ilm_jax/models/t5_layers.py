"""Sizes and layers of the encoder-decoder (see t5.py for the model and its sources)."""

import dataclasses
from typing import TYPE_CHECKING

import flax.linen as nn
import jax
from jaxtyping import Array, Bool, Float, Int, PyTree

from ilm_jax.checks import (
    BelowOne,
    Count,
    DTypeName,
    Number,
    Positive,
    Remat,
    Weight,
    check,
)
from ilm_jax.errors import UserError
from ilm_jax.models.attention import check_heads, dot_product_attention, write_cache
from ilm_jax.models.dropout import Dropout
from ilm_jax.models.layers import (
    Dense,
    Initializer,
    RMSNorm,
    Types,
    check_lora_targets,
    constrain,
    lora_rank_of,
)
from ilm_jax.models.t5_positions import PositionBias

if TYPE_CHECKING:
    from ilm_jax.models.t5 import T5

# gelu is the tanh form here, as it is in T5 1.1.
ACTIVATIONS = {"relu": jax.nn.relu, "gelu": jax.nn.gelu, "silu": jax.nn.silu}

# Of one layer: what was decoded, and the prompt.
CACHED = ("key", "value", "memory_key", "memory_value")
LayerCache = dict[str, Array]
Positions = tuple[Int[Array, "#batch length"], Int[Array, "#batch keys"]]


@dataclasses.dataclass(frozen=True)
class T5Config:
    """Sizes and kind of an encoder-decoder; T5 1.1 and FLAN-T5 by default.

    Attributes:
      vocab_size, embed_dim, mlp_dim, num_heads: sizes.
      num_layers: of the encoder. num_decoder_layers: of the decoder; as many if None.
      head_dim: width of a head; embed_dim / num_heads if None.
      activation: "gelu" (its tanh form), "relu" or "silu".
      gated: the feed-forward is gated (T5 1.1); else up, activation, down (T5 1.0).
      tie_embeddings: the output layer is the token table, on states times embed_dim^-0.5 (T5 1.0).
      position_buckets, max_distance: of the relative positions.
      layer_positions: every layer has its table of positions (umT5); else one per stack.
      start_id: token that the decoder starts with. eos_id: token that ends what the encoder reads.
      norm_eps: of the RMS norms.
      dropout: while it trains, where T5 has it (Raffel et al. 2020, section 2.1): on what a stack
        reads and returns, every update, attention weights and inside the feed-forward.
      word_rows: rows of whole-word embeddings (P5, Geng et al. 2022, arXiv 2203.13366), which are
        added to what the encoder reads, by the number of each token's word (`word_ids` of a
        batch); 0: none.
      lora_rank, lora_alpha: low-rank updates (0: none) of the projections in lora_targets.
      lora_targets: patterns of whole names: "query", "key", "value", "out", "gate", "up", "down".
      quantized: int8 weights in the layers' projections.
      dtype, param_dtype: of the computation and of the weights.
      remat: "none", "full" or "minimal" (products with weights are kept).
      scan_layers: one compiled body for all layers, weights stacked; else `layer_00`, `layer_01`...

    Raises:
      UserError: for an unknown activation, or buckets that do not split.
    """

    vocab_size: Number
    num_layers: Count
    embed_dim: Count
    num_heads: Count
    mlp_dim: Count
    num_decoder_layers: Count | None = None
    head_dim: Count | None = None
    activation: str = "gelu"
    gated: bool = True
    tie_embeddings: bool = False
    position_buckets: Count = 32
    max_distance: Count = 128
    layer_positions: bool = False
    start_id: Number = 0
    eos_id: Number = 1
    norm_eps: Weight = 1e-6
    dropout: BelowOne = 0.0
    word_rows: Number = 0
    lora_rank: Number = 0
    lora_alpha: Positive = 16.0
    lora_targets: tuple[str, ...] = ("query", "value")
    quantized: bool = False
    dtype: DTypeName = "float32"
    param_dtype: DTypeName = "float32"
    remat: Remat = "none"
    scan_layers: bool = True

    def __post_init__(self) -> None:
        """Checks what would otherwise fail deep inside a trace."""
        check(self)
        check_heads(self)
        check_lora_targets(self.lora_targets)
        if self.activation not in ACTIVATIONS:
            known = ", ".join(ACTIVATIONS)
            raise UserError(f'T5Config.activation="{self.activation}" is not one of {known}')
        buckets, distance = self.position_buckets, self.max_distance
        if buckets < 4 or buckets % 4 or distance <= buckets // 2:
            raise UserError(
                f"T5Config.position_buckets={buckets}, max_distance={distance}: give a multiple of "
                "4 buckets, and a distance above half of them"
            )

    @property
    def decoder_layers(self) -> int:
        """num_decoder_layers, or its default."""
        return self.num_layers if self.num_decoder_layers is None else self.num_decoder_layers

    @property
    def head_width(self) -> int:
        """head_dim, or its default."""
        return self.head_dim or self.embed_dim // self.num_heads

    @property
    def encodes(self) -> bool:
        """Whether an encoder reads the prompt."""
        return True

    def build(self) -> "T5":
        """The language model."""
        from ilm_jax.models.t5 import T5  # which is made of what is defined here

        return T5(self)

    @property
    def types(self) -> Types:
        """Keyword arguments that every layer takes."""
        return Types(dtype=self.dtype, param_dtype=self.param_dtype)

    def dense(
        self, name: str, features: int, axes: tuple[str, str], init: Initializer | None = None
    ) -> Dense:
        """A projection of a layer, with the low-rank update that the config asks for."""
        return Dense(
            features,
            axes,
            kernel_init=init or nn.initializers.lecun_normal(),
            lora_rank=lora_rank_of(name, self.lora_targets, self.lora_rank),
            lora_alpha=self.lora_alpha,
            quantized=self.quantized,
            name=name,
            **self.types,
        )


class T5Attention(nn.Module):
    """Attention without scaling, over the row itself, a memory, or a cache.

    Attributes:
      config: sizes.
      deterministic: nothing is dropped.
    """

    config: T5Config
    deterministic: bool = True

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch length embed"],
        source: Float[Array, "batch source embed"] | None,
        mask: Bool[Array, "#batch #length keys"],
        bias: Float[Array, "#batch heads #length keys"] | None = None,
        cached: tuple[Array, Array] | None = None,
        where: tuple[Array, Array] | None = None,
    ) -> tuple[Float[Array, "batch length embed"], tuple[Array, Array]]:
        """Returns the update, and keys and values [batch, keys, heads, kv] that were looked at.

        Args:
          x: what looks.
          source: what is looked at; None for the cached keys and values alone.
          mask: True where a query may look.
          bias: added to the scores.
          cached: earlier keys and values; those of `source` are written among them.
          where: (entries, valid) for that writing, as in `write_cache`.
        """
        cfg = self.config
        width = cfg.num_heads * cfg.head_width
        # Scores are not divided by sqrt(head_dim): the query's initialisation is.
        small = nn.initializers.variance_scaling(1 / cfg.head_width, "fan_in", "normal")

        def heads(name: str, of: Array, init: Initializer | None = None) -> Array:
            """Projection [batch, length, heads, kv]."""
            y = cfg.dense(name, width, ("embed", "heads"), init)(of)
            y = y.reshape(*y.shape[:-1], cfg.num_heads, cfg.head_width)
            return constrain(y, "batch", "length", "heads", "kv")

        query = heads("query", x, small)
        if source is not None:
            new = heads("key", source), heads("value", source)
            if cached is None or where is None:
                cached = new
            else:
                old_key, old_value = cached
                cached = (
                    write_cache(old_key, new[0], *where),
                    write_cache(old_value, new[1], *where),
                )
        assert cached is not None
        key, value = (part.astype(query.dtype) for part in cached)
        drop = Dropout(cfg.dropout)

        def dropped(weights: Array) -> Array:
            """Attention weights as they are summed by."""
            return drop(weights, self.deterministic)

        out = dot_product_attention(query, key, value, mask, dropped, bias, scale=1.0)
        out = cfg.dense("out", cfg.embed_dim, ("heads", "embed"))(out.reshape(*x.shape[:-1], width))
        return out, cached


class T5MLP(nn.Module):
    """down(activation(gate(x)) * up(x)), or down(activation(up(x))) without a gate."""

    config: T5Config
    deterministic: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "batch length embed"]) -> Float[Array, "batch length embed"]:
        """Applies the feed-forward block, without residual and norm."""
        cfg = self.config
        hidden = cfg.dense("up", cfg.mlp_dim, ("embed", "mlp"))(x)
        activation = ACTIVATIONS[cfg.activation]
        if cfg.gated:
            gate = cfg.dense("gate", cfg.mlp_dim, ("embed", "mlp"))(x)
            hidden = activation(gate) * hidden
        else:
            hidden = activation(hidden)
        hidden = Dropout(cfg.dropout)(hidden, self.deterministic)
        hidden = constrain(hidden, "batch", "length", "mlp")
        return cfg.dense("down", cfg.embed_dim, ("mlp", "embed"))(hidden)


class T5Layer(nn.Module):
    """Self-attention, attention to a memory if it decodes, feed-forward; normed before and added.

    Attributes:
      config: sizes.
      decodes: a layer of the decoder.
      deterministic: nothing is dropped.
    """

    config: T5Config
    decodes: bool
    deterministic: bool = True

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch length embed"],
        cache: LayerCache | None,
        positions: Positions,
        mask: Bool[Array, "batch length keys"],
        bias: Float[Array, "#batch heads length keys"] | None,
        memory: Float[Array, "batch source embed"] | None = None,
        memory_mask: Bool[Array, "#batch #length source"] | None = None,
        where: tuple[Array, Array] | None = None,
    ) -> tuple[Float[Array, "batch length embed"], LayerCache | None]:
        """Returns the new hidden states and this layer's cache.

        Args:
          x: hidden states.
          cache: of this layer; None to look at the row itself.
          positions: of queries and of keys.
          mask: what self-attention may look at.
          bias: of the positions; None asks for this layer's own.
          memory: what the encoder read; None if the cache holds its keys and values.
          memory_mask: what may be looked at of it.
          where: (entries, valid) to write to in the cache.
        """
        cfg, off = self.config, self.deterministic
        drop = Dropout(cfg.dropout)
        if bias is None:
            bias = PositionBias(cfg, not self.decodes, name="positions")(*positions)
        said = None if cache is None else (cache["key"], cache["value"])
        normed = RMSNorm(cfg.norm_eps, name="attention_norm", **cfg.types)(x)
        attention = T5Attention(cfg, off, name="attention")
        update, said = attention(normed, normed, mask, bias, said, where)
        x = constrain(x + drop(update, off), "batch", "length", "embed")
        if self.decodes:
            assert memory_mask is not None
            read = None if cache is None or memory is not None else _memory(cache)
            normed = RMSNorm(cfg.norm_eps, name="cross_attention_norm", **cfg.types)(x)
            attention = T5Attention(cfg, off, name="cross_attention")
            update, read = attention(normed, memory, memory_mask, cached=read)
            x = constrain(x + drop(update, off), "batch", "length", "embed")
            if cache is not None:
                cache = dict(zip(CACHED, (*said, *read), strict=True))
        normed = RMSNorm(cfg.norm_eps, name="mlp_norm", **cfg.types)(x)
        x = x + drop(T5MLP(cfg, off, name="mlp")(normed), off)
        return constrain(x, "batch", "length", "embed"), cache


def _memory(cache: LayerCache) -> tuple[Array, Array]:
    return cache["memory_key"], cache["memory_value"]


class T5Period(nn.Module):
    """The body of the scan: one layer, `sub_0`, since all layers of a stack are of one kind."""

    config: T5Config
    decodes: bool
    deterministic: bool = True

    @nn.compact
    def __call__(
        self, x: Array, cache: LayerCache | None, *args: PyTree[Array]
    ) -> tuple[Array, LayerCache | None]:
        """Applies the layer to a slice of the cache."""
        layer = T5Layer(self.config, self.decodes, self.deterministic, name="sub_0")
        return layer(x, cache, *args)
