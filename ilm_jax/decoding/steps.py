"""A prompt read once, then tokens behind it: the two kinds of language models as one.

All continuations of a prompt (its beams, or the nodes of a trie) stand in one row of the cache:
the prompt's keys and values are held and read once, nothing is ever moved, and a mask says which
entries belong to whom.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32, Int, PyTree

from ilm_jax.models.applying import applied
from ilm_jax.models.decoder import Cache, Decoder
from ilm_jax.models.t5 import T5

LanguageModel = Decoder | T5


@dataclasses.dataclass(frozen=True)
class Reader:
    """A language model with its parameters, bound for one trace.

    Attributes:
      lm: a decoder or an encoder-decoder.
      params: its parameters (the subtree "lm" of an item-language model).
    """

    lm: LanguageModel
    params: PyTree[Array]

    def prefill(
        self,
        embeddings: Float[Array, "batch length embed"],
        lengths: Int[Array, " batch"],
        room: int,
    ) -> "Prefilled":
        """Reads right-padded prompts; leaves `room` entries for what follows."""
        batch, length = embeddings.shape[:2]
        lengths = jnp.maximum(lengths, 1)  # rows that only fill a batch have none
        places = jnp.broadcast_to(jnp.arange(length), (batch, length))
        real = places < lengths[:, None]
        if self.lm.config.encodes:
            # Only differences of positions count, and the prompt is not in the decoder's cache:
            # with the prompt's last place at 0 the cache holds nothing but the answer.
            first, positions = 1, places - (lengths - 1)[:, None]
            begin = jnp.ones_like(lengths)
        else:
            first, positions, begin = length, places, lengths
        cache = self.lm.init_cache(batch, first + room)
        hidden, cache = self._apply(embeddings, positions, real.astype(jnp.int32), cache)
        last = jnp.take_along_axis(hidden, (lengths - 1)[:, None, None], axis=1)
        seen = jnp.arange(first + room) < begin[:, None]
        return Prefilled(last[:, 0], cache, begin, seen, first)

    def extend(
        self,
        tokens: Int[Array, "batch rows"],
        positions: Int[Array, "batch rows"],
        entries: Int[Array, " rows"],
        mask: Bool[Array, "batch rows entries"],
        cache: Cache,
        valid: Bool[Array, "batch rows"] | None = None,
    ) -> tuple[Float[Array, "batch rows embed"], Cache]:
        """Reads tokens behind the prompts: (their hidden states, the cache with them).

        Args:
          tokens: ids.
          positions: counted from `Prefilled.begin`, each row's own.
          entries: of the cache to write to, the same in all rows.
          mask: the entries that each token sees, its own included.
          cache: from `prefill` or an earlier call.
          valid: False at tokens that are not to be written; all are if None.
        """
        words: Array = applied(self.lm, self.params, tokens, method="embed")
        valid = jnp.ones(tokens.shape, bool) if valid is None else valid
        where = jnp.broadcast_to(entries, tokens.shape)
        real = valid.astype(jnp.int32)
        return self._apply(words, positions, real, cache, where, mask)

    def logits(self, hidden: Float[Array, "*rows embed"]) -> Float32[Array, "*rows vocab"]:
        """Logits of the next token."""
        logits: Array = applied(self.lm, self.params, hidden, method="logits")
        return logits.astype(jnp.float32)

    def log_probs(self, hidden: Float[Array, "*rows embed"]) -> Float32[Array, "*rows vocab"]:
        """Log-probabilities of the next token, over the whole vocabulary."""
        return jax.nn.log_softmax(self.logits(hidden))

    def _apply(self, *args: Array | Cache) -> tuple[Array, Cache]:
        outputs: tuple[Array, Cache] = applied(self.lm, self.params, *args)
        return outputs


@dataclasses.dataclass(frozen=True)
class Prefilled:
    """State after the prompts are read.

    Attributes:
      hidden: state that predicts the first new token.
      cache: with the prompts.
      begin: position of the first new token.
      seen: True at the entries that hold the prompt.
      first: number of the first free entry.
    """

    hidden: Float[Array, "batch embed"]
    cache: Cache
    begin: Int[Array, " batch"]
    seen: Bool[Array, "batch entries"]
    first: int
