"""Sizes and layers of the decoder (see decoder.py for the model and its sources)."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
from jaxtyping import Array, Bool, Float, Int

from ilm_jax.errors import UserError
from ilm_jax.models.attention import dot_product_attention, rotary, write_cache
from ilm_jax.models.layers import Dense, RMSNorm, constrain

ACTIVATIONS = {"silu": jax.nn.silu, "gelu": jax.nn.gelu}

# {"key", "value"}: arrays [layers, batch, length, kv_heads, head_dim].
Cache = dict[str, Array]


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
    """Sizes and kind of a decoder.

    Attributes:
      vocab_size, num_layers, embed_dim, mlp_dim: sizes.
      num_heads: query heads. num_kv_heads: key heads, dividing them; as many if None.
      head_dim: width of a head; embed_dim / num_heads if None.
      rope_theta: longest wavelength of the rotary positions, over 2 pi.
      norm_eps: of the RMS norms.
      activation: of the gate, "silu" or "gelu" (its tanh form).
      tie_embeddings: the output layer is the token table.
      scale_embeddings: token vectors are multiplied by sqrt(embed_dim) (Gemma).
      attention_bias: biases on query, key and value (Qwen 2).
      qk_norm: RMS norm over every query and key head (Qwen 3, Gemma 3).
      lora_rank, lora_alpha: low-rank updates (0: none) of the projections in lora_targets.
      lora_targets: of "query", "key", "value", "out", "gate", "up", "down".
      quantized: int8 weights in the layers' projections.
      dtype, param_dtype: of the computation and of the weights.
      remat: "none", "full" or "minimal" (products with weights are kept).
      scan_layers: one compiled body for all layers, weights stacked; else `layer_00`, `layer_01`...

    Raises:
      UserError: for head counts that do not divide, or an unknown activation.
    """

    vocab_size: int
    num_layers: int
    embed_dim: int
    num_heads: int
    mlp_dim: int
    num_kv_heads: int | None = None
    head_dim: int | None = None
    rope_theta: float = 10_000.0
    norm_eps: float = 1e-6
    activation: str = "silu"
    tie_embeddings: bool = True
    scale_embeddings: bool = False
    attention_bias: bool = False
    qk_norm: bool = False
    lora_rank: int = 0
    lora_alpha: float = 16.0
    lora_targets: tuple[str, ...] = ("query", "value")
    quantized: bool = False
    dtype: str = "float32"
    param_dtype: str = "float32"
    remat: str = "none"
    scan_layers: bool = True

    def __post_init__(self) -> None:
        """Checks what would otherwise fail deep inside a trace."""
        # gin and JSON give lists, and a config is hashed.
        object.__setattr__(self, "lora_targets", tuple(self.lora_targets))
        if self.num_heads % self.kv_heads:
            raise UserError(
                f"DecoderConfig.num_heads={self.num_heads} is not a multiple of "
                f"num_kv_heads={self.kv_heads}"
            )
        if self.head_width % 2:
            raise UserError(f"DecoderConfig.head_dim={self.head_width} is odd: rotary needs pairs")
        if self.activation not in ACTIVATIONS:
            known = ", ".join(ACTIVATIONS)
            raise UserError(f'DecoderConfig.activation="{self.activation}" is not one of {known}')

    @property
    def kv_heads(self) -> int:
        """num_kv_heads, or its default."""
        return self.num_kv_heads or self.num_heads

    @property
    def head_width(self) -> int:
        """head_dim, or its default."""
        return self.head_dim or self.embed_dim // self.num_heads

    @property
    def types(self) -> dict[str, Any]:
        """Keyword arguments that every layer takes."""
        return {"dtype": self.dtype, "param_dtype": self.param_dtype}

    def dense(self, name: str, features: int, axes: tuple[str, str], bias: bool = False) -> Dense:
        """A projection of a layer, with the low-rank update that the config asks for."""
        return Dense(
            features,
            axes,
            bias,
            lora_rank=self.lora_rank if name in self.lora_targets else 0,
            lora_alpha=self.lora_alpha,
            quantized=self.quantized,
            name=name,
            **self.types,
        )


class DecoderAttention(nn.Module):
    """Grouped-query attention with rotary positions, over the row itself or over a cache."""

    config: DecoderConfig

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch length embed"],
        positions: Int[Array, "batch length"],
        mask: Bool[Array, "batch length keys"],
        valid: Bool[Array, "batch length"],
        entries: Int[Array, "batch length"],
        cache: Cache | None,
    ) -> tuple[Float[Array, "batch length embed"], Cache | None]:
        """Returns the update and this layer's cache with the new keys and values (or None)."""
        cfg = self.config

        def heads(name: str, count: int) -> Array:
            width, bias = count * cfg.head_width, cfg.attention_bias
            y = cfg.dense(name, width, ("embed", "heads"), bias)(x)
            y = y.reshape(*y.shape[:-1], count, cfg.head_width)
            if cfg.qk_norm and name != "value":
                y = RMSNorm(cfg.norm_eps, ("kv",), name=f"{name}_norm", **cfg.types)(y)
            return constrain(y, "batch", "length", "heads", "kv")

        query = rotary(heads("query", cfg.num_heads), positions, cfg.rope_theta)
        key = rotary(heads("key", cfg.kv_heads), positions, cfg.rope_theta)
        value = heads("value", cfg.kv_heads)
        if cache is not None:
            new = {"key": key, "value": value}
            cache = {name: write_cache(cache[name], new[name], entries, valid) for name in new}
            key, value = cache["key"].astype(key.dtype), cache["value"].astype(value.dtype)
        out = dot_product_attention(query, key, value, mask)
        out = out.reshape(*x.shape[:-1], cfg.num_heads * cfg.head_width)
        return cfg.dense("out", cfg.embed_dim, ("heads", "embed"))(out), cache


