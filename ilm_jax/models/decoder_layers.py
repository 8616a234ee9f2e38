"""Sizes and layers of the decoder (see decoder.py for the model and its sources)."""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING

import flax.linen as nn
import jax
from jaxtyping import Array, Bool, Float, Int, PyTree

from ilm_jax.checks import Count, DTypeName, Number, Positive, Remat, Weight, check
from ilm_jax.errors import UserError
from ilm_jax.models.attention import (
    BACKENDS,
    causal_attention,
    check_heads,
    dot_product_attention,
    write_cache,
)
from ilm_jax.models.layers import Dense, RMSNorm, Types, check_lora_targets, constrain, lora_rank_of
from ilm_jax.models.rope import RopeScaling, rotary

if TYPE_CHECKING:
    from ilm_jax.models.decoder import Decoder

ACTIVATIONS = {"silu": jax.nn.silu, "gelu": jax.nn.gelu}
# Kinds of layers: what their attention sees of the row.
KINDS = ("global", "local")

# Arrays by name; the decoder's mirror its parameters (see `Decoder.init_cache`).
Cache = dict[str, PyTree[Array]]
# What all layers take beside those: positions, segments, entries and masks of the cache.
Row = tuple[Array, Array, Array | None, dict[str, Array] | None]


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
    """Sizes and kind of a decoder.

    Attributes:
      vocab_size, num_layers, embed_dim, mlp_dim: sizes.
      num_heads: query heads. num_kv_heads: key heads, dividing them; as many if None.
      head_dim: width of a head; embed_dim / num_heads if None.
      rope_theta: longest wavelength of the rotary positions, over 2 pi.
      rope_scaling: lower rotary frequencies for longer texts; none if None.
      rope_local_theta: `rope_theta` of local layers, which are then not scaled (Gemma 3); local
        layers are as global ones if None.
      layer_pattern: kinds of the layers, repeated to the end: ("local", "global") alternates
        (Gemma 2).
      sliding_window: how many tokens local layers see, the own one included.
      norm_eps: of the RMS norms.
      norm_offset: their stored scales are 1 less than the factor (Gemma).
      post_norms: attention and feed-forward are normed behind too, before they are added (Gemma 2).
      activation: of the gate, "silu" or "gelu" (its tanh form).
      tie_embeddings: the output layer is the token table.
      scale_embeddings: token vectors are multiplied by sqrt(embed_dim) (Gemma).
      attention_bias: biases on query, key and value (Qwen 2). out_bias: and on attention's output.
      qk_norm: RMS norm over every query and key head (Qwen 3, Gemma 3).
      query_pre_attn_scalar: attention's scores are divided by its root; head_dim if None.
      attention_softcap, logits_softcap: bounds of attention's scores and of the logits, by tanh
        (Gemma 2); none if None.
      attention_backend: "auto", "xla", "blocked" or "splash", see `attention.causal_attention`.
      lora_rank, lora_alpha: low-rank updates (0: none) of the projections in lora_targets.
      lora_targets: patterns of whole names: "query", "key", "value", "out", "gate", "up", "down".
      quantized: int8 weights in the layers' projections.
      dtype, param_dtype: of the computation and of the weights.
      remat: "none", "full" or "minimal" (products with weights are kept).
      scan_layers: one compiled body for all repetitions of the pattern, weights stacked; layers
        left over at the end, and all layers if False, are `layer_00`, `layer_01`...

    Raises:
      UserError: for head counts that do not divide, or an unknown name.
    """

    vocab_size: Number
    num_layers: Count
    embed_dim: Count
    num_heads: Count
    mlp_dim: Count
    num_kv_heads: Count | None = None
    head_dim: Count | None = None
    rope_theta: Positive = 10_000.0
    rope_scaling: RopeScaling | None = None
    rope_local_theta: Positive | None = None
    layer_pattern: tuple[str, ...] = ("global",)
    sliding_window: Count | None = None
    norm_eps: Weight = 1e-6
    norm_offset: bool = False
    post_norms: bool = False
    activation: str = "silu"
    tie_embeddings: bool = True
    scale_embeddings: bool = False
    attention_bias: bool = False
    out_bias: bool = False
    qk_norm: bool = False
    query_pre_attn_scalar: Positive | None = None
    attention_softcap: Positive | None = None
    logits_softcap: Positive | None = None
    attention_backend: str = "auto"
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
        if isinstance(self.rope_scaling, Mapping):  # JSON's, and a config is hashed
            object.__setattr__(self, "rope_scaling", RopeScaling(**self.rope_scaling))
        check(self)
        check_lora_targets(self.lora_targets)
        check_heads(self)
        if self.num_heads % self.kv_heads:
            raise UserError(
                f"DecoderConfig.num_heads={self.num_heads} is not a multiple of "
                f"num_kv_heads={self.kv_heads}"
            )
        if self.head_width % 2:
            raise UserError(f"DecoderConfig.head_dim={self.head_width} is odd: rotary needs pairs")
        for field, values, known in (
            ("activation", [self.activation], tuple(ACTIVATIONS)),
            ("attention_backend", [self.attention_backend], BACKENDS),
            ("layer_pattern", self.layer_pattern, KINDS),
        ):
            for value in values:
                if value not in known:
                    wrong = f'DecoderConfig.{field}="{value}"'
                    raise UserError(f"{wrong} is not one of {', '.join(known)}")
        if not self.layer_pattern:
            raise UserError('DecoderConfig.layer_pattern is empty: use ("global",)')
        if "local" in self.layer_pattern and not self.sliding_window:
            raise UserError("DecoderConfig.layer_pattern has local layers: set sliding_window")

    @property
    def kv_heads(self) -> int:
        """num_kv_heads, or its default."""
        return self.num_kv_heads or self.num_heads

    @property
    def head_width(self) -> int:
        """head_dim, or its default."""
        return self.head_dim or self.embed_dim // self.num_heads

    @property
    def period(self) -> int:
        """Layers of one repetition of the scan."""
        return len(self.layer_pattern)

    @property
    def repetitions(self) -> int:
        """Steps of the scan."""
        return self.num_layers // self.period if self.scan_layers else 0

    @property
    def single_layers(self) -> range:
        """Indices of the layers that stand alone, as `layer_XX`, behind those of the scan."""
        return range(self.repetitions * self.period, self.num_layers)

    def kind(self, layer: int) -> str:
        """Whether a layer is "global" or "local"."""
        return self.layer_pattern[layer % self.period]

    @property
    def encodes(self) -> bool:
        """Whether an encoder reads the prompt."""
        return False

    @property
    def word_rows(self) -> int:
        """Rows of whole-word embeddings: none, which are an encoder's."""
        return 0

    def build(self) -> "Decoder":
        """The language model."""
        from ilm_jax.models.decoder import Decoder  # which is made of what is defined here

        return Decoder(self)

    @property
    def types(self) -> Types:
        """Keyword arguments that every layer takes."""
        return Types(dtype=self.dtype, param_dtype=self.param_dtype)

    def dense(self, name: str, features: int, axes: tuple[str, str], bias: bool = False) -> Dense:
        """A projection of a layer, with the low-rank update that the config asks for."""
        return Dense(
            features,
            axes,
            bias,
            lora_rank=lora_rank_of(name, self.lora_targets, self.lora_rank),
            lora_alpha=self.lora_alpha,
            quantized=self.quantized,
            name=name,
            **self.types,
        )

    def norm(self, name: str, axis: str = "embed") -> RMSNorm:
        """A norm over the last dimension."""
        return RMSNorm(
            self.norm_eps, (axis,), offset=float(self.norm_offset), name=name, **self.types
        )


