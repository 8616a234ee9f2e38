"""The protocol of tokenizers."""

import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
from jaxtyping import Bool

if TYPE_CHECKING:
    from ilm_jax.data.tokenizers.chat import ChatFormat
    from ilm_jax.data.tokenizers.chat_template import ChatTemplate

# [start, end) in Unicode characters of the text that was encoded.
Span = tuple[int, int]


class Special(NamedTuple):
    """A special token; whether it takes the white space before or behind it along."""

    id: int
    lstrip: bool = False
    rstrip: bool = False


class Tokenizer(Protocol):
    """Text to ids and back.

    Attributes:
      pad_id: fills what masks leave out; may equal eos_id.
      eos_id: ends an answer.
      stop_ids: whatever else ends a text that a model writes, behind eos_id, the first: an instruct
        model's generation_config.json lists several.
      bos_id: opens every row of a language model; None where the model was trained without.
      unk_id: stands for what the vocabulary lacks; None where nothing is lacking.
      cls_id, dec_id: open a text and a caption in stage 1; below `text_vocab_size`, and where the
        vocabulary lacks such tokens not below `vocab_size`.
      vocab_size: number of ids.
      least_vocab_size: ids that rows can hold: what a language model's table must cover. Smaller
        where tokens are special and of no use here: Gemma 3's smallest model has no row for the
        image token that its tokenizer lists.
      text_vocab_size: ids that the text branch of a Q-Former must have rows for.
      space_leads: a space is part of the word after it, so a text that ends in a space hands it
        on to the text that follows. False for our own, whose models learn prompt and answer cut
        behind the space.
      fingerprint: hex SHA-256 of what decides the ids: equal fingerprints, equal ids.
      template: how the model's files lay out a conversation; None where they do not say.
      chat: how prompts are laid out as turns of a conversation; None: they are plain text.
      specials: the special tokens by their spelling, which templates write and texts never hold.
      prefixes_after_special: a text behind a special token is encoded as one that opens a row.
    """

    pad_id: int
    eos_id: int
    stop_ids: tuple[int, ...]
    bos_id: int | None
    unk_id: int | None
    cls_id: int
    dec_id: int
    vocab_size: int
    least_vocab_size: int
    text_vocab_size: int
    space_leads: bool
    fingerprint: str

    @property
    def template(self) -> "ChatTemplate | None":
        """How the model's files lay out a conversation."""
        ...

    @property
    def chat(self) -> "ChatFormat | None":
        """How prompts are laid out here."""
        ...

    @property
    def specials(self) -> Mapping[str, Special]:
        """Special tokens by their spelling."""
        ...

    @property
    def prefixes_after_special(self) -> bool:
        """Whether a text behind a special token is encoded as one that opens a row."""
        ...

    @property
    def word_begins(self) -> Bool[np.ndarray, " ids"]:
        """True at the ids whose pieces begin a word.

        Raises:
          UserError: if its pieces bear no mark at the beginning of a word.
        """
        ...

    def encode(self, text: str, *, continues: bool = False) -> list[int]:
        """Token ids, without bos or eos.

        Args:
          text: any text.
          continues: something stands before it in the row (a slot, another text), so nothing may
            be put in front of it: tokenizers with a dummy prefix (T5, Llama 2) leave it out.
        """

    def encode_with_spans(
        self, text: str, *, continues: bool = False
    ) -> tuple[list[int], list[Span]]:
        """Token ids and the characters that each stands for, in order.

        Tokens that share a character (bytes of one emoji) all carry its span. Characters that the
        tokenizer drops (control characters, repeated spaces) may lie in no span.
        """

    def decode(self, ids: Iterable[int], *, continues: bool = False) -> str:
        """Text of the ids.

        Special ids vanish, and so do those beyond the vocabulary: published tables have more rows
        than their tokenizers have ids, and a model may write any of them.

        Raises:
          ValueError: for a negative id.
        """

    def save(self, path: str | os.PathLike) -> None:
        """Writes what `open_tokenizer_at(path)` reads again: a file if ours, else a folder."""
