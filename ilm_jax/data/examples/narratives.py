"""Critiques and narratives of any corpus: published, from a file, or composed from metadata.

Which of them speaks for a purchase is decided in that order; every text says who wrote it. A
critique steers from one purchase to the next, so it exists where two neighbouring purchases are of
similar category (they share so many leading levels) and the later has something that the earlier
lacks.

A written text may tell what training may not know (see `telling`): `withheld` says which. Composed
ones are made from what training knows.
"""

import functools
from collections.abc import Iterable, Iterator

import numpy as np
from jaxtyping import Bool, Int

from ilm_jax.data import draws
from ilm_jax.data.catalogue.splits import Splits
from ilm_jax.data.examples import composed, telling
from ilm_jax.data.formats.items import Spans, joined
from ilm_jax.data.formats.text_records import read_texts
from ilm_jax.data.sources.regen import KINDS

ARITY = {**dict.fromkeys(KINDS, (1, True)), "user_summary": (0, True)}
INSTRUCTIONS = {
    "critique": "Somebody took the first item and then the second. Write the wish, in one short "
    "sentence and their words, that leads from the one to the other. Do not name the second.",
    "purchase_reason": "Say in two sentences why somebody with this history took the last item.",
    "endorsement": "Recommend the last item to somebody with this history, in three sentences.",
    "user_summary": "Describe the taste and needs of somebody with this history, in a paragraph.",
}
PUBLISHED, GENERATED = "published", "generated"
Text = tuple[str, Spans | None, str]


def instruction(kind: str, facts: list[str]) -> str:
    """What to ask a language model for a text: a paragraph of facts per item, oldest first."""
    lines = [f"Item {number}: {fact}" for number, fact in enumerate(facts, 1)]
    return "\n".join(
        [*lines, "", INSTRUCTIONS[kind], "Use these facts alone; answer with the text only."]
    )


