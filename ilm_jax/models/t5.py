"""An encoder-decoder language model in the shape of T5, called as the decoder-only one is.

Relative positions, no biases, attention without scaling, RMS norms (Raffel et al. 2020, arXiv
1910.10683; T5 1.1 and FLAN-T5: gated GELU and an untied output layer, Chung et al. 2022, arXiv
2210.11416). The row is the decoder-only model's, inputs and targets, so that one batch trains
both: the encoder reads `inputs [eos]` of it, the decoder is given `[start] targets`. Nothing is
dropped unless the configuration says so: most language models are frozen here.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from ilm_jax.models.attention import cache_mask, causal_segment_mask, write_cache
from ilm_jax.models.decoder import Cache
from ilm_jax.models.dropout import Dropout
from ilm_jax.models.layers import Embed, RMSNorm, constrain, constrain_logits
from ilm_jax.models.output_layer import OutputLayer
from ilm_jax.models.remat import remat
from ilm_jax.models.t5_layers import Positions, T5Config, T5Layer, T5Period
from ilm_jax.models.t5_positions import PositionBias
from ilm_jax.models.unrolling import unroll

__all__ = ["T5", "T5Config"]

# Entries of a cache that all layers share: positions of the decoder's entries (-1: not written),
# and 1 where the memory holds something.
SHARED = ("position", "memory")


class T5(nn.Module):
    """The language model; initialising by `__call__` creates every leaf.

    Attributes:
      config: sizes.
    """

    config: T5Config

    def setup(self) -> None:
        """Names the parts."""
        cfg = self.config
        sizes = (cfg.vocab_size, cfg.embed_dim)
        unit = nn.initializers.normal(1.0)
        self.embedding = Embed(*sizes, embedding_init=unit, **cfg.types)
        if not cfg.tie_embeddings:
            small = nn.initializers.normal(cfg.embed_dim**-0.5)
            self.head = Embed(*sizes, embedding_init=small, **cfg.types)
        if cfg.word_rows:
            sizes, axes = (cfg.word_rows, cfg.embed_dim), ("length", "embed")
            self.word_embedding = Embed(*sizes, axes, embedding_init=unit, **cfg.types)
        self.encoder = T5Stack(cfg, decodes=False)
        self.decoder = T5Stack(cfg, decodes=True)

    def embed(
        self,
        tokens: Int[Array, "batch length"],
        word_ids: Int[Array, "batch length"] | None = None,
    ) -> Float[Array, "batch length embed"]:
        """Vectors of token ids, in the computation's dtype, with those of their words if given."""
        x = constrain(self.embedding(tokens), "batch", "length", "embed")
        return x if word_ids is None else self.with_words(x, word_ids)

    def with_words(
        self, x: Float[Array, "batch length embed"], word_ids: Int[Array, "batch length"]
    ) -> Float[Array, "batch length embed"]:
        """Vectors with those of their words added; -1 adds none, as for what the decoder reads."""
        words = self.word_embedding(jnp.maximum(word_ids, 0))
        x = x + jnp.where((word_ids >= 0)[..., None], words, 0)
        return constrain(x, "batch", "length", "embed")

    def __call__(
        self,
        embeddings: Float[Array, "batch length embed"],
        positions: Int[Array, "batch length"],
        segment_ids: Int[Array, "batch length"],
        cache: Cache | None = None,
        entries: Int[Array, "batch length"] | None = None,
        mask: Bool[Array, "batch length keys"] | None = None,
        predicts: Bool[Array, "batch length"] | None = None,
        window: Int[Array, "batch window"] | None = None,
        source: Int[Array, "batch source"] | None = None,
        deterministic: bool = True,
    ) -> Float[Array, "batch length embed"] | tuple[Float[Array, "batch length embed"], Cache]:
        """The decoder's final hidden states, at the places of the row whose next token they give.

        Args:
          embeddings: from `embed`, with or without other vectors in between.
          positions: of the row; restart with every segment of a packed row.
          segment_ids: segments are read and continued apart; 0 is padding. In a packed row whose
            targets are a single token there is no room for the end of its inputs, and it is left
            out.
          cache: from `init_cache`: the row is a prompt, encoded once, and the hidden state of its
            last place is the decoder's first. From such a call: the row is its next tokens, which
            see the prompt and each other as in the decoder-only model.
          entries, mask: as in the decoder-only model.
          predicts: True where the next token is the decoder's: at the last token of the inputs
            and at all targets but the last, neighbours in each segment. None: at the last token of
            each segment. Not with a cache.
          window: indices of places that hold all of `predicts`, in order and neighbours in each
            segment; the decoder runs on, and is returned for, these alone.
          source: indices of places that hold all that the encoder reads, in order and neighbours
            in each segment; it runs on these alone. Not with a cache.
          deterministic: no dropout.

        Returns:
          hidden states (of no meaning where nothing is predicted), or (hidden states, cache) if a
          cache is given.
        """
        if cache is not None and "memory_key" in cache:
            entries = positions if entries is None else entries
            return self._continue(embeddings, positions, segment_ids > 0, cache, entries, mask)
        same = jnp.pad(segment_ids[:, 1:] == segment_ids[:, :-1], ((0, 0), (1, 0)))
        real = segment_ids > 0
        predicts = real & ~_next(same) if predicts is None else predicts
        told = jnp.pad(predicts[:, :-1], ((0, 0), (1, 0))) & same & real
        inputs = embeddings, segment_ids, real & ~told
        if source is not None:
            x, segments, reads = inputs
            segments, reads = _places(segments, source), _places(reads, source)
            inputs = _places(x, source[..., None]), segments, reads
        memory, read = self._encode(*inputs, deterministic)
        if cache is None:
            starts = (predicts & ~told)[..., None]
            x = jnp.where(starts, self._vector(self.config.start_id), embeddings)
            segments = jnp.where(predicts, segment_ids, 0)
            hidden = self._decode(x, segments, memory, read, window, deterministic)
            if self.is_initializing():
                self.logits(hidden[:1, :1])
            return hidden
        return self._begin(embeddings, positions, real, cache, memory, read)

    def _begin(
        self,
        embeddings: Array,
        positions: Array,
        real: Array,
        cache: Cache,
        memory: Array,
        read: Array,
    ) -> tuple[Array, Cache]:
        """The decoder's first hidden state, at a prompt's last place, and the cache behind it."""
        batch, length, width = embeddings.shape
        last = jnp.argmax(jnp.where(real, jnp.arange(length) + 1, 0), axis=1)[:, None]
        empty = jnp.full((batch, cache["key"].shape[2]), -1, jnp.int32)
        cache = cache | {"memory": (read > 0).astype(jnp.int32), "position": empty}
        at, valid = (_places(a, last) for a in (positions, real))
        x = jnp.broadcast_to(self._vector(self.config.start_id), (batch, 1, width))
        hidden, cache = self._continue(x, at, valid, cache, at, None, memory)
        places = jnp.arange(length)[None, :] == last
        return jnp.where(places[..., None], hidden, 0), cache

    def logits(
        self,
        hidden: Float[Array, "*batch embed"],
        token_subset: Int[Array, " subset"] | None = None,
    ) -> Float[Array, "*batch vocab"]:
        """Next-token logits in float32; only of the ids in `token_subset`, in order, if given."""
        if self.config.tie_embeddings:
            logits = self.embedding.attend(hidden, token_subset) * self.config.embed_dim**-0.5
        else:
            logits = self.head.attend(hidden, token_subset)
        return constrain_logits(logits)

    def output_layer(self) -> OutputLayer:
        """The output layer behind `logits`, as arrays."""
        cfg = self.config
        if cfg.tie_embeddings:
            return OutputLayer(self.embedding.whole(), scale=cfg.embed_dim**-0.5, dtype=cfg.dtype)
        return OutputLayer(self.head.whole(), dtype=cfg.dtype)

    @nn.nowrap
    def init_cache(self, batch: int, length: int) -> Cache:
        """An empty cache for `length` positions of `batch` rows; needs no parameters.

        Positions count from the row's start, as in the decoder-only model, so `length` covers
        the prompt too. The first call adds the prompt's keys and values.
        """
        cfg = self.config
        shape = (cfg.decoder_layers, batch, length, cfg.num_heads, cfg.head_width)
        return {name: jnp.zeros(shape, jnp.dtype(cfg.dtype)) for name in ("key", "value")}

    def _vector(self, token: int) -> Float[Array, "1 1 embed"]:
        return self.embedding(jnp.full((1, 1), token, jnp.int32))

    def _encode(
        self, embeddings: Array, segment_ids: Array, reads: Array, deterministic: bool
    ) -> tuple[Float[Array, "batch source embed"], Int[Array, "batch source"]]:
        """(memory, its segment ids; 0 where nothing is read) of a row and one place more.

        The end token stands behind the last token that is read, where the first target is; it is
        of word 0, if words have vectors.
        """
        read = jnp.pad(jnp.where(reads, segment_ids, 0), ((0, 0), (0, 1)))
        before = jnp.pad(read[:, :-1], ((0, 0), (1, 0)))
        ends = (before > 0) & (read == 0)
        read = jnp.where(ends, before, read)
        x = jnp.pad(embeddings, ((0, 0), (0, 1), (0, 0)))
        end = self._vector(self.config.eos_id)
        if self.config.word_rows:
            end = self.with_words(end, jnp.zeros((1, 1), jnp.int32))
        x = jnp.where(ends[..., None], end, x)
        x = constrain(x, "batch", "length", "embed")
        mask = read[:, :, None] == read[:, None, :]
        places = jnp.arange(x.shape[1])[None]
        return self.encoder(x, None, (places, places), mask, deterministic=deterministic)[0], read

    def _decode(
        self,
        x: Array,
        segments: Array,
        memory: Array,
        read: Array,
        window: Array | None,
        deterministic: bool,
    ) -> Float[Array, "batch length embed"]:
        """All places (or those of a window) at once."""
        if window is not None:
            x = _places(x, window[..., None])
            segments = _places(segments, window)
        places = jnp.arange(x.shape[1])[None]
        see = segments[:, :, None] == read[:, None, :]
        mask = causal_segment_mask(segments)
        pair, off = (places, places), deterministic
        return self.decoder(x, None, pair, mask, memory, see, deterministic=off)[0]

    def _continue(
        self,
        x: Array,
        positions: Array,
        valid: Array,
        cache: Cache,
        entries: Array,
        mask: Array | None,
        memory: Array | None = None,
    ) -> tuple[Array, Cache]:
        """Next tokens, whose keys and values are written to a cache."""
        keys = cache["key"].shape[2]
        shared = {name: cache[name] for name in SHARED}
        old, new = (a[..., None, None] for a in (shared["position"], positions))
        shared["position"] = write_cache(old, new, entries, valid)[..., 0, 0]
        mask = cache_mask(positions, keys) if mask is None else mask
        mask = mask & (shared["position"] >= 0)[:, None, :]
        layers = {name: leaf for name, leaf in cache.items() if name not in SHARED}
        see = shared["memory"][:, None, :] > 0
        where = (entries, valid)
        places = (positions, shared["position"])
        hidden, written = self.decoder(x, layers, places, mask, memory, see, where)
        return hidden, shared | (written or {})