class DecoderAttention(nn.Module):
    """Grouped-query attention with rotary positions, over the row itself or over a cache."""

    config: DecoderConfig
    kind: str

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch length embed"],
        cache: Cache | None,
        positions: Int[Array, "batch length"],
        segment_ids: Int[Array, "batch length"],
        entries: Int[Array, "batch length"] | None,
        masks: dict[str, Bool[Array, "batch length keys"]] | None,
    ) -> tuple[Float[Array, "batch length embed"], Cache | None]:
        """Returns the update and this layer's cache with the new keys and values (or None)."""
        cfg = self.config
        local = self.kind == "local"

        def heads(name: str, count: int) -> Array:
            """Projection [batch, length, count, head_width], heads normalised if `qk_norm`."""
            width, bias = count * cfg.head_width, cfg.attention_bias
            y = cfg.dense(name, width, ("embed", "heads"), bias)(x)
            y = y.reshape(*y.shape[:-1], count, cfg.head_width)
            if cfg.qk_norm and name != "value":
                y = cfg.norm(f"{name}_norm", "kv")(y)
            return constrain(y, "batch", "length", "heads", "kv")

        def turned(y: Array) -> Array:
            """Rotary positions, with the local layers' own base where there is one."""
            if local and cfg.rope_local_theta is not None:
                return rotary(y, positions, cfg.rope_local_theta)
            return rotary(y, positions, cfg.rope_theta, cfg.rope_scaling)

        query = turned(heads("query", cfg.num_heads))
        key = turned(heads("key", cfg.kv_heads))
        value = heads("value", cfg.kv_heads)
        how = {
            "scale": (cfg.query_pre_attn_scalar or cfg.head_width) ** -0.5,
            "softcap": cfg.attention_softcap,
        }
        if cache is None:
            window = cfg.sliding_window if local else None
            backend = cfg.attention_backend
            out = causal_attention(
                query, key, value, segment_ids, window=window, backend=backend, **how
            )
        else:
            assert masks is not None and entries is not None
            valid = segment_ids > 0
            new = {"key": key, "value": value}
            cache = {name: write_cache(cache[name], new[name], entries, valid) for name in new}
            key, value = cache["key"].astype(key.dtype), cache["value"].astype(value.dtype)
            out = dot_product_attention(query, key, value, masks[self.kind], **how)
        out = out.reshape(*x.shape[:-1], cfg.num_heads * cfg.head_width)
        return cfg.dense("out", cfg.embed_dim, ("heads", "embed"), cfg.out_bias)(out), cache