class Narratives:
    """Texts about the purchases of one catalogue; all methods give None where there is none."""

    def __init__(
        self, splits: Splits, *, texts_file: str = "", similar: int = 1, seed: int = 0
    ) -> None:
        """Of these splits' catalogue.

        Args:
          splits: whose training purchases may be spoken of.
          texts_file: written ones, see `text_records`; "": the corpus' own, or composed.
          similar: leading category levels that two purchases share where a critique is composed.
          seed: of draws.
        """
        self.splits, self._path, self._similar, self._seed = splits, texts_file, similar, seed
        self._book = composed.FactBook(splits)
        self._untold: dict[str, dict[str, Int[np.ndarray, " texts"]]] = {}

    def about(self, kind: str, user: int, position: int) -> Text | None:
        """The critique, purchase_reason or endorsement of a purchase."""
        catalogue = self.splits.catalogue
        if kind == "critique" and not position:
            return None
        item = int(catalogue.sequence(user)[position])
        if self._path:
            key = (kind, catalogue.user_ids[user], (catalogue.item_ids[item],))
            found = self._file.get(key)
            return (found.target, None, found.source) if found else None
        if "regen" in catalogue.extras:
            text = self._published[kind].get((user, position))
            return (text, None, PUBLISHED) if text else None
        return self._composed(kind, user, position)

    def present(
        self,
        kind: str,
        users: Int[np.ndarray, " purchases"],
        positions: Int[np.ndarray, " purchases"],
    ) -> Bool[np.ndarray, " purchases"]:
        """For which purchases `about` gives a text; none is made."""
        catalogue = self.splits.catalogue
        entries = catalogue.offsets[users] + positions
        later = (positions > 0) | (kind != "critique")
        if self._path:
            return later & np.isin(self._numbers(users, positions), self._given(kind))
        known: Iterable[tuple[int, int]] | None = None
        if "regen" in catalogue.extras:
            known = (key for key, text in self._published[kind].items() if text)
        elif kind == "critique" and "critiques" in catalogue.extras:
            known = self._generated
        if known is not None:
            told = np.array([user << 32 | place for user, place in known], np.int64)
            return later & np.isin(np.asarray(users, np.int64) << 32 | positions, told)
        items = catalogue.items[entries].astype(np.int64)
        if kind != "critique":
            found, which = np.unique(items, return_inverse=True)
            given = [bool(self._book.of(row).values) for row in found.tolist()]
            return np.array(given, bool)[which]
        before = catalogue.items[np.maximum(entries - 1, 0)].astype(np.int64)
        pairs, which = np.unique(before * catalogue.num_items + items, return_inverse=True)
        firsts, seconds = np.divmod(pairs, catalogue.num_items)
        steers = map(self._wishes, firsts.tolist(), seconds.tolist())
        return later & np.array([bool(wishes) for wishes in steers], bool)[which]

    def withheld(
        self,
        kind: str,
        users: Int[np.ndarray, " purchases"],
        positions: Int[np.ndarray, " purchases"],
    ) -> dict[str, Bool[np.ndarray, " purchases"]]:
        """For which training purchases of training items the text does not train, by why.

        Empty where texts are composed.
        """
        if not self._path and "regen" not in self.splits.catalogue.extras:
            return {}
        if kind not in self._untold:
            told = self._written(kind)
            self._untold[kind] = telling.untold(self.splits, told, of_any=bool(self._path))
        numbers = self._numbers(users, positions)
        return {
            why: untold[np.searchsorted(untold[:-1], numbers)] == numbers
            for why, untold in self._untold[kind].items()
        }

    def may_train(
        self,
        kind: str,
        users: Int[np.ndarray, " purchases"],
        positions: Int[np.ndarray, " purchases"],
    ) -> Bool[np.ndarray, " purchases"]:
        """Whether nothing is `withheld` of these training purchases of training items."""
        masks = self.withheld(kind, users, positions).values()
        return ~np.logical_or.reduce([*masks, np.zeros(len(users), bool)])

    def _written(self, kind: str) -> Iterator[tuple[int, int, int, str]]:
        """(number, user, item, text) of the written texts of training purchases."""
        catalogue = self.splits.catalogue
        if not self._path:
            for (user, position), text in self._published[kind].items():
                sequence = self.splits.train_sequence(user)
                if text and position < len(sequence):
                    yield user << 32 | position, user, int(sequence[position]), text
            return
        for (told, raw, ids), written in self._file.items():
            if told == kind and raw in catalogue.user_row and ids[0] in catalogue.item_row:
                user, item = catalogue.user_row[raw], catalogue.item_row[ids[0]]
                if item in self.splits.train_sequence(user):
                    yield user * catalogue.num_items + item, user, item, written.target

    def _numbers(
        self, users: Int[np.ndarray, " purchases"], positions: Int[np.ndarray, " purchases"]
    ) -> Int[np.ndarray, " purchases"]:
        """What a written text is known by: user and item in a file, user and place as published."""
        catalogue, wide = self.splits.catalogue, np.asarray(users, np.int64)
        if not self._path:
            return wide << 32 | positions
        items = catalogue.items[catalogue.offsets[users] + positions]
        return wide * catalogue.num_items + items

    def _given(self, kind: str) -> Int[np.ndarray, " texts"]:
        """user * num_items + item of every text of the file of one kind."""
        catalogue = self.splits.catalogue
        user_row, item_row, count = catalogue.user_row, catalogue.item_row, catalogue.num_items
        return np.array(
            [
                user_row[user] * count + item_row[ids[0]]
                for told, user, ids in self._file
                if told == kind and user in user_row and ids[0] in item_row
            ],
            np.int64,
        )

    def summary(self, user: int) -> Text | None:
        """The user's summary, unless it tells what is held out: see `tells_of`."""
        if self.tells_of(user):
            return None
        return self._summary(user)

    def tells_of(self, user: int) -> bool:
        """Whether the user's summary is left out, in every split, for what it names.

        Published ones were written with the whole history at hand, the test item included.
        """
        text = self._summary(user)
        if text is None:
            return False
        if text[2] == composed.SOURCE:
            return telling.names_own(self.splits, user, text[0])
        return telling.tells(self.splits, user, text[0])

    def _summary(self, user: int) -> Text | None:
        catalogue = self.splits.catalogue
        if self._path:
            found = self._file.get(("user_summary", catalogue.user_ids[user], ()))
            return (found.target, None, found.source) if found else None
        if "regen" in catalogue.extras:
            found_text = self._published_summaries.get(user)
            return (found_text, None, PUBLISHED) if found_text else None
        words, spans = composed.compose_profile(self.splits, user)
        return (words, spans, composed.SOURCE) if words else None

    @functools.cached_property
    def _file(self) -> dict:
        return read_texts(self._path, ARITY)

    @functools.cached_property
    def _published(self) -> dict[str, dict[tuple[int, int], str]]:
        found = self.splits.catalogue.extras["regen"]
        return {kind: {(u, p): text for u, p, text in found.get(kind, [])} for kind in KINDS}

    @functools.cached_property
    def _published_summaries(self) -> dict[int, str]:
        return dict(map(tuple, self.splits.catalogue.extras["regen"].get("user_summary", [])))

    @functools.cached_property
    def _generated(self) -> dict[tuple[int, int], str]:
        """Critiques of a generated world: what the user asks for is known."""
        extras = self.splits.catalogue.extras
        fields = list(extras["fields"].items())
        return {
            (user, position): f"{fields[field][1][word]} {fields[field][0]}"
            for user, position, field, word in extras["critiques"]
        }

    def _composed(self, kind: str, user: int, position: int) -> Text | None:
        catalogue = self.splits.catalogue
        sequence = catalogue.sequence(user)
        item = int(sequence[position])
        facts = self._book.of(item)
        if kind == "critique":
            if "critiques" in catalogue.extras:
                wish = self._generated.get((user, position))
                pieces = [("I would like more of ", False), (wish or "", True), (".", False)]
                return (*joined(pieces), GENERATED) if wish else None
            return self._critique(user, position, int(sequence[position - 1]), item)
        if kind == "purchase_reason":
            before = {name for row in sequence[:position] for name in catalogue.categories[row]}
            if not facts.values:
                return None
            kept = [name for name in catalogue.categories[item] if name in before]
            pieces = [("Chosen for ", False), *_listed(facts.values[:3])]
            if kept:
                pieces += [(", like earlier choices from ", False), *_listed(kept[-1:])]
            return (*joined([*pieces, (".", False)]), composed.SOURCE)
        if not facts.values:
            return None
        pieces = [(facts.title, True), (" offers ", False), *_listed(facts.values[:4])]
        if facts.opinion:
            pieces += [("; rated ", False), (facts.opinion, True)]
        return (*joined([*pieces, (".", False)]), composed.SOURCE)

    def _wishes(self, before: int, item: int) -> list[str]:
        """What an item has that the similar one before it lacks."""
        catalogue, levels = self.splits.catalogue, self._similar
        first, second = catalogue.categories[before], catalogue.categories[item]
        if before == item or first[:levels] != second[:levels] or len(second) < levels:
            return []
        known = set(self._book.of(before).values)
        return [value for value in self._book.of(item).values if value not in known]

    def _critique(self, user: int, position: int, before: int, item: int) -> Text | None:
        catalogue = self.splits.catalogue
        new = self._wishes(before, item)
        if not new:
            return None
        keys: tuple[str | int, ...] = (self._seed, "critique", catalogue.user_ids[user], position)
        wish = new[draws.integer(len(new), *keys)]
        return (
            *joined([("Similar, but ", False), (wish, True), (", please.", False)]),
            composed.SOURCE,
        )


def _listed(values: Iterable[str]) -> list[tuple[str, bool]]:
    pieces: list[tuple[str, bool]] = []
    for value in values:
        pieces += [*([(", ", False)] if pieces else []), (value, True)]
    return pieces
