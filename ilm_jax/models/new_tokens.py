"""A language model with rows of its own for words that its vocabulary lacks.

A published model's table of token vectors stays as it is, and frozen: new words have a vector that
is read and one that is said, in two small tables beside it (`new_tokens/input`,
`new_tokens/output`), which train. Their ids begin where the tokenizer says
(data/tokenizers/extended.py). A published table may be larger than its tokenizer, padded to a round
number, or smaller: where it has rows under a new word's id they are never read, and ids between the
end of the table and the first new word are never said.
"""

import dataclasses
from typing import Annotated, Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from ilm_jax.checks import Choice, Number, check
from ilm_jax.models.applying import applied
from ilm_jax.models.decoder import Cache, Decoder, DecoderConfig
from ilm_jax.models.layers import constrain, constrain_logits, make_param
from ilm_jax.models.output_layer import NEVER, OutputLayer
from ilm_jax.models.t5 import T5, T5Config

TOP = "new_tokens"  # below the language model's own key
_TOKENS_AT_ONCE = 4096


@dataclasses.dataclass(frozen=True)
class NewTokens:
    """Words that a language model has rows of its own for.

    Attributes:
      count: how many; 0: as many as the tokenizer appends.
      first: the first of their ids; 0: the tokenizer's.
      tied: a word is said by the vector that it is read by, as in a model whose output layer is its
        token table.
      start: "data", as words of the language model (mean and spread of its tables), or "drawn",
        from N(0, 1).
    """

    count: Number = 0
    first: Number = 0
    tied: bool = False
    start: Annotated[str, Choice(("data", "drawn"))] = "data"

    def __post_init__(self) -> None:
        check(self)


class NewTokenRows(nn.Module):
    """Two tables, of words as they are read and as they are said; float32, drawn from N(0, 1).

    Tied, they are one: `input`.
    """

    count: int
    embed_dim: int
    tied: bool = False

    def setup(self) -> None:
        """Creates both."""
        shape, unit = (self.count, self.embed_dim), nn.initializers.normal(1.0)
        self.input = make_param(self, "input", unit, shape, (None, "embed"))
        self.output = self.input
        if not self.tied:
            self.output = make_param(self, "output", unit, shape, (None, "embed"))

    def __call__(self) -> tuple[Float[Array, "count embed"], Float[Array, "count embed"]]:
        """(vectors that the layers read, vectors that hidden states are multiplied by)."""
        return self.input, self.output


class ExtendedLM(nn.Module):
    """A language model and new words; called as the language model is.

    Its parameters are the language model's, with `new_tokens` beside them.

    Attributes:
      lm: the language model.
      first, count: ids of the new words.
      tied: see `NewTokens`.
    """

    lm: Decoder | T5
    first: int
    count: int
    tied: bool = False

    def setup(self) -> None:
        """Takes the language model's parameters for its own, under the same names."""
        nn.share_scope(self, self.lm)
        self.new_tokens = NewTokenRows(self.count, self.lm.config.embed_dim, self.tied)

    @property
    def config(self) -> DecoderConfig | T5Config:
        """The language model's sizes."""
        return self.lm.config

    def embed(
        self,
        tokens: Int[Array, "batch length"],
        word_ids: Int[Array, "batch length"] | None = None,
    ) -> Float[Array, "batch length embed"]:
        """Vectors of token ids, in the computation's dtype; arguments as the language model's."""
        words = self.lm.embed(tokens)
        place = tokens - self.first
        rows = jnp.take(self.new_tokens()[0], place, axis=0, mode="clip").astype(words.dtype)
        is_new = (place >= 0) & (place < self.count)
        x = constrain(jnp.where(is_new[..., None], rows, words), "batch", "length", "embed")
        return x if word_ids is None else cast(T5, self.lm).with_words(x, word_ids)

    def __call__(self, *args: Any, **others: Any) -> Any:
        """As the language model's."""
        found = self.lm(*args, **others)
        if self.is_initializing():
            self.new_tokens()
        return found

    def logits(
        self,
        hidden: Float[Array, "*batch embed"],
        token_subset: Int[Array, " subset"] | None = None,
    ) -> Float[Array, "*batch vocab"]:
        """Next-token logits in float32, by id; only of the ids in `token_subset`, if given."""
        words = self.lm.logits(hidden, token_subset)
        new = self.output_layer().new_logits(hidden)
        if token_subset is not None:
            place = token_subset - self.first
            is_new = (place >= 0) & (place < self.count)
            return jnp.where(is_new, jnp.take(new, place, axis=-1, mode="clip"), words)
        size = words.shape[-1]
        gap = jnp.full((*words.shape[:-1], max(0, self.first - size)), NEVER, words.dtype)
        behind = words[..., self.first + self.count :]
        return constrain_logits(
            jnp.concatenate([words[..., : self.first], gap, new, behind], axis=-1)
        )

    def output_layer(self) -> OutputLayer:
        """The output layer behind `logits`, as arrays."""
        own = self.lm.output_layer()
        return dataclasses.replace(own, new=self.new_tokens()[1], first=self.first)

    @nn.nowrap
    def init_cache(self, batch: int, length: int) -> Cache:
        """As the language model's."""
        return self.lm.init_cache(batch, length)


def extend(lm: Decoder | T5, new: NewTokens | None) -> Decoder | T5:
    """The language model with new words; itself for none."""
    if new is None or not new.count:
        return lm
    return cast(
        Decoder, ExtendedLM(lm, new.first, new.count, new.tied)
    )  # which is called as one is


def started(
    lm: Decoder | T5, params: PyTree[Array], new: NewTokens, vocab_size: int
) -> dict[str, Array]:
    """Rows of new words that start as words: mean + standard deviation times what was drawn.

    Args:
      lm: the module, without the new words.
      params: its parameters, nested, with the drawn rows.
      new: the new words.
      vocab_size: rows of the model's table, of which those below the first new id count that are
        not zero.

    Returns:
      The rows by their path below the language model's key; {} if they stay as drawn.
    """
    if new.start == "drawn":
        return {}
    drawn = params[TOP]
    size = min(vocab_size, new.first)
    rows = min(size, _TOKENS_AT_ONCE)

    def moments(start: Array) -> tuple[Array, Array, Array]:
        """Sums over a block of words, and how many count."""
        ids = start + jnp.arange(rows)
        words: Array = applied(lm, params, ids[None], method="embed")
        return _sums(words[0], ids < size)

    starts = jnp.arange(0, size, rows)
    read = jax.tree.map(lambda x: x.sum(0), jax.lax.map(moments, starts))
    output: OutputLayer = applied(lm, params, method="output_layer")
    said = _sums(output.table, jnp.arange(output.table.shape[0]) < size)
    return {
        f"{TOP}/{name}": _placed(drawn[name], *sums)
        for name, sums in (("input", read), ("output", said))
        if name in drawn
    }


def _sums(words: Float[Array, "words embed"], real: Array) -> tuple[Array, Array, Array]:
    words = words.astype(jnp.float32)
    real = real & jnp.any(words != 0, axis=-1)
    words = jnp.where(real[:, None], words, 0)
    return words.sum(0), jnp.square(words).sum(0), real.sum()


def _placed(
    drawn: Float[Array, "count embed"], total: Array, squares: Array, count: Array
) -> Float[Array, "count embed"]:
    mean = total / jnp.maximum(count, 1)
    deviation = jnp.sqrt(jnp.maximum(squares / jnp.maximum(count, 1) - jnp.square(mean), 0))
    return mean + deviation * drawn
