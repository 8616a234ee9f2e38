"""Counts of titles and texts that a vocabulary cannot represent, before anything trains.

A character is lost where it becomes the unknown token, or no token at all. White space, control
and format characters do not count, nor does what a tokenizer folds (case, accents). Tokenizers
that fall back to bytes lose nothing, and may spell much: that share is counted too.
"""

import dataclasses
import unicodedata
from collections.abc import Iterable, Sequence

from ilm_jax.data.tokenizers.protocol import Tokenizer

# Characters that are looked at, at most: a second or two.
MOST = 1_000_000
_EMPTY = ("Zs", "Zl", "Zp", "Cc", "Cf", "Mn")


@dataclasses.dataclass(frozen=True)
class Losses:
    """Counts over some texts.

    Attributes:
      what: the kind of texts, such as "titles".
      texts, lossy: how many, and how many of them lose a character.
      characters, lost, spelled: how many, how many are lost, how many take two tokens or more.
      sample: a text that loses some.
      of: how many texts there are, of which `texts` were looked at.
    """

    what: str
    texts: int
    lossy: int
    characters: int
    lost: int
    spelled: int
    sample: str
    of: int

    def described(self) -> str:
        """One line."""
        part = "" if self.of == self.texts else f" (looked at {self.texts} of {self.of})"
        if self.lost:
            return (
                f"the vocabulary cannot say {self.lost / self.characters:.1%} of the characters of "
                f"{self.what}: {self.lossy} of {self.texts} lose some{part}, such as "
                f"{self.sample[:40]!r}; take a tokenizer of their language"
            )
        share = self.spelled / max(self.characters, 1)
        return f"the vocabulary says every character of {self.what}{part}; {share:.1%} by bytes"


def count(tokenizer: Tokenizer, texts: Sequence[str], what: str) -> Losses:
    """Counts what a tokenizer loses of texts; of many characters, in texts evenly chosen."""
    total = sum(map(len, texts))
    step = max(1, -(-total // MOST))
    chosen = texts[::step]
    lossy = lost = spelled = characters = 0
    sample = ""
    for text in chosen:
        countable = [place for place, letter in enumerate(text) if _counts(letter)]
        tokens = _tokens_of(tokenizer, text)
        gone = sum(tokens[place] == 0 for place in countable)
        characters += len(countable)
        spelled += sum(tokens[place] > 1 for place in countable)
        lost += gone
        lossy += bool(gone)
        sample = sample or (text if gone else "")
    return Losses(what, len(chosen), lossy, characters, lost, spelled, sample, len(texts))


def of_catalogue(tokenizer: Tokenizer, titles: Sequence[str], texts: Iterable[str]) -> list[Losses]:
    """Those of titles and of texts."""
    return [count(tokenizer, titles, "titles"), count(tokenizer, list(texts), "texts")]


def _counts(letter: str) -> bool:
    return (
        letter.isascii()
        and letter.isprintable()
        and letter != " "
        or (not letter.isascii() and unicodedata.category(letter) not in _EMPTY)
    )


def _tokens_of(tokenizer: Tokenizer, text: str) -> list[int]:
    """How many tokens each character has a part in; 0 if one of them is the unknown token."""
    ids, spans = tokenizer.encode_with_spans(text)
    found = [0] * len(text)
    unknown: set[int] = set()
    for token, (start, end) in zip(ids, spans, strict=True):
        if token == tokenizer.unk_id:
            unknown.update(range(start, end))
        for place in range(start, end):
            found[place] += 1
    # The mark of a word's beginning may share the span of an unknown letter.
    return [0 if place in unknown else number for place, number in enumerate(found)]
