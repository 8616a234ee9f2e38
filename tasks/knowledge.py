"""Recommendation knowledge in words (Cao et al. 2024): users dropped, titles in.

Three auxiliary tasks write classic operations as questions (masked items, masked words, one of two
items), three are the recommendation tasks themselves (retrieval, ranking, rating). The paper's
templates and sizes are not public: these are ours.
"""

import functools
from typing import Any

import numpy as np

from ilm_jax.data import draws
from ilm_jax.data.catalogue.splits import FOLDS, Splits
from ilm_jax.data.catalogue.word_pattern import word
from ilm_jax.data.examples import templates
from ilm_jax.data.examples.negatives import draw_negatives, read_candidates
from ilm_jax.data.examples.prompts import Segment, rating_words
from ilm_jax.data.examples.task_settings import TaskSettings
from ilm_jax.data.examples.task_specs import TaskSpec
from ilm_jax.data.tokenizers import Tokenizer
from ilm_jax.tasks.openp5 import target_positions
from ilm_jax.tasks.prompted import Prompted, PromptTask

GAP = "___"
Mentions = dict[str, list[Segment]]


class _FromHistory(PromptTask):
    """A task that asks about the item at a position of a user's sequence."""

    def index(self, split: str) -> dict[str, np.ndarray]:
        """User row, position of the item asked for, and variant."""
        users, positions = target_positions(self.splits, split)
        return self.with_variants(split, user=users, position=positions)

    def truncations(self, split: str) -> dict[str, int]:
        """How many examples have more history than the setting keeps."""
        return {"history": int(np.sum(self.index(split)["position"] > self.settings.history))}

    def render(self, split: str, user: int, position: int, variant: int) -> Prompted:
        """The example in words."""
        catalogue = self.splits.catalogue
        raw, target = catalogue.user_ids[user], int(catalogue.sequence(user)[position])
        wording = templates.KNOWLEDGE[self.spec.task]
        template = self.template(len(wording), split, variant, raw, position)
        mentions = self.mentions(split, user, position, variant)
        prompt = self.renderer.fill(wording[template], mentions, self.elements(user, position))
        return Prompted(
            key=f"{raw}@{position}#{variant}", user=raw, template=f"{self.spec.task}/{template}",
            prompt=prompt, target_text=self.answer(user, position), target_item=target,
        )  # fmt: skip

    def elements(self, user: int, position: int) -> list[list[Segment]]:
        """The history before the position."""
        sequence = self.splits.catalogue.sequence(user)
        return self.renderer.history(
            sequence[max(0, position - self.settings.history) : position].tolist()
        )

    def mentions(self, split: str, user: int, position: int, variant: int) -> Mentions:
        """What the template names beside the history."""
        return {}

    def answer(self, user: int, position: int) -> str:
        """The item's words."""
        return self.renderer.target(int(self.splits.catalogue.sequence(user)[position]))

    def item(self, row: int) -> list[Segment]:
        """An item as the setting mentions it; without words if it is held out."""
        mention = self.renderer.history_mention
        return self.renderer.mention_item(row, mention, not self.renderer.held_out(row))

    def keys(self, user: int, position: int, variant: int) -> tuple[draws.Key, ...]:
        """Of draws for one example."""
        raw = self.splits.catalogue.user_ids[user]
        return (self.settings.seed, self.spec.version, self.spec.task, raw, position, variant)


class Retrieval(_FromHistory):
    """History in, the next item's title out, of the whole catalogue."""


