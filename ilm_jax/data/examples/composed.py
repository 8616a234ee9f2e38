"""Targets composed from what is known of items: the default where nobody wrote any.

They are sentences around values (title, categories, tags, ratings, neighbours) and are marked as
such: source "metadata". No language model wrote them, and they say nothing new; they exercise a
pipeline, and let a model be tested on saying what its vectors know.
"""

import collections
import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from ilm_jax.data.catalogue.splits import TRAIN, Splits
from ilm_jax.data.formats.items import Spans, joined

SOURCE = "metadata"
LONGEST_VALUE = 60
Pieces = list[tuple[str, bool]]


@dataclasses.dataclass(frozen=True)
class Facts:
    """The facts that are known of an item.

    Attributes:
      title: its title.
      values: the short informative parts of its text, and its categories; none where only the
        title is known.
      opinion: of those who rated it in training, in words; "" without three ratings.
      choosers: how many chose it in training.
    """

    title: str
    values: tuple[str, ...]
    opinion: str
    choosers: int


class FactBook:
    """Facts of every item of a catalogue, from training interactions alone."""

    def __init__(self, splits: Splits) -> None:
        self._splits = splits
        catalogue = splits.catalogue
        self._counts = splits.train_counts()
        rated = splits.train_mask & np.isfinite(catalogue.ratings)
        items, ratings = catalogue.items[rated], catalogue.ratings[rated].astype(np.float64)
        self._ratings = np.bincount(items, minlength=catalogue.num_items)
        total = np.bincount(items, ratings, minlength=catalogue.num_items)
        self._mean = total / np.maximum(self._ratings, 1)

    def of(self, row: int) -> Facts:
        """The facts of an item."""
        catalogue = self._splits.catalogue
        text, title = catalogue.texts[row], catalogue.titles[row]
        spans = (text[start:end] for start, end in catalogue.content[row])
        values = [v for v in spans if len(v) <= LONGEST_VALUE and v not in title]
        values += [name for name in catalogue.categories[row] if name not in values]
        known = self._ratings[row] >= 3
        opinion = f"{self._mean[row]:.1f} on average" if known else ""
        return Facts(title, tuple(values), opinion, int(self._counts[row]))


def compose(task: str, facts: Sequence[Facts]) -> tuple[str, Spans]:
    """The target of a task of ELM for its items, and the spans that carry information."""
    one, *others = facts
    if not all(fact.values for fact in facts):
        return joined(_bare(facts))
    pieces = _TWO[task](one, others[0]) if others else _ONE[task](one)
    return joined(pieces)


def _bare(facts: Sequence[Facts]) -> Pieces:
    """Of items without values: what is known, instead of sentences that say the title twice."""
    pieces = _say("No more is on record than ", [fact.title for fact in facts], ".")
    return pieces if len(facts) > 1 else pieces + _rated(facts[0], " Rated ")


def _people(count: int, one: str, many: str) -> Pieces:
    return _say([str(count)], f" {one if count == 1 else many}")


def _say(*parts: str | Sequence[str]) -> Pieces:
    """Strings as they are; sequences as lists of values, which carry information."""
    pieces: Pieces = []
    for part in parts:
        if isinstance(part, str):
            pieces.append((part, False))
            continue
        for number, value in enumerate(part):
            last = number == len(part) - 1
            comma = "; " if any("," in value for value in part) else ", "
            lead = "" if not number else " and " if last and comma == ", " else comma
            pieces += [(lead, False), (value, True)]
    return pieces


def _rated(fact: Facts, before: str, after: str = ".") -> Pieces:
    return _say(before, [fact.opinion], after) if fact.opinion else []


def _version(how: str) -> Callable[[Facts], Pieces]:
    return lambda f: _say(
        f"A {how} ", [f.title], " would keep ", f.values, f", each {how} than now."
    )