class T5Stack(nn.Module):
    """The encoder's or the decoder's layers, with their table of positions and the final norm."""

    config: T5Config
    decodes: bool

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch length embed"],
        cache: dict[str, Array] | None,
        positions: Positions,
        mask: Bool[Array, "batch length keys"],
        *memory: PyTree[Array],
        deterministic: bool = True,
    ) -> tuple[Float[Array, "batch length embed"], dict[str, Array] | None]:
        """(final hidden states, cache); arguments as in the layer, the bias apart."""
        cfg, drop = self.config, Dropout(self.config.dropout)
        bias = None
        if not cfg.layer_positions:
            bias = PositionBias(cfg, not self.decodes, name="positions")(*positions)
        x = drop(x, deterministic)
        x, cache = self._run(deterministic, x, cache, positions, mask, bias, *memory)
        x = RMSNorm(cfg.norm_eps, name="final_norm", **cfg.types)(x)
        return drop(x, deterministic), cache

    def _run(
        self, deterministic: bool, x: Array, cache: dict[str, Array] | None, *args: PyTree[Array]
    ) -> tuple[Array, dict[str, Array] | None]:
        """All layers, scanned or one by one."""
        cfg, how = self.config, (self.decodes, deterministic)
        count = cfg.decoder_layers if self.decodes else cfg.num_layers
        if cfg.scan_layers:
            scanned = nn.scan(
                remat(T5Period, cfg.remat, scanned=True),
                variable_axes={"params": 0},
                split_rngs={"params": True, "dropout": True},
                in_axes=(0, *(nn.broadcast for _ in args)),
                length=count,
                unroll=unroll(self, count, cfg.remat),
                metadata_params={nn.PARTITION_NAME: "layers"},
            )
            return scanned(cfg, *how, name="layers")(x, cache, *args)
        layer = remat(T5Layer, cfg.remat, scanned=False)
        caches = []
        for i in range(count):
            one = None if cache is None else jax.tree.map(lambda leaf, i=i: leaf[i], cache)
            x, one = layer(cfg, *how, name=f"layer_{i:02d}")(x, one, *args)
            caches.append(one)
        if cache is None:
            return x, None
        return x, jax.tree.map(lambda *leaves: jnp.stack(leaves), *caches)


def _places(x: Array, indices: Array) -> Array:
    """The places of each row that indices say."""
    return jnp.take_along_axis(x, indices, axis=1)


def _next(flags: Bool[Array, "batch length"]) -> Bool[Array, "batch length"]:
    """The flag of each place's right neighbour; False at the end."""
    return jnp.pad(flags[:, 1:], ((0, 0), (0, 1)))
