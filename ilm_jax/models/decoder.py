"""A decoder-only language model in the shape of Llama, Qwen, Mistral or Gemma, chosen by config.

Pre-RMSNorm, rotary positions, grouped-query attention, gated feed-forward (Touvron et al. 2023,
arXiv 2302.13971, section 2.2; Ainslie et al. 2023, arXiv 2305.13245); and what Gemma 2 and 3
(arXiv 2408.00118, 2503.19786), Qwen 2 and 3 (arXiv 2407.10671, 2505.09388) and Mistral (arXiv
2310.06825) add. It is called in three steps, so that vectors from elsewhere can stand between
words: `embed`, `__call__`, `logits`.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ilm_jax.models.attention import cache_mask, soft_cap, within, write_cache
from ilm_jax.models.decoder_layers import Cache, DecoderConfig, DecoderLayer, DecoderPeriod, Row
from ilm_jax.models.layers import Embed, constrain, constrain_logits
from ilm_jax.models.output_layer import OutputLayer
from ilm_jax.models.remat import remat
from ilm_jax.models.rope import RopeScaling
from ilm_jax.models.stacking import layer_name
from ilm_jax.models.unrolling import unroll

__all__ = ["Cache", "Decoder", "DecoderConfig", "RopeScaling"]


class Decoder(nn.Module):
    """The language model; initialising by `__call__` creates every leaf.

    Attributes:
      config: sizes.
    """

    config: DecoderConfig

    def setup(self) -> None:
        """Names the parts."""
        cfg = self.config
        self.embedding = Embed(cfg.vocab_size, cfg.embed_dim, **cfg.types)
        if not cfg.tie_embeddings:
            self.head = Embed(cfg.vocab_size, cfg.embed_dim, **cfg.types)
        self.final_norm = cfg.norm("final_norm")
        if cfg.repetitions:
            self.layers = nn.scan(
                remat(DecoderPeriod, cfg.remat, scanned=True),
                variable_axes={"params": 0},
                split_rngs={"params": True},
                in_axes=(0, nn.broadcast, nn.broadcast, nn.broadcast, nn.broadcast),
                length=cfg.repetitions,
                unroll=unroll(self, cfg.repetitions, cfg.remat),
                metadata_params={nn.PARTITION_NAME: "layers"},
            )(cfg)
        layer = remat(DecoderLayer, cfg.remat, scanned=False)
        self.layer = [layer(cfg, cfg.kind(i), name=layer_name(i)) for i in cfg.single_layers]

    def embed(self, tokens: Int[Array, "batch length"]) -> Float[Array, "batch length embed"]:
        """Vectors of token ids, in the computation's dtype."""
        x = self.embedding(tokens)
        if self.config.scale_embeddings:
            x = x * jnp.asarray(self.config.embed_dim**0.5, x.dtype)
        return constrain(x, "batch", "length", "embed")

    def __call__(
        self,
        embeddings: Float[Array, "batch length embed"],
        positions: Int[Array, "batch length"],
        segment_ids: Int[Array, "batch length"],
        cache: Cache | None = None,
        entries: Int[Array, "batch length"] | None = None,
        mask: Bool[Array, "batch length keys"] | None = None,
    ) -> Float[Array, "batch length embed"] | tuple[Float[Array, "batch length embed"], Cache]:
        """Final hidden states of a row, or of its next tokens given a cache.

        Args:
          embeddings: from `embed`, with or without other vectors in between.
          positions: for the rotary angles; restart with every segment of a packed row.
          segment_ids: tokens see earlier tokens of their segment; 0 is padding. With a cache, 0
            marks what is not to be written, and all else is one segment.
          cache: from `init_cache`. New tokens are written at `positions`, each row at its own;
            rows are left-aligned (position = index in the row), and positions stay below the
            cache's length, since entries beyond it would be dropped.
          entries: where in the cache to write, if not at the positions: several continuations
            of one prompt (beams) share a row.
          mask: True at the cache entries that each token sees, its own included; entries
            0..position if None. Goes with `entries`. Local layers see those of them that are near
            enough by their positions, which the cache keeps.

        Returns:
          hidden states, or (hidden states, cache) if a cache is given.
        """
        masks = None
        if cache is None:
            entries = None
        else:
            entries = positions if entries is None else entries
            cache, masks = self._look(cache, positions, segment_ids > 0, entries, mask)
        x, cache = self._run(embeddings, cache, positions, segment_ids, entries, masks)
        hidden = self.final_norm(x)
        if self.is_initializing():
            self.embed(jnp.zeros((1, 1), jnp.int32))
            self.logits(hidden[:1, :1])
        return hidden if cache is None else (hidden, cache)

    def logits(
        self,
        hidden: Float[Array, "*batch embed"],
        token_subset: Int[Array, " subset"] | None = None,
    ) -> Float[Array, "*batch vocab"]:
        """Next-token logits in float32; only of the ids in `token_subset`, in order, if given."""
        logits = self._head.attend(hidden, token_subset)
        if self.config.logits_softcap is not None:
            logits = soft_cap(logits, self.config.logits_softcap)
        return constrain_logits(logits)

    def output_layer(self) -> OutputLayer:
        """The output layer behind `logits`, as arrays."""
        cfg = self.config
        return OutputLayer(self._head.whole(), softcap=cfg.logits_softcap, dtype=cfg.dtype)

    @property
    def _head(self) -> Embed:
        return self.embedding if self.config.tie_embeddings else self.head

    @nn.nowrap
    def init_cache(self, batch: int, length: int) -> Cache:
        """An empty cache for `length` positions of `batch` rows; needs no parameters.

        Keys and values of the layers are named and stacked like their parameters; `positions`
        are those of the entries, of all layers alike.
        """
        cfg = self.config

        def empty(*stack: int) -> Cache:
            """Zeros [*stack, batch, length, kv_heads, head_width] for keys and values."""
            shape = (*stack, batch, length, cfg.kv_heads, cfg.head_width)
            return {name: jnp.zeros(shape, jnp.dtype(cfg.dtype)) for name in ("key", "value")}

        cache: Cache = {layer_name(i): empty() for i in cfg.single_layers}
        if cfg.repetitions:
            subs = range(cfg.period)
            cache["layers"] = {f"sub_{i}": empty(cfg.repetitions) for i in subs}
        return cache | {"positions": jnp.zeros((batch, length), jnp.int32)}

    def _look(
        self,
        cache: Cache,
        positions: Int[Array, "batch length"],
        valid: Bool[Array, "batch length"],
        entries: Int[Array, "batch length"],
        mask: Bool[Array, "batch length keys"] | None,
    ) -> tuple[Cache, dict[str, Array]]:
        """(cache with the new entries' positions, what layers of each kind see of it)."""
        old, new = (x[..., None, None] for x in (cache["positions"], positions))
        keys = write_cache(old, new, entries, valid)[..., 0, 0]
        if mask is None:
            mask = cache_mask(positions, keys.shape[1])
        masks = {"global": mask}
        if "local" in self.config.layer_pattern:
            assert self.config.sliding_window is not None
            masks["local"] = mask & within(positions, keys, self.config.sliding_window)
        return cache | {"positions": keys}, masks

    def _run(self, x: Array, cache: Cache | None, *args: *Row) -> tuple[Array, Cache | None]:
        """All layers: those of the scan, then those that stand alone."""
        after = None if cache is None else dict(cache)
        if self.config.repetitions:
            x, part = self.layers(x, None if cache is None else cache["layers"], *args)
            if after is not None:
                after["layers"] = part
        for i, layer in zip(self.config.single_layers, self.layer, strict=True):
            name = layer_name(i)
            x, part = layer(x, None if cache is None else cache[name], *args)
            if after is not None:
                after[name] = part
        return x, after
