"""The words of a text in any script, for metrics that compare texts word by word.

A word is a run of letters, their marks and digits, case aside: on ASCII text exactly what
rouge-score's own tokenizer gives. Scripts that put no spaces between words (Thai, Lao, Khmer,
Burmese, Han, kana, …) are cut into characters as readers see them (grapheme clusters), because
words cannot be told there without a dictionary. Composed and decomposed Unicode are the same (NFC).
"""

import functools
import importlib
import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import regex

# Of these scripts' letters each is a word. Korean and Tibetan set words or syllables apart.
SPACELESS = (
    "Han",
    "Hiragana",
    "Katakana",
    "Bopomofo",
    "Yi",
    "Thai",
    "Lao",
    "Khmer",
    "Myanmar",
    "Tai_Le",
    "New_Tai_Lue",
    "Tai_Tham",
    "Tai_Viet",
    "Ahom",
    "Javanese",
    "Balinese",
)
NAME = "letters and digits of any script, by character where no spaces part words; no case; NFC"


def same_form(text: str) -> str:
    """The text in NFC, so that "é" is one thing however it was typed."""
    return unicodedata.normalize("NFC", text)


def folded(text: str) -> str:
    """The text without case, in NFC; on ASCII text this is `lower`."""
    return same_form(same_form(text).casefold())


def words(text: str) -> list[str]:
    """Words in order, without case; empty for a text of signs alone."""
    found: list[str] = []
    # What cannot be seen (joiners, direction marks) is no part of a word.
    for run in _patterns()["word"].findall(_patterns()["unseen"].sub("", folded(text))):
        found += [run] if run.isascii() else _cut(run)
    return found


def signs(text: str) -> list[str]:
    """Every character that is no space: the "words" of a text that has none, such as "★★★"."""
    return [c for c in _patterns()["character"].findall(folded(text)) if not c.isspace()]


def spaced(text: str) -> str:
    """The text in NFC with spaces around the characters of scripts without them."""
    if text.isascii():
        return text
    pattern = _patterns()["word"]
    return str(pattern.sub(lambda run: _apart(run[0]), same_form(text)))


def _apart(run: str) -> str:
    cut = _cut(run)
    return f" {' '.join(cut)} " if len(cut) > 1 or _is_spaceless(run) else run


def _cut(run: str) -> list[str]:
    """A run of letters in words: characters of scripts without spaces stand alone."""
    found: list[str] = []
    joined = False
    for character in _patterns()["character"].findall(run):
        if _is_spaceless(character):
            found.append(character)
            joined = False
        elif joined:
            found[-1] += character
        else:
            found.append(character)
            joined = True
    return found


def _is_spaceless(text: str) -> bool:
    return bool(_patterns()["spaceless"].match(text))


@functools.cache
def _patterns() -> dict[str, "regex.Pattern[str]"]:
    # Comes with sacrebleu and with rouge-score's nltk; nobody else asks for words.
    regex = importlib.import_module("regex")
    scripts = "".join(rf"\p{{scx={name}}}" for name in SPACELESS)
    return {
        "word": regex.compile(r"[\p{L}\p{M}\p{N}]+"),
        "unseen": regex.compile(r"\p{Cf}"),
        "character": regex.compile(r"\X"),
        "spaceless": regex.compile(f"[{scripts}]"),
    }
