"""A model's tokenizer whose prompts are turns of a conversation, where PROMPT_FORMAT says so."""

import functools
import os
from collections.abc import Hashable, Iterable, Mapping
from typing import Any, cast

import numpy as np
from jaxtyping import Bool

from ilm_jax.data.tokenizers.chat import ChatFormat
from ilm_jax.data.tokenizers.chat_template import ChatTemplate
from ilm_jax.data.tokenizers.protocol import Span, Special, Tokenizer
from ilm_jax.errors import UserError

PROMPT_FORMATS = ("auto", "plain", "chat")


class ChatTokenizer:
    """A tokenizer and how it lays out prompts; see `Tokenizer` for the attributes.

    Words have the ids that the model's tokenizer gives them. What differs: an answer ends with the
    token that ends the assistant's turn, and rows open with bos only where the template writes it,
    once.

    Attributes:
      plain: the model's tokenizer.
    """

    def __init__(self, plain: Tokenizer, chat: ChatFormat) -> None:
        """Tries the template.

        Raises:
          UserError: if it fails, see `ChatFormat.prompt`.
        """
        self.plain, self.chat = plain, chat
        end, opening = chat.end_id, chat.one_turn[:1]
        self.eos_id = plain.eos_id if end is None else end
        self.stop_ids = tuple(dict.fromkeys((self.eos_id, *plain.stop_ids)))
        written = plain.bos_id is not None and opening == [plain.bos_id]
        self.bos_id = plain.bos_id if written else None
        self.pad_id, self.unk_id = plain.pad_id, plain.unk_id
        self.cls_id, self.dec_id = plain.cls_id, plain.dec_id
        self.vocab_size, self.text_vocab_size = plain.vocab_size, plain.text_vocab_size
        self.least_vocab_size = max(plain.least_vocab_size, self.eos_id + 1, *_ids(chat))
        self.space_leads, self.fingerprint = plain.space_leads, plain.fingerprint
        self.template: ChatTemplate | None = chat.template

    def __reduce__(self) -> tuple[Any, ...]:
        return ChatTokenizer, (self.plain, self.chat)

    @property
    def specials(self) -> Mapping[str, Special]:
        """See `Tokenizer`."""
        return self.plain.specials

    @property
    def prefixes_after_special(self) -> bool:
        """See `Tokenizer`."""
        return self.plain.prefixes_after_special

    @property
    def word_begins(self) -> Bool[np.ndarray, " ids"]:
        """See `Tokenizer`."""
        return self.plain.word_begins

    def encode(self, text: str, *, continues: bool = False) -> list[int]:
        """See `Tokenizer.encode`."""
        return self.plain.encode(text, continues=continues)

    def encode_with_spans(
        self, text: str, *, continues: bool = False
    ) -> tuple[list[int], list[Span]]:
        """See `Tokenizer.encode_with_spans`."""
        return self.plain.encode_with_spans(text, continues=continues)

    def decode(self, ids: Iterable[int], *, continues: bool = False) -> str:
        """See `Tokenizer.decode`."""
        return self.plain.decode(ids, continues=continues)

    def save(self, path: str | os.PathLike) -> None:
        """See `Tokenizer.save`; the template is saved along."""
        self.plain.save(path)


def _ids(chat: ChatFormat) -> list[int]:
    """One more than each id that the template writes."""
    return [piece + 1 for piece in chat.one_turn if type(piece) is int]


def without_chat(tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer for plain text: of a corpus, and of what is no prompt."""
    return tokenizer.plain if isinstance(tokenizer, ChatTokenizer) else tokenizer


def formatted(tokenizer: Tokenizer, prompt_format: str = "auto", system: str = "") -> Tokenizer:
    """The tokenizer with the layout of prompts that a setting asks for.

    Args:
      tokenizer: of a model.
      prompt_format: "plain": prompts are text; "chat": turns in the model's chat template; "auto":
        chat where the model's files have a template.
      system: what the system says before every conversation; "" for nothing.

    Raises:
      UserError: for "chat" without a template, a system text without "chat", or a template that
        fails.
    """
    if prompt_format not in PROMPT_FORMATS:
        raise UserError(f"PROMPT_FORMAT={prompt_format!r}: give {', '.join(PROMPT_FORMATS)}")
    tokenizer = without_chat(tokenizer)
    template = tokenizer.template
    if prompt_format == "chat" and template is None:
        raise UserError(
            "PROMPT_FORMAT='chat': the tokenizer's files have no chat template; name an instruct "
            "model's by TOKENIZER, or set PROMPT_FORMAT='plain'"
        )
    if prompt_format == "plain" or template is None:
        if system:
            raise UserError(
                "SYSTEM_TEXT is said in a chat template alone, and prompts are plain text here: "
                "leave it out, or name an instruct model's tokenizer by TOKENIZER"
            )
        return tokenizer
    return _formatted(cast(Hashable, tokenizer), template, system)


# Trying a template costs a few milliseconds, and every stream of a run asks for the tokenizer.
@functools.lru_cache(maxsize=8)
def _formatted(tokenizer: Tokenizer, template: ChatTemplate, system: str) -> ChatTokenizer:
    return ChatTokenizer(tokenizer, ChatFormat(template, tuple(tokenizer.specials.items()), system))


def chat_of(tokenizer: Tokenizer) -> str:
    """Fingerprint of the chat format; "" where prompts are plain text."""
    return tokenizer.chat.fingerprint if tokenizer.chat is not None else ""


def record_of(tokenizer: Tokenizer) -> dict[str, str]:
    """Layout of prompts for a run's record: plain values, no paths."""
    if tokenizer.chat is None:
        return {"format": "plain"}
    chat = tokenizer.chat
    return {"format": "chat", "template": chat.template.fingerprint, "system": chat.system}
