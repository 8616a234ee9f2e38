"""The Q-Former: learned queries read collaborative-filtering vectors, and share BERT with text.

The shape is BLIP-2's (Li et al. 2023, arXiv 2301.12597, section 3.1) with vectors of items and
users in the place of image features, as in ILM (Yang et al. 2024, arXiv 2406.02844). Queries and
text share self-attention; each has its feed-forward block; at every `cross_attention_period`-th
layer the queries also attend to the vector's tokens. ILM's paper states 8 layers; the number of
queries, width, heads and period are defaults of ours, after BLIP-2.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ilm_jax.models.bert import TextEmbedding, TextHead
from ilm_jax.models.dropout import Dropout
from ilm_jax.models.layers import Dense, LayerNorm, constrain, unit
from ilm_jax.models.output_layer import OutputLayer
from ilm_jax.models.qformer_layers import (
    QFormerConfig,
    QFormerLayer,
    QFormerPeriod,
    Queries,
    Streams,
)
from ilm_jax.models.remat import remat
from ilm_jax.models.unrolling import unroll

__all__ = ["TEXT_ONLY_OPTIONS", "TEXT_ONLY_PATTERNS", "QFormer", "QFormerConfig"]

# Leaves that only stage 1 reads: text, and the heads of its losses. Stage 2 has none of them.
TEXT_ONLY_PATTERNS = (
    r"(^|/)text_(embedding|mlp|mlp_norm|head|projection)/",
    r"(^|/)(query_projection|match_head)/",
    r"(^|/)log_temperature/",
)
# Options that only these leaves know of.
TEXT_ONLY_OPTIONS = ("vocab_size", "max_text_length", "projection_dim", "pad_id", "dec_id")


class QFormer(nn.Module):
    """The Q-Former and the heads of its stage-1 losses.

    `__call__` is what stage 2 uses, and initialising with it creates only its own leaves;
    `init_all` creates those of stage 1 too. Vectors of absent entities are zeros: their outputs
    are finite and mean nothing, and whoever reads them masks them.

    Attributes:
      config: sizes.
    """

    config: QFormerConfig

    def setup(self) -> None:
        """Names the parts; their leaves appear when they are first used."""
        cfg = self.config
        width, types = cfg.embed_dim, cfg.types
        self.queries = Queries(cfg.num_queries, width, cfg.param_dtype)
        tokens = cfg.num_item_tokens * cfg.token_width
        self.vector_projection = Dense(tokens, ("cf", "embed"), True, **types)
        self.vector_norm = LayerNorm(**types)
        self.embedding_norm = LayerNorm(cfg.norm_eps, **types)
        self.embedding_dropout = Dropout(cfg.dropout)
        if cfg.scan_layers:
            self.layers = nn.scan(
                remat(QFormerPeriod, cfg.remat, scanned=True, static=(4,)),
                variable_axes={"params": 0},
                split_rngs={"params": True, "dropout": True},
                in_axes=nn.broadcast,
                length=cfg.num_layers // cfg.cross_attention_period,
                unroll=unroll(self, cfg.num_layers // cfg.cross_attention_period, cfg.remat),
                metadata_params={nn.PARTITION_NAME: "layers"},
            )(cfg)
        else:
            layer = remat(QFormerLayer, cfg.remat, scanned=False, static=(4,))
            self.layer = [
                layer(cfg, i % cfg.cross_attention_period == 0, name=f"layer_{i:02d}")
                for i in range(cfg.num_layers)
            ]
        self.text_embedding = TextEmbedding(cfg.vocab_size, cfg.max_text_length, width, **types)
        self.text_head = TextHead(cfg.vocab_size, width, cfg.norm_eps, **types)
        self.text_projection = Dense(cfg.projection_dim, ("embed", None), True, **types)
        self.query_projection = Dense(cfg.projection_dim, ("embed", None), True, **types)
        self.match_head = Dense(2, ("embed", None), True, **types)

    def __call__(
        self, vectors: Float[Array, "*batch cf"], deterministic: bool = True
    ) -> Float[Array, "*batch queries embed"]:
        """What the queries read from each vector, in the computation's dtype."""
        flat = vectors.reshape(-1, vectors.shape[-1])
        queries, _ = self._encode(self._project(flat), None, None, deterministic)
        assert queries is not None
        return queries.reshape(*vectors.shape[:-1], *queries.shape[1:])

    def read_tokens(
        self,
        tokens: Float[Array, "batch item_tokens token"],
        text: Int[Array, "batch length"] | None = None,
        deterministic: bool = True,
    ) -> Streams:
        """Hidden states of queries that read these tokens, and of the text beside them.

        For tokens that do not come from a vector, such as image features. Queries and text see
        each other; padding is not seen.

        Args:
          tokens: any number, of width `config.token_width`.
          text: ids, if any.
          deterministic: no dropout.

        Returns:
          (queries [batch, queries, embed], text [batch, length, embed] or None).
        """
        mask = None if text is None else self._seen_by_all(text)
        return self._encode(tokens, text, mask, deterministic)

    def entity_features(
        self, vectors: Float[Array, "*batch cf"], deterministic: bool = True
    ) -> Float[Array, "*batch queries projection"]:
        """Unit vectors (float32), one per query, for the contrastive losses."""
        return unit(self.query_projection(self(vectors, deterministic)))

    def text_features(
        self, text: Int[Array, "batch length"], deterministic: bool = True
    ) -> Float[Array, "batch projection"]:
        """Unit vectors (float32) of texts, from their first token; padding is not seen."""
        _, hidden = self._encode(None, text, self._visible(text), deterministic)
        assert hidden is not None
        return unit(self.text_projection(hidden[:, 0]))

    def features(
        self,
        vectors: Float[Array, "batch cf"],
        text: Int[Array, "batch length"],
        deterministic: bool = True,
    ) -> tuple[Float[Array, "batch queries projection"], Float[Array, "batch projection"]]:
        """`entity_features` and `text_features` of the rows, in one pass: neither sees the other.

        One scan to compile instead of two, for attention scores that are masked (0.4 % more
        FLOPs at BERT's width).
        """
        count = self.config.num_queries
        is_query = jnp.arange(count + text.shape[1]) < count
        seen = self._seen_by_all(text) & (is_query[:, None] == is_query)
        queries, words = self._encode(self._project(vectors), text, seen, deterministic)
        assert queries is not None and words is not None
        return unit(self.query_projection(queries)), unit(self.text_projection(words[:, 0]))

    def match_logits(
        self,
        vectors: Float[Array, "batch cf"],
        text: Int[Array, "batch length"],
        deterministic: bool = True,
    ) -> Float[Array, "batch 2"]:
        """Logits of (no match, match), the mean over queries that see the whole text (ITM)."""
        queries, _ = self.read_tokens(self._project(vectors), text, deterministic)
        assert queries is not None
        return self._matches(queries)

    def caption_logits(
        self,
        vectors: Float[Array, "batch cf"],
        text: Int[Array, "batch length"],
        deterministic: bool = True,
    ) -> Float[Array, "batch length vocab"]:
        """Next-token logits (float32) of the text given the queries (ITG).

        Position 0 is read as `dec_id`, whatever stands there; logits at t predict text[t + 1].
        Queries see queries; text sees queries and the text up to itself (the mask of UniLM, Dong
        et al. 2019, arXiv 1905.03197).
        """
        seen = self._seen_by_all(text) & self._causal(text.shape[1])
        tokens, text = self._project(vectors), text.at[:, 0].set(self.config.dec_id)
        _, hidden = self._encode(tokens, text, seen, deterministic)
        assert hidden is not None
        return self.text_head(hidden, self.text_embedding.token)

    def match_and_caption(
        self,
        vectors: Float[Array, "batch pairs cf"],
        text: Int[Array, "batch pairs length"],
        deterministic: bool = True,
    ) -> tuple[Float[Array, "batch pairs 2"], Float[Array, "batch length embed"], OutputLayer]:
        """`match_logits` of all pairs, and captions of the first of each row, in one pass.

        The captions are a further row with a mask of its own: one scan to compile, not two.

        Returns:
          (match logits, states whose logits `caption_logits` gives, the layer that gives them).
        """
        batch, pairs, length = text.shape
        positions = self.config.num_queries + length

        def with_first(x: Array) -> Array:
            """[batch, pairs, ...] to [batch * (pairs + 1), ...]: the first once more behind."""
            return jnp.concatenate([x, x[:, :1]], axis=1).reshape(-1, *x.shape[2:])

        read = with_first(text)
        seen = self._seen_by_all(read).reshape(batch, pairs + 1, 1, positions)
        captions = jnp.arange(pairs + 1) == pairs
        seen = seen & (self._causal(length) | ~captions[:, None, None])
        read = jnp.where(
            captions[:, None] & (jnp.arange(length) == 0),
            self.config.dec_id,
            read.reshape(batch, pairs + 1, length),
        )
        queries, words = self._encode(
            self._project(with_first(vectors)),
            read.reshape(-1, length),
            seen.reshape(-1, positions, positions),
            deterministic,
        )
        assert queries is not None and words is not None
        queries, words = (x.reshape(batch, pairs + 1, *x.shape[1:]) for x in (queries, words))
        states = self.text_head.states(words[:, -1])
        output = self.text_head.output_layer(self.text_embedding.token)
        return self._matches(queries[:, :-1]), states, output

    def init_all(self, vectors: Float[Array, "batch cf"], text: Int[Array, "batch length"]) -> None:
        """Touches every part, for initialisation before stage 1."""
        self.match_logits(vectors, text)
        self.caption_logits(vectors, text)
        self.entity_features(vectors)
        self.text_features(text)

    def _matches(self, queries: Float[Array, "*batch queries embed"]) -> Float[Array, "*batch 2"]:
        return jnp.mean(self.match_head(queries).astype(jnp.float32), axis=-2)

    def _causal(self, length: int) -> Bool[Array, "positions positions"]:
        """Queries see queries; a text sees the queries and itself up to each token."""
        count = self.config.num_queries
        row = jnp.arange(count + length)[:, None]
        column = jnp.arange(count + length)[None, :]
        return (column < count) | (column <= row)

    def _visible(self, text: Int[Array, "batch length"]) -> Bool[Array, "batch 1 length"]:
        """True at the tokens of a text that are not padding; its first token always counts."""
        return (text != self.config.pad_id).at[:, 0].set(True)[:, None, :]

    def _seen_by_all(self, text: Int[Array, "batch length"]) -> Bool[Array, "batch 1 positions"]:
        """True at the queries and at the text's tokens that are not padding."""
        count = self.config.num_queries
        return jnp.pad(self._visible(text), ((0, 0), (0, 0), (count, 0)), constant_values=True)

    def _project(
        self, vectors: Float[Array, "batch cf"]
    ) -> Float[Array, "batch item_tokens token"]:
        """The tokens that queries read of each vector."""
        tokens = self.vector_projection(vectors)
        tokens = tokens.reshape(-1, self.config.num_item_tokens, self.config.token_width)
        return constrain(self.vector_norm(tokens), "batch", "length", "embed")

    def _encode(
        self,
        tokens: Float[Array, "batch item_tokens token"] | None,
        text: Int[Array, "batch length"] | None,
        mask: Bool[Array, "#batch #length length"] | None,
        deterministic: bool,
    ) -> Streams:
        """Runs queries (if there are tokens) and text (if there is any) through all layers."""
        cfg = self.config

        def embedded(x: Array) -> Array:
            """Norm and dropout of BERT's embedding layer."""
            x = self.embedding_dropout(self.embedding_norm(x), deterministic)
            return constrain(x, "batch", "length", "embed")

        queries = words = None
        if tokens is not None:
            queries = embedded(jnp.repeat(self.queries()[None], tokens.shape[0], axis=0))
        if text is not None:
            words = embedded(self.text_embedding(text))
        streams = (queries, words)
        if cfg.scan_layers:
            return self.layers(streams, tokens, mask, deterministic)[0]
        for layer in self.layer:
            streams = layer(streams, tokens, mask, deterministic)
        return streams
