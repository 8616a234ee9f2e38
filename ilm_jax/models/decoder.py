"""A decoder-only language model in the shape of Llama, Gemma and Qwen, chosen by config.

Pre-RMSNorm, rotary positions, grouped-query attention, gated feed-forward (Touvron et al. 2023,
arXiv 2302.13971, section 2.2; Ainslie et al. 2023, arXiv 2305.13245). It is called in three steps,
so that vectors from elsewhere can stand between words: `embed`, `__call__`, `logits`.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ilm_jax.models.attention import cache_mask, causal_segment_mask
from ilm_jax.models.decoder_layers import Cache, DecoderConfig, DecoderLayer, DecoderPeriod
from ilm_jax.models.layers import Embed, RMSNorm, constrain, remat

__all__ = ["Cache", "Decoder", "DecoderConfig"]


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
        self.final_norm = RMSNorm(cfg.norm_eps, **cfg.types)
        if cfg.scan_layers:
            self.layers = nn.scan(
                remat(DecoderPeriod, cfg.remat, scanned=True),
                variable_axes={"params": 0},
                split_rngs={"params": True},
                in_axes=(0, nn.broadcast, nn.broadcast, nn.broadcast, nn.broadcast),
                length=cfg.num_layers,
                metadata_params={nn.PARTITION_NAME: "layers"},
            )(cfg)
        else:
            layer = remat(DecoderLayer, cfg.remat, scanned=False)
            self.layer = [layer(cfg, name=f"layer_{i:02d}") for i in range(cfg.num_layers)]

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
            0..position if None. Goes with `entries`.

        Returns:
          hidden states, or (hidden states, cache) if a cache is given.
        """
        valid = segment_ids > 0
        entries = positions if entries is None else entries
        if cache is None:
            mask = causal_segment_mask(segment_ids)
        elif mask is None:
            mask = cache_mask(positions, cache["key"].shape[2])
        x, cache = self._run(embeddings, cache, positions, mask, valid, entries)
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
        table = self.embedding if self.config.tie_embeddings else self.head
        logits = table.attend(hidden, token_subset)
        names = ("batch", "length", "vocab") if logits.ndim == 3 else (None,) * logits.ndim
        return constrain(logits, *names)

    @nn.nowrap
    def init_cache(self, batch: int, length: int) -> Cache:
        """An empty cache for `length` positions of `batch` rows; needs no parameters."""
        cfg = self.config
        shape = (cfg.num_layers, batch, length, cfg.kv_heads, cfg.head_width)
        return {name: jnp.zeros(shape, jnp.dtype(cfg.dtype)) for name in ("key", "value")}

    def _run(self, x: Array, cache: Cache | None, *args: Array) -> tuple[Array, Cache | None]:
        """All layers, scanned or one by one."""
        if self.config.scan_layers:
            return self.layers(x, cache, *args)
        caches = []
        for i, layer in enumerate(self.layer):
            one = None if cache is None else jax.tree.map(lambda leaf, i=i: leaf[i], cache)
            x, one = layer(x, one, *args)
            caches.append(one)
        if cache is None:
            return x, None
        return x, jax.tree.map(lambda *leaves: jnp.stack(leaves), *caches)
