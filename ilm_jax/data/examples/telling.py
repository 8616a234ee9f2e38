"""Whether a written text tells what training may not know: the titles of what is held out.

Whoever wrote about a user or an item may have had everything at hand. A text does not train

- if it names what its own user has and training may not know: held-back interactions and held-out
  items; in capital or small letters, and be it inside other words;
- if it names, word for word, any held-out item of the catalogue. Left aside are titles that are no
  name, for training says them too: in titles of training items, or in small letters in their texts
  ("it", "the game").

Titles are looked up by their rarest words: what a text costs hardly depends on how many there are.
"""

import collections
import re
import unicodedata
import weakref
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from jaxtyping import Int64

from ilm_jax.data.catalogue.splits import TRAIN, Splits

# Training items' texts in which titles that are no name are looked for: of more, an even part.
MOST_TEXTS = 1 << 15
# Characters of scripts that put no space between words (Thai, Lao, Burmese, Khmer, kana, Chinese):
# each is a word of its own.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\U00020000-\U0003ffff"
_WORD = re.compile(f"[{_UNSPACED}]|[^\\W_{_UNSPACED}]+")

# Why a written text does not train: what it names; or that nobody knows which purchase it is about,
# the user having the item again among the held-back ones.
TELLS, AGAIN = "texts_that_name_what_is_held_out", "texts_of_items_that_come_again_held_back"


def _words(text: str) -> list[str]:
    """The words of a text, as it writes them."""
    return _WORD.findall(text if text.isascii() else unicodedata.normalize("NFKC", text))


class HeldOutTitles:
    """The titles of a catalogue's held-out items, as texts are searched for them."""

    def __init__(self, splits: Splits) -> None:
        """Of this split; it is not kept."""
        catalogue = splits.catalogue
        # By a title's two rarest words, which most texts do not have.
        self._at: dict[str, dict[str, set[str]]] = {}
        held_out = np.flatnonzero(splits.item_fold != TRAIN).tolist()
        titles = {tuple(_words(catalogue.titles[row].casefold())) for row in held_out} - {()}
        if not titles:
            return
        known = splits.items_in(TRAIN)
        counts = collections.Counter(word for title in titles for word in title)
        for row in known.tolist():
            counts.update(_words(catalogue.titles[row].casefold()))
        for title in titles:
            rarest, *others = sorted(set(title), key=lambda word: (counts[word], word))
            by_second = self._at.setdefault(rarest, {})
            by_second.setdefault(others[0] if others else rarest, set()).add(_joined(title))
        no_names: set[str] = set()
        for row in known.tolist():
            no_names.update(self._found(_words(catalogue.titles[row].casefold())))
        for row in known[:: max(1, len(known) // MOST_TEXTS)].tolist():
            no_names.update(self._found(_words(catalogue.texts[row])))
        for by_second in self._at.values():
            for found in by_second.values():
                found -= no_names

    def named_in(self, text: str) -> bool:
        """Whether a text names one of the items."""
        return next(self._found(_words(text.casefold())), None) is not None

    def _found(self, words: Sequence[str]) -> Iterator[str]:
        """The titles that stand in a text of these words."""
        there, said = set(words), _joined(words)
        for rarest in self._at.keys() & there:
            by_second = self._at[rarest]
            for second in by_second.keys() & there:
                yield from (title for title in by_second[second] if title in said)


def _joined(words: Sequence[str]) -> str:
    """Words as one string, in which one stands alone or not at all."""
    return f" {' '.join(words)} "


# Every task of a catalogue that has written texts asks for them.
_titles: weakref.WeakKeyDictionary[Splits, HeldOutTitles] = weakref.WeakKeyDictionary()


def names_held_out(splits: Splits, text: str) -> bool:
    """Whether a text names a held-out item of the catalogue."""
    if splits not in _titles:
        _titles[splits] = HeldOutTitles(splits)
    return _titles[splits].named_in(text)


def names_own(splits: Splits, user: int, text: str, about: str = "") -> bool:
    """Whether a text names a held-back interaction, or a held-out item, of its user.

    Args:
      splits: of the catalogue.
      user: row of whom the text is about.
      text: what was written.
      about: title of the item that it is about, which it may name.
    """
    titles, sequence = splits.catalogue.titles, splits.catalogue.sequence(user)
    hidden = set(sequence[len(splits.train_sequence(user)) :].tolist())
    hidden |= {int(row) for row in sequence if splits.item_fold[row] != TRAIN}
    names = {titles[row].lower() for row in hidden} - {"", about.lower()}
    said = text.lower()
    return any(name in said for name in names)


def tells(splits: Splits, user: int, text: str, about: str = "") -> bool:
    """Whether a written text about a user says what training may not know; as `names_own`."""
    return names_own(splits, user, text, about) or names_held_out(splits, text)


def untold(
    splits: Splits, written: Iterable[tuple[int, int, int, str]], *, of_any: bool
) -> dict[str, Int64[np.ndarray, " texts"]]:
    """Numbers of the texts about purchases that do not train, by why; ascending, then a -1.

    Args:
      splits: of the catalogue.
      written: (number, user, item, text) of training purchases.
      of_any: whether a text may be about any of the user's purchases of the item.
    """
    found: dict[str, list[int]] = {TELLS: [], AGAIN: []}
    for number, user, item, text in written:
        if splits.item_fold[item] != TRAIN:
            continue
        held_back = splits.catalogue.sequence(user)[len(splits.train_sequence(user)) :]
        if of_any and item in held_back:
            found[AGAIN].append(number)
        elif tells(splits, user, text, splits.catalogue.titles[item]):
            found[TELLS].append(number)
    return {why: np.array([*sorted(numbers), -1], np.int64) for why, numbers in found.items()}