class GatedMLP(nn.Module):
    """down(activation(gate(x)) * up(x)) (Shazeer 2020, arXiv 2002.05202)."""

    config: DecoderConfig

    @nn.compact
    def __call__(self, x: Float[Array, "batch length embed"]) -> Float[Array, "batch length embed"]:
        """Applies the feed-forward block, without residual and norm."""
        cfg = self.config
        gate = cfg.dense("gate", cfg.mlp_dim, ("embed", "mlp"))(x)
        up = cfg.dense("up", cfg.mlp_dim, ("embed", "mlp"))(x)
        hidden = constrain(ACTIVATIONS[cfg.activation](gate) * up, "batch", "length", "mlp")
        return cfg.dense("down", cfg.embed_dim, ("mlp", "embed"))(hidden)


class DecoderLayer(nn.Module):
    """Attention and feed-forward, each normed before and added."""

    config: DecoderConfig

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch length embed"],
        cache: Cache | None,
        positions: Int[Array, "batch length"],
        mask: Bool[Array, "batch length keys"],
        valid: Bool[Array, "batch length"],
        entries: Int[Array, "batch length"],
    ) -> tuple[Float[Array, "batch length embed"], Cache | None]:
        """Returns the new hidden states and this layer's cache."""
        cfg = self.config
        normed = RMSNorm(cfg.norm_eps, name="attention_norm", **cfg.types)(x)
        attention = DecoderAttention(cfg, name="attention")
        update, cache = attention(normed, positions, mask, valid, entries, cache)
        x = constrain(x + update, "batch", "length", "embed")
        normed = RMSNorm(cfg.norm_eps, name="mlp_norm", **cfg.types)(x)
        x = x + GatedMLP(cfg, name="mlp")(normed)
        return constrain(x, "batch", "length", "embed"), cache


class DecoderPeriod(nn.Module):
    """The body of the scan: one layer, `sub_0`, since all layers are of one kind."""

    config: DecoderConfig

    @nn.compact
    def __call__(self, x: Array, cache: Cache | None, *args: Any) -> tuple[Array, Cache | None]:
        """Applies the layer to a slice of the cache."""
        return DecoderLayer(self.config, name="sub_0")(x, cache, *args)