class MaskedItem(_FromHistory):
    """A stretch of training choices with one hidden; in evaluation the hidden one is the last."""

    def elements(self, user: int, position: int) -> list[list[Segment]]:
        """The choices around the position, which shows a gap; no held-out ones among them."""
        sequence = self.splits.catalogue.sequence(user)
        known = len(self.splits.train_sequence(user))
        after = sequence[position + 1 : known][: self.settings.history // 2]
        before = sequence[max(0, position - self.settings.history + len(after)) : position]
        # The gap takes the place of an element: the last one has no comma behind it.
        rows = [*before.tolist(), int(sequence[position]), *after.tolist()]
        elements = self.renderer.history(rows)
        comma = "," if len(after) else ""
        elements[len(before)] = [Segment(0, f" {GAP}{comma}")]
        return elements


class OneOfTwo(_FromHistory):
    """The pairwise comparison of BPR (Rendle et al. 2009) as a question."""

    def mentions(self, split: str, user: int, position: int, variant: int) -> Mentions:
        """The chosen item and one that is not the user's, in a drawn order."""
        keys = self.keys(user, position, variant)
        held_out = self.settings.negatives_may_be_held_out
        (other,) = draw_negatives(self.splits, user, 1, *keys, may_be_held_out=held_out)
        two = [int(self.splits.catalogue.sequence(user)[position]), other]
        if draws.integer(2, *keys, "order"):
            two.reverse()
        return {"first": self.item(two[0]), "second": self.item(two[1])}


class Ranking(_FromHistory):
    """History and candidates in, the next item's title out."""

    @functools.cached_property
    def _given(self) -> dict[tuple[str, int], list[int]]:
        if not self.settings.candidates_file:
            return {}
        targets = {}
        for split in ("validation", "test"):
            users, positions = target_positions(self.splits, split)
            for user, position in zip(users.tolist(), positions.tolist(), strict=True):
                item = int(self.splits.catalogue.sequence(user)[position])
                targets[split, user] = item
        return read_candidates(self.settings.candidates_file, self.splits, targets)

    def candidates(self, split: str, user: int, position: int, variant: int) -> list[int]:
        """Item rows in the order in which the prompt names them."""
        if split != "train" and self._given:
            return self._given[split, user]
        keys = self.keys(user, position, variant)
        others = draw_negatives(
            self.splits, user, self.settings.candidates - 1, *keys,
            may_be_held_out=self.settings.negatives_may_be_held_out,
        )  # fmt: skip
        rows = [int(self.splits.catalogue.sequence(user)[position]), *others]
        return sorted(rows, key=lambda row: draws.uniform(*keys, "place", row))

    def mentions(self, split: str, user: int, position: int, variant: int) -> Mentions:
        """The candidates, set apart by semicolons."""
        segments: list[Segment] = []
        for row in self.candidates(split, user, position, variant):
            segments += [*([Segment(0, "; ")] if segments else []), *self.item(row)]
        return {"candidates": segments}

    def build(self, split: str, **integers: int) -> dict[str, Any]:
        """The example's features, and the rows of its candidates."""
        features = super().build(split, **integers)
        return features | {"candidates": self.candidates(split, **integers)}


class Rating(_FromHistory):
    """History with ratings and an item in, its rating out; empty where nothing is rated."""

    def index(self, split: str) -> dict[str, np.ndarray]:
        """As the other tasks, where the interaction has a rating."""
        users, positions = target_positions(self.splits, split)
        rated = np.isfinite(self.splits.catalogue.ratings[self._entries(users, positions)])
        return self.with_variants(split, user=users[rated], position=positions[rated])

    def _entries(self, users: Any, positions: Any) -> Any:
        return self.splits.catalogue.offsets[users] + positions

    def _stars(self, user: int, position: int) -> str:
        return rating_words(float(self.splits.catalogue.ratings[self._entries(user, position)]))

    def elements(self, user: int, position: int) -> list[list[Segment]]:
        """The history before the position, each item with its rating."""
        first = max(0, position - self.settings.history)
        sequence = self.splits.catalogue.sequence(user)
        elements = []
        for place in range(first, position):
            comma = "" if place == position - 1 else ","
            stars = Segment(0, f" ({self._stars(user, place)}){comma}")
            elements.append([Segment(0, " "), *self.item(int(sequence[place])), stars])
        return elements

    def mentions(self, split: str, user: int, position: int, variant: int) -> Mentions:
        """The item that is asked about."""
        return {"item": self.item(int(self.splits.catalogue.sequence(user)[position]))}

    def answer(self, user: int, position: int) -> str:
        """The rating as a number."""
        return self._stars(user, position)


JOINS = ".'’-"


class MaskedWords(PromptTask):
    """An item's text with gaps in, the missing words out."""

    def index(self, split: str) -> dict[str, np.ndarray]:
        """Item rows of the split's fold whose text has two words, and variant."""
        texts = self.splits.catalogue.texts
        rows = [
            r for r in self.splits.items_in(FOLDS[split]) if len(word(JOINS).findall(texts[r])) > 1
        ]
        return self.with_variants(split, row=np.array(rows, np.int32))

    def render(self, split: str, row: int, variant: int) -> Prompted:
        """The example in words."""
        catalogue = self.splits.catalogue
        raw, text = catalogue.item_ids[row], catalogue.texts[row]
        words = list(word(JOINS).finditer(text))
        # The words around what is told are the same for every item.
        spans = catalogue.content[row]
        telling = [w for w in words if any(s < w.end() and w.start() < e for s, e in spans)]
        words = telling or words
        keys = (self.settings.seed, self.spec.version, self.spec.task, raw, variant)
        count = max(1, round(self.settings.mask_share * len(words)))
        order = sorted(range(len(words)), key=lambda k: draws.uniform(*keys, k))
        hidden = sorted(order[:count])
        shown, end = "", 0
        for k in hidden:
            shown += text[end : words[k].start()] + GAP
            end = words[k].end()
        wording = templates.KNOWLEDGE[self.spec.task]
        template = self.template(len(wording), split, variant, raw)
        mentions = {"text": [Segment(0, shown + text[end:])]}
        return Prompted(
            key=f"{raw}#{variant}", user="", template=f"{self.spec.task}/{template}",
            prompt=self.renderer.fill(wording[template], mentions),
            target_text=" ".join(words[k][0] for k in hidden), target_item=row,
        )  # fmt: skip


KINDS: dict[str, type[PromptTask]] = {
    "mim": MaskedItem, "mlm": MaskedWords, "bpr": OneOfTwo, "retrieval": Retrieval,
    "ranking": Ranking, "rating": Rating,
}  # fmt: skip


def make(
    spec: TaskSpec, splits: Splits, settings: TaskSettings, tokenizer: Tokenizer | None
) -> PromptTask:
    """The task of this spec; without a tokenizer it only renders."""
    return KINDS[spec.task](splits, settings, tokenizer, spec)