_ONE: dict[str, Callable[[Facts], Pieces]] = {
    "summary": lambda f: _say([f.title], " in short: ", f.values, "."),
    "positive_review": lambda f: (
        _say("I liked ", [f.title], ": ", f.values, " are just right.")
        + _rated(f, " Others gave it ")
    ),
    "negative_review": lambda f: (
        _say([f.title], " was not for me: too much ", f.values, ".") + _rated(f, " Rated ")
    ),
    "neutral_review": lambda f: (
        _say([f.title], " offers ", f.values, ", for better and worse.") + _rated(f, " Rated ")
    ),
    "positive_characteristics": lambda f: _say("For it: ", f.values[:5], "."),
    "negative_characteristics": lambda f: _say("Against it: no more than ", f.values[:5], "."),
    "funnier": _version("funnier"),
    "sadder": _version("sadder"),
    "scarier": _version("scarier"),
    "improve": lambda f: _say([f.title], " could go further in ", f.values, "."),
    "viewer": lambda f: _say("Whoever looks for ", f.values, " will take to ", [f.title], "."),
    "pitch": lambda f: (
        _say("Fund ", [f.title], ", which brings ", f.values, " and has ")
        + [*_people(f.choosers, "taker", "takers"), *_say(" so far.")]
    ),
    "criticize": lambda f: _say([f.title], " leans on ", f.values, " and leaves the rest aside."),
    "convince_1": lambda f: _say("Take ", [f.title], " for ", f.values[:2], "."),
    "convince_2": lambda f: (
        _say("There are reasons for ", [f.title], ": ", f.values, ".")
        + [*_say(" Chosen "), *_people(f.choosers, "time", "times"), *_say(".")]
        + _rated(f, " Rated ")
    ),
    "convince_3": lambda f: (
        [*_say("So far "), *_people(f.choosers, "person", "people"), *_say(" chose ", [f.title])]
        + _rated(f, "; rated ", "")
        + _say(".")
    ),
    "dissuade_1": lambda f: _say("Skip ", [f.title], " if you tire of ", f.values[:2], "."),
    "dissuade_2": lambda f: (
        _say("Before you take ", [f.title], ", consider: it is all ", f.values, ".")
        + _rated(f, " Rated ")
    ),
}


def _shared(a: Facts, b: Facts) -> list[str]:
    return [value for value in a.values if value in b.values]


def _alike(a: Facts, b: Facts) -> Pieces:
    shared = _shared(a, b)
    if not shared:
        return _say([a.title], " and ", [b.title], " share nothing on record.")
    return _say([a.title], " and ", [b.title], " share ", shared, ".")


def _unlike(a: Facts, b: Facts) -> Pieces:
    mine = [value for value in a.values if value not in b.values] or [a.title]
    other = [value for value in b.values if value not in a.values] or [b.title]
    return _say([a.title], " has ", mine, ", where ", [b.title], " has ", other, ".")


_TWO: dict[str, Callable[[Facts, Facts], Pieces]] = {
    "similarities": _alike,
    "interpolation": lambda a, b: (
        _say("Between ", [a.title], " and ", [b.title], " lies something with ")
        + _say(list(dict.fromkeys([*a.values[:3], *b.values[:3]])), ".")
    ),
    "why_like_nn": lambda a, b: (
        _say("Those who like ", [a.title], " find ", _shared(a, b) or b.values, " in ")
        + _say([b.title], " too.")
    ),
    "diff_than_nn": _unlike,
    "common_with_nn": _alike,
}


def compose_profile(splits: Splits, user: int) -> tuple[str, Spans]:
    """A user's taste from training choices of training items; empty if there are none."""
    catalogue = splits.catalogue
    rows = [int(r) for r in splits.train_sequence(user) if splits.item_fold[r] == TRAIN]
    if not rows:
        return "", []
    counts = collections.Counter(name for row in rows for name in catalogue.categories[row])
    kinds = [name for name, _ in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:3]]
    latest = list(dict.fromkeys(catalogue.titles[row] for row in reversed(rows)))[:3]
    pieces = _say("Mostly into ", kinds, ". ") if kinds else []
    return joined([*pieces, *_say("Lately took ", latest, ".")])
