"""The parts of a BERT-shaped encoder (Devlin et al. 2019, arXiv 1810.04805): post-norm, GELU."""

import functools

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ilm_jax.models.activations import gelu
from ilm_jax.models.attention import dot_product_attention
from ilm_jax.models.dropout import Dropout
from ilm_jax.models.layers import (
    Dense,
    DType,
    Embed,
    LayerNorm,
    Types,
    constrain,
    constrain_logits,
    make_param,
    normal_002,
)
from ilm_jax.models.output_layer import OutputLayer


class BertAttention(nn.Module):
    """Multi-head attention with biases; self-attention, or cross-attention to other vectors.

    Attributes:
      embed_dim: width of input and output. num_heads: heads, dividing it.
      dropout: rate on the attention weights.
    """

    embed_dim: int
    num_heads: int
    dropout: float
    dtype: DType
    param_dtype: DType

    def setup(self) -> None:
        """Creates the four projections."""

        def dense(axes: tuple[str, str]) -> Dense:
            """A projection, initialised as BERT's (normal, 0.02)."""
            types = Types(dtype=self.dtype, param_dtype=self.param_dtype)
            return Dense(self.embed_dim, axes, True, kernel_init=normal_002, **types)

        self.query = dense(("embed", "heads"))
        self.key = dense(("embed", "heads"))
        self.value = dense(("embed", "heads"))
        self.out = dense(("heads", "embed"))
        self.drop = Dropout(self.dropout)

    def __call__(
        self,
        x: Float[Array, "batch length embed"],
        keys: Float[Array, "batch keys key_dim"],
        mask: Bool[Array, "#batch #length keys"] | None,
        deterministic: bool,
    ) -> Float[Array, "batch length embed"]:
        """Attends from `x` to `keys` where the mask is True (everywhere if None)."""

        def heads(y: Array) -> Array:
            """[..., embed] to [..., heads, kv]."""
            y = y.reshape(*y.shape[:-1], self.num_heads, self.embed_dim // self.num_heads)
            return constrain(y, "batch", "length", "heads", "kv")

        q, k, v = heads(self.query(x)), heads(self.key(keys)), heads(self.value(keys))
        out = dot_product_attention(q, k, v, mask, lambda w: self.drop(w, deterministic))
        return self.out(out.reshape(x.shape))


class BertMLP(nn.Module):
    """Dense - GELU (exact) - Dense, with biases."""

    embed_dim: int
    mlp_dim: int
    dtype: DType
    param_dtype: DType

    @nn.compact
    def __call__(self, x: Float[Array, "batch length embed"]) -> Float[Array, "batch length embed"]:
        """Applies the feed-forward block, without residual and norm."""
        types = Types(dtype=self.dtype, param_dtype=self.param_dtype)
        dense = functools.partial(Dense, use_bias=True, kernel_init=normal_002, **types)
        x = dense(self.mlp_dim, ("embed", "mlp"), name="up")(x)
        x = constrain(gelu(x), "batch", "length", "mlp")
        return dense(self.embed_dim, ("mlp", "embed"), name="down")(x)


class TextEmbedding(nn.Module):
    """Token plus learned position vectors, before BERT's embedding norm.

    A checkpoint's token-type vector 0 belongs into the position table, where it is a constant.
    """

    vocab_size: int
    max_length: int
    embed_dim: int
    dtype: DType
    param_dtype: DType

    def setup(self) -> None:
        """Creates the two tables."""
        types = Types(dtype=self.dtype, param_dtype=self.param_dtype)
        self.token = Embed(self.vocab_size, self.embed_dim, **types)
        self.position = Embed(self.max_length, self.embed_dim, ("length", "embed"), **types)

    def __call__(self, text: Int[Array, "batch length"]) -> Float[Array, "batch length embed"]:
        """Vectors of ids, positions from 0.

        Raises:
          ValueError: if the text is longer than the position table.
        """
        if text.shape[1] > self.max_length:
            raise ValueError(
                f"text of length {text.shape[1]} exceeds max_text_length={self.max_length}"
            )
        return self.token(text) + self.position(jnp.arange(text.shape[1]))[None]


class TextHead(nn.Module):
    """BERT's language-model head: Dense - GELU - LayerNorm, logits tied to the tokens, a bias."""

    vocab_size: int
    embed_dim: int
    norm_eps: float
    dtype: DType
    param_dtype: DType

    def setup(self) -> None:
        """Creates the parts."""
        types = Types(dtype=self.dtype, param_dtype=self.param_dtype)
        # Both sides are `embed`, which one array may name once.
        self.dense = Dense(self.embed_dim, ("embed", None), True, kernel_init=normal_002, **types)
        self.norm = LayerNorm(self.norm_eps, **types)
        zeros = nn.initializers.zeros
        shape = (self.vocab_size,)
        self.bias = make_param(self, "bias", zeros, shape, ("vocab",), self.param_dtype)

    def __call__(
        self, x: Float[Array, "batch length embed"], token: Embed
    ) -> Float[Array, "batch length vocab"]:
        """Float32 logits over the vocabulary.

        Args:
          x: hidden states of the text.
          token: the table whose rows are the output layer.
        """
        return constrain_logits(token.attend(self.states(x)) + self.bias.astype(jnp.float32))

    def states(self, x: Float[Array, "batch length embed"]) -> Float[Array, "batch length embed"]:
        """The states that the table is multiplied with."""
        return self.norm(gelu(self.dense(x)))

    def output_layer(self, token: Embed) -> OutputLayer:
        """The output layer on `states`, as arrays."""
        return OutputLayer(token.whole(), self.bias, dtype=jnp.dtype(self.dtype).name)
