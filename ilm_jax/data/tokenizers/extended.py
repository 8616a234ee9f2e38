"""A tokenizer with words appended behind its ids, such as those of semantic ids.

All other words keep their ids. The new ids begin behind every id that the tokenizer may use itself
(its `text_vocab_size` included), wherever a language model's table of token vectors ends: rows of
a published table that are there for padding are none of theirs (models/new_tokens.py).
"""

import functools
import json
import os
import pathlib
import re
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from jaxtyping import Bool

from ilm_jax.data.tokenizers.chat_tokenizer import without_chat
from ilm_jax.data.tokenizers.protocol import Span, Special, Tokenizer
from ilm_jax.errors import UserError
from ilm_jax.files import atomic_write, sha256_json

if TYPE_CHECKING:
    from ilm_jax.data.tokenizers.chat_template import ChatTemplate

FILE = "new_tokens.json"


class ExtendedTokenizer:
    """A tokenizer and further words, each one token; see `Tokenizer` for the attributes.

    A new word is found wherever its characters stand, as a word that a SentencePiece model declares
    is. Text between new words is encoded as text that continues a row; spaces stay where they are.

    Attributes:
      plain: the tokenizer without them.
      words: the new words; word k has the id `first_new` + k.
      first_new: the first of their ids.
    """

    chat = None

    def __init__(self, plain: Tokenizer, words: Sequence[str]) -> None:
        """Appends the words.

        Raises:
          UserError: if a word is empty or comes twice.
        """
        if len(set(words)) != len(words) or not all(words):
            raise UserError("new tokens: every word must be there once, and none empty")
        self.plain, self.words = plain, tuple(words)
        self.first_new = max(plain.vocab_size, plain.text_vocab_size)
        self.vocab_size = self.least_vocab_size = self.first_new + len(self.words)
        self.text_vocab_size = self.vocab_size
        self.pad_id, self.eos_id, self.unk_id = plain.pad_id, plain.eos_id, plain.unk_id
        self.bos_id, self.cls_id, self.dec_id = plain.bos_id, plain.cls_id, plain.dec_id
        self.stop_ids, self.space_leads = plain.stop_ids, plain.space_leads
        self.template: ChatTemplate | None = plain.template
        self.fingerprint = sha256_json([plain.fingerprint, "new tokens", self.words])
        self._ids = {word: self.first_new + k for k, word in enumerate(self.words)}
        # The longest first, so that no word hides one that it begins.
        alternatives = sorted(self.words, key=len, reverse=True)
        self._found = re.compile("|".join(map(re.escape, alternatives)))

    def __reduce__(self) -> tuple[Any, ...]:
        return ExtendedTokenizer, (self.plain, self.words)

    @property
    def specials(self) -> Mapping[str, Special]:
        """See `Tokenizer`."""
        return self.plain.specials

    @property
    def prefixes_after_special(self) -> bool:
        """See `Tokenizer`."""
        return self.plain.prefixes_after_special

    @functools.cached_property
    def word_begins(self) -> Bool[np.ndarray, " ids"]:
        """See `Tokenizer`; new words begin none, as they stand behind others."""
        begins = self.plain.word_begins
        return np.pad(begins, (0, self.vocab_size - len(begins)))

    def encode(self, text: str, *, continues: bool = False) -> list[int]:
        """See `Tokenizer.encode`."""
        ids: list[int] = []
        for start, end, new in self._parts(text):
            part = text[start:end]
            joined = continues or start > 0
            ids += [self._ids[part]] if new else self.plain.encode(part, continues=joined)
        return ids

    def encode_with_spans(
        self, text: str, *, continues: bool = False
    ) -> tuple[list[int], list[Span]]:
        """See `Tokenizer.encode_with_spans`."""
        ids: list[int] = []
        spans: list[Span] = []
        for start, end, new in self._parts(text):
            part, joined = text[start:end], continues or start > 0
            if new:
                found, places = [self._ids[part]], [(0, len(part))]
            else:
                found, places = self.plain.encode_with_spans(part, continues=joined)
            ids += found
            spans += [(first + start, last + start) for first, last in places]
        return ids, spans

    def decode(self, ids: Iterable[int], *, continues: bool = False) -> str:
        """See `Tokenizer.decode`."""
        text = ""
        run: list[int] = []
        for token in [*map(int, ids), None]:
            if token is not None and not 0 <= token - self.first_new < len(self.words):
                run.append(token)
                continue
            if run:
                text += self.plain.decode(run, continues=continues or bool(text))
                run = []
            text += "" if token is None else self.words[token - self.first_new]
        return text

    def save(self, path: str | os.PathLike) -> None:
        """Writes the tokenizer without the new words, and beside it a list of these."""
        self.plain.save(path)
        place = pathlib.Path(path)
        folder = place if place.is_dir() else place.parent
        with atomic_write(folder / FILE) as stream:
            said = {"first_id": self.first_new, "words": self.words}
            stream.write(json.dumps(said, ensure_ascii=False) + "\n")

    def _parts(self, text: str) -> Iterator[tuple[int, int, bool]]:
        """(start, end, whether it is a new word) of the parts of a text; the empty text has one."""
        end = 0
        for match in self._found.finditer(text):
            if match.start() > end:
                yield end, match.start(), False
            yield match.start(), match.end(), True
            end = match.end()
        if end < len(text) or not text:
            yield end, len(text), False


def extended(tokenizer: Tokenizer, words: Sequence[str]) -> Tokenizer:
    """The tokenizer with words appended; itself for none."""
    return _extended(cast(Hashable, tokenizer), tuple(words)) if words else tokenizer


# A thousand words make a large expression, and every stream of a run asks for the tokenizer.
@functools.lru_cache(maxsize=8)
def _extended(tokenizer: Tokenizer, words: tuple[str, ...]) -> ExtendedTokenizer:
    return ExtendedTokenizer(tokenizer, words)


def without_new_tokens(tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer of a language model's own words, for plain text."""
    plain = without_chat(tokenizer)
    return plain.plain if isinstance(plain, ExtendedTokenizer) else plain


def new_tokens(tokenizer: Tokenizer) -> tuple[int, tuple[str, ...]]:
    """(id of the first appended word, the words); (the number of ids, ()) without any."""
    plain = without_chat(tokenizer)
    if isinstance(plain, ExtendedTokenizer):
        return plain.first_new, plain.words
    return plain.vocab_size, ()


def record_of_new(tokenizer: Tokenizer) -> dict[str, Any]:
    """Appended words for a run's record: plain values; {} without any."""
    first, words = new_tokens(tokenizer)
    if not words:
        return {}
    return {"first_id": first, "count": len(words), "fingerprint": sha256_json(list(words))}