class GatedMLP(nn.Module):
    """down(activation(gate(x)) * up(x)) (Shazeer 2020, arXiv 2002.05202)."""

    config: DecoderConfig

    @nn.compact
    def __call__(self, x: Float[Array, "batch length embed"]) -> Float[Array, "batch length embed"]:
        """Applies the feed-forward block, without residual and norm."""
        cfg = self.config
        gate = cfg.dense("gate", cfg.mlp_dim, ("embed", "mlp"))(x)
        up = cfg.dense("up", cfg.mlp_dim, ("embed", "mlp"))(x)
        # Of all that this keeps for its gradient the two factors are the least.
        gated = jax.checkpoint(lambda x, y: ACTIVATIONS[cfg.activation](x) * y, prevent_cse=False)
        hidden = constrain(gated(gate, up), "batch", "length", "mlp")
        return cfg.dense("down", cfg.embed_dim, ("mlp", "embed"))(hidden)


class DecoderLayer(nn.Module):
    """Attention and feed-forward, each normed before (and behind, if asked for) and added.

    Attributes:
      config: sizes.
      kind: "global" or "local".
    """

    config: DecoderConfig
    kind: str

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch length embed"],
        cache: Cache | None,
        positions: Int[Array, "batch length"],
        segment_ids: Int[Array, "batch length"],
        entries: Int[Array, "batch length"] | None,
        masks: dict[str, Bool[Array, "batch length keys"]] | None,
    ) -> tuple[Float[Array, "batch length embed"], Cache | None]:
        """Returns the new hidden states and this layer's cache.

        Args:
          x: hidden states.
          cache: {"key", "value"}: [batch, keys, kv_heads, head_dim] of this layer, or None.
          positions, segment_ids: as in the decoder.
          entries: where new keys are written in the cache.
          masks: what layers of each kind see of the cache.
        """
        cfg = self.config

        def behind(name: str, update: Array) -> Array:
            """The update, normalised once more where the family has norms behind its blocks."""
            return cfg.norm(name)(update) if cfg.post_norms else update

        attention = DecoderAttention(cfg, self.kind, name="attention")
        normed = cfg.norm("attention_norm")(x)
        update, cache = attention(normed, cache, positions, segment_ids, entries, masks)
        x = constrain(x + behind("attention_post_norm", update), "batch", "length", "embed")
        update = GatedMLP(cfg, name="mlp")(cfg.norm("mlp_norm")(x))
        x = x + behind("mlp_post_norm", update)
        return constrain(x, "batch", "length", "embed"), cache


class DecoderPeriod(nn.Module):
    """The body of the scan: one layer for each kind in the pattern, `sub_0`, `sub_1`..."""

    config: DecoderConfig

    @nn.compact
    def __call__(self, x: Array, cache: Cache | None, *args: *Row) -> tuple[Array, Cache | None]:
        """Applies the layers to their slices of the cache, {"sub_0": ...}."""
        caches = {}
        for i, kind in enumerate(self.config.layer_pattern):
            name = f"sub_{i}"
            one = None if cache is None else cache[name]
            x, caches[name] = DecoderLayer(self.config, kind, name=name)(x, one, *args)
        return x, None if cache is None else caches
