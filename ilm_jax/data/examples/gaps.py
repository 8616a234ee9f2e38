"""Texts with some of their words hidden, drawn by hash."""

import re
from collections.abc import Sequence

from ilm_jax.data import draws
from ilm_jax.data.catalogue.word_pattern import word

JOINS = ".'’-"


def words_of(text: str) -> list[re.Match[str]]:
    """The words of a text; what joins two parts of one is part of it."""
    return list(word(JOINS).finditer(text))


def with_gaps(
    text: str,
    content: Sequence[tuple[int, int]],
    share: float,
    keys: Sequence[draws.Key],
    gap: str,
) -> tuple[str, list[str]]:
    """(the text with gaps, the words that stood there in order); a pure function of the keys.

    Args:
      text: with a word at least.
      content: spans of it that carry information; words outside them, the same for every item, are
        hidden only where there is none inside.
      share: of the words that are hidden, one at least.
      keys: of the draw.
      gap: what takes a word's place.
    """
    words = words_of(text)
    telling = [w for w in words if any(s < w.end() and w.start() < e for s, e in content)]
    words = telling or words
    count = max(1, round(share * len(words)))
    order = sorted(range(len(words)), key=lambda k: draws.uniform(*keys, k))
    shown, end = "", 0
    hidden = [words[k] for k in sorted(order[:count])]
    for match in hidden:
        shown += text[end : match.start()] + gap
        end = match.end()
    return shown + text[end:], [match[0] for match in hidden]
