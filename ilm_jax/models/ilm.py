"""The item-language model: a language model that reads items and users as soft tokens.

A reader turns each collaborative-filtering vector into `num_queries` vectors of the language
model's width, and they stand in the prompt where a slot was: in ILM a Q-Former and a linear layer
(Yang et al. 2024, arXiv 2406.02844), see readers.py. Without a reader it is the bare language
model: a decoder, or an encoder-decoder whose encoder reads the soft tokens.
"""

from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from ilm_jax.errors import UserError
from ilm_jax.models.applying import applied
from ilm_jax.models.decoder import Decoder
from ilm_jax.models.layers import constrain
from ilm_jax.models.output_layer import OutputLayer
from ilm_jax.models.t5 import T5

TOKENS_AT_ONCE = 4096


class ItemLanguageModel(nn.Module):
    """Reader and language model; parameters under the reader's own names, and `lm`.

    Initialising by `__call__` creates what stage 2 needs and nothing of stage 1's text branch.

    Attributes:
      reader: maps (vectors [..., cf], deterministic) to soft tokens [..., Q, lm_dim]; None for a
        text-only model. Its parts (`qformer`, `adaptor`) are parts of this module.
      lm: the language model.
    """

    reader: nn.Module | None
    lm: Decoder | T5

    def setup(self) -> None:
        """Takes the reader's parts for its own, so that their names are top keys."""
        if self.reader is not None:
            nn.share_scope(self, self.reader)

    def __call__(
        self,
        tokens: Int[Array, "batch length"],
        positions: Int[Array, "batch length"],
        segment_ids: Int[Array, "batch length"],
        slot_entity: Int[Array, "batch length"],
        slot_query: Int[Array, "batch length"],
        entity_vectors: Float[Array, "batch entities cf"],
        deterministic: bool = True,
        word_ids: Int[Array, "batch length"] | None = None,
        **others: Any,
    ) -> Float[Array, "batch length lm_dim"]:
        """Final hidden states of prompts with slots; arguments as in `embed` and the lm's."""
        x = self.embed(tokens, slot_entity, slot_query, entity_vectors, deterministic, word_ids)
        if self.lm.config.encodes:
            others["deterministic"] = deterministic
        return cast(Array, self.lm(x, positions, segment_ids, **others))

    def soft_tokens(
        self, vectors: Float[Array, "*batch cf"], deterministic: bool = True
    ) -> Float[Array, "*batch queries lm_dim"]:
        """The vectors that stand for each item or user in a prompt.

        Raises:
          UserError: for a text-only model.
        """
        if self.reader is None:
            raise UserError(
                "ItemLanguageModel.reader is None: a text-only model has no soft tokens"
            )
        soft: Array = self.reader(vectors, deterministic)
        return soft

    def embed(
        self,
        tokens: Int[Array, "batch length"],
        slot_entity: Int[Array, "batch length"],
        slot_query: Int[Array, "batch length"],
        entity_vectors: Float[Array, "batch entities cf"],
        deterministic: bool = True,
        word_ids: Int[Array, "batch length"] | None = None,
    ) -> Float[Array, "batch length lm_dim"]:
        """The language model's input: token vectors, and soft tokens where there are slots.

        Args:
          tokens: ids; anything valid (padding) at slots.
          slot_entity: which of the row's entities stands here; -1 where a token does.
          slot_query: which of that entity's soft tokens.
          entity_vectors: the row's entities, zeros for absent ones.
          deterministic: no dropout.
          word_ids: number of each token's word, -1 where the encoder reads none; of a language
            model with whole-word embeddings.
        """
        if self.reader is None:
            return self.words(tokens, word_ids)
        soft = self.soft_tokens(entity_vectors, deterministic)
        return self.interleave(tokens, slot_entity, slot_query, soft, word_ids)

    def words(
        self,
        tokens: Int[Array, "batch length"],
        word_ids: Int[Array, "batch length"] | None = None,
    ) -> Float[Array, "batch length lm_dim"]:
        """Token vectors, with those of their words where the language model has any."""
        if word_ids is None:
            return self.lm.embed(tokens)
        return cast(T5, self.lm).embed(tokens, word_ids)  # a decoder has none

    def interleave(
        self,
        tokens: Int[Array, "batch length"],
        slot_entity: Int[Array, "batch length"],
        slot_query: Int[Array, "batch length"],
        soft: Float[Array, "batch entities queries lm_dim"],
        word_ids: Int[Array, "batch length"] | None = None,
    ) -> Float[Array, "batch length lm_dim"]:
        """As `embed`, with soft tokens that were computed before (for a catalogue, once)."""
        words = self.words(tokens, word_ids)
        queries = soft.shape[2]
        soft = soft.reshape(soft.shape[0], -1, soft.shape[-1]).astype(words.dtype)
        index = jnp.maximum(slot_entity, 0) * queries + jnp.maximum(slot_query, 0)
        placed = jnp.take_along_axis(soft, index[..., None], axis=1)
        # A selection, not a sum: rows without slots are the bare decoder's bit for bit.
        x = jnp.where((slot_entity >= 0)[..., None], placed, words)
        return constrain(x, "batch", "length", "embed")

    def logits(
        self,
        hidden: Float[Array, "*batch lm_dim"],
        token_subset: Int[Array, " subset"] | None = None,
    ) -> Float[Array, "*batch vocab"]:
        """Next-token logits in float32, as the language model's."""
        return self.lm.logits(hidden, token_subset)

    def output_layer(self) -> OutputLayer:
        """The output layer behind `logits`, as arrays: for a loss that never holds all logits."""
        return self.lm.output_layer()


def token_rms(lm: Decoder | T5, params: PyTree[Array], vocab_size: int) -> Float[Array, ""]:
    """Root mean square of the entries of a language model's token vectors, as its layers read them.

    Rows of zeros, which fill a table up, do not count.

    Args:
      lm: the module.
      params: its parameters, nested.
      vocab_size: rows of its table.
    """
    block = min(vocab_size, TOKENS_AT_ONCE)

    def squares(ids: Array) -> tuple[Array, Array]:
        """Sum of the words' mean squares, and how many of them are not zero."""
        words: Array = applied(lm, params, ids[None], method="embed")
        square = jnp.mean(jnp.square(words[0].astype(jnp.float32)), axis=-1)
        square = jnp.where(ids < vocab_size, square, 0.0)
        return jnp.sum(square), jnp.sum(square > 0)

    ids = jnp.arange(-(-vocab_size // block) * block).reshape(-1, block)
    total, rows = jax.lax.map(squares, ids)
    return jnp.sqrt(jnp.sum(total) / jnp.maximum(jnp.sum(rows), 1))


def gather_vectors(
    table: Float[Array, "capacity cf"], entities: Int[Array, "*batch"]
) -> Float[Array, "*batch cf"]:
    """Rows of the embedding table; zeros where the entity is -1 (absent)."""
    rows = jnp.take(table, jnp.maximum(entities, 0), axis=0)
    return jnp.where((entities >= 0)[..., None], rows, 0)
