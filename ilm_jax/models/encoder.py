"""A BERT encoder (Devlin et al. 2019, arXiv 1810.04805), also MiniLM's shape (arXiv 2002.10957).

Word, position and token-type vectors, then post-norm layers; no pooler. The token type is always
0, so that its vector is a constant part of the positions.
"""

import dataclasses

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ilm_jax.checks import BelowOne, Count, DTypeName, Remat, Weight, check
from ilm_jax.models.attention import check_heads
from ilm_jax.models.bert import BertAttention, BertMLP, TextEmbedding
from ilm_jax.models.dropout import Dropout
from ilm_jax.models.layers import LayerNorm, Types, constrain
from ilm_jax.models.remat import remat
from ilm_jax.models.unrolling import unroll


@dataclasses.dataclass(frozen=True)
class BertConfig:
    """Sizes of an encoder; the defaults are BERT-base's.

    Attributes:
      vocab_size: of its tokenizer.
      num_layers, embed_dim, num_heads, mlp_dim: BERT's sizes.
      max_text_length: positions.
      dropout: rate, also on attention weights.
      norm_eps: of the norms.
      dtype, param_dtype: of the computation and of the weights.
      remat: "none", "full" or "minimal" (products with weights are kept).
      scan_layers: one compiled body for all layers, weights stacked; else `layer_00`, `layer_01`...

    Raises:
      UserError: if heads do not divide the width.
    """

    vocab_size: Count = 30522
    num_layers: Count = 12
    embed_dim: Count = 768
    num_heads: Count = 12
    mlp_dim: Count = 3072
    max_text_length: Count = 512
    dropout: BelowOne = 0.1
    norm_eps: Weight = 1e-12
    dtype: DTypeName = "float32"
    param_dtype: DTypeName = "float32"
    remat: Remat = "none"
    scan_layers: bool = True

    def __post_init__(self) -> None:
        """Checks what would otherwise fail deep inside a trace."""
        check(self)
        check_heads(self)

    @property
    def types(self) -> Types:
        """Keyword arguments that every layer takes."""
        return Types(dtype=self.dtype, param_dtype=self.param_dtype)


class BertLayer(nn.Module):
    """Attention and feed-forward, each added and normed."""

    config: BertConfig

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch length embed"],
        mask: Bool[Array, "batch 1 length"],
        deterministic: bool,
    ) -> Float[Array, "batch length embed"]:
        """Applies the layer; every position sees those where the mask is True."""
        cfg = self.config
        drop = Dropout(cfg.dropout)

        def add(x: Array, update: Array, name: str) -> Array:
            """Residual, then LayerNorm: BERT normalises behind each block."""
            x = LayerNorm(cfg.norm_eps, name=name, **cfg.types)(x + drop(update, deterministic))
            return constrain(x, "batch", "length", "embed")

        sizes = (cfg.embed_dim, cfg.num_heads, cfg.dropout)
        attention = BertAttention(*sizes, name="attention", **cfg.types)
        x = add(x, attention(x, x, mask, deterministic), "attention_norm")
        mlp = BertMLP(cfg.embed_dim, cfg.mlp_dim, name="mlp", **cfg.types)
        return add(x, mlp(x), "mlp_norm")


class BertPeriod(nn.Module):
    """One layer: the body of the scan."""

    config: BertConfig

    @nn.compact
    def __call__(self, x: Array, mask: Array, deterministic: bool) -> tuple[Array, None]:
        """Applies `sub_0`."""
        return BertLayer(self.config, name="sub_0")(x, mask, deterministic), None


class Bert(nn.Module):
    """The encoder.

    Attributes:
      config: sizes.
    """

    config: BertConfig

    def setup(self) -> None:
        """Names the parts."""
        cfg = self.config
        sizes = (cfg.vocab_size, cfg.max_text_length, cfg.embed_dim)
        self.embedding = TextEmbedding(*sizes, **cfg.types)
        self.embedding_norm = LayerNorm(cfg.norm_eps, **cfg.types)
        self.embedding_dropout = Dropout(cfg.dropout)
        if cfg.scan_layers:
            self.layers = nn.scan(
                remat(BertPeriod, cfg.remat, scanned=True, static=(3,)),
                variable_axes={"params": 0},
                split_rngs={"params": True, "dropout": True},
                in_axes=nn.broadcast,
                length=cfg.num_layers,
                unroll=unroll(self, cfg.num_layers, cfg.remat),
                metadata_params={nn.PARTITION_NAME: "layers"},
            )(cfg)
        else:
            layer = remat(BertLayer, cfg.remat, scanned=False, static=(3,))
            self.layer = [layer(cfg, name=f"layer_{i:02d}") for i in range(cfg.num_layers)]

    def __call__(
        self,
        tokens: Int[Array, "batch length"],
        visible: Bool[Array, "batch length"],
        deterministic: bool = True,
    ) -> Float[Array, "batch length embed"]:
        """Final hidden states; what stands where `visible` is False is seen by nobody."""
        return self.encode(self.embedding(tokens), visible, deterministic)

    def encode(
        self,
        words: Float[Array, "batch length embed"],
        visible: Bool[Array, "batch length"],
        deterministic: bool = True,
    ) -> Float[Array, "batch length embed"]:
        """As `__call__`, from vectors with their positions added, before the first norm."""
        x = self.embedding_dropout(self.embedding_norm(words), deterministic)
        x = constrain(x, "batch", "length", "embed")
        mask = visible.astype(jnp.bool_)[:, None, :]
        if self.config.scan_layers:
            return self.layers(x, mask, deterministic)[0]
        for layer in self.layer:
            x = layer(x, mask, deterministic)
        return x
