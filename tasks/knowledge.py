"""Recommendation knowledge in words (Cao et al. 2024): users dropped, titles in.

Auxiliary tasks write classic operations as questions (masked items, masked words, one of two
items), three are the recommendation tasks themselves (retrieval, ranking, rating). The paper's
templates and sizes are not public: these are ours.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ilm_jax.data import draws
from ilm_jax.data.examples.candidates import draw_candidates, read_candidates, targets_of
from ilm_jax.data.examples.example import Example
from ilm_jax.data.examples.memo import Memo
from ilm_jax.data.examples.negatives import draw_negatives
from ilm_jax.data.examples.prompts import Segment, rating_words
from ilm_jax.data.examples.task_families import TaskFamily
from ilm_jax.data.examples.task_settings import TaskSettings
from ilm_jax.data.examples.task_specs import (
    INDEX,
    PROMPT_FEATURES,
    RANKING,
    RENDERING,
    TaskSpec,
)
from ilm_jax.tasks.histories import HistoryTask, Mentions, Spans, target_positions
from ilm_jax.tasks.knowledge_settings import GAP, KnowledgeSettings
from ilm_jax.tasks.knowledge_words import MaskedWords, MaskedWordsOfItem

Rows = int | np.ndarray


class _Knowledge(HistoryTask):
    @functools.cached_property
    def own(self) -> KnowledgeSettings:
        """The family's settings."""
        return self.settings.of(KnowledgeSettings)

    def keys(self, user: int, position: int, variant: int) -> tuple[draws.Key, ...]:
        """Of draws for one example."""
        raw = self.splits.catalogue.user_ids[user]
        return (self.settings.seed, self.spec.version, self.spec.task, raw, position, variant)


class Retrieval(_Knowledge):
    """History in, the next item's title out, of the whole catalogue."""

    wording = (
        "A {dataset} customer chose{history}. The next choice:",
        "From {dataset}, oldest first:{history}. What follows is",
        "Whoever takes{history} from {dataset} goes on to take",
    )


class MaskedItem(_Knowledge):
    """A stretch of training choices with one hidden; in evaluation the hidden one is the last."""

    wording = (
        "One choice of this {dataset} customer is hidden:{history}. The hidden one is",
        "Fill the gap in the list of {dataset} choices{history}. In the gap:",
        "{dataset}, oldest first, one item left out:{history}. Left out:",
    )

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


class OneOfTwo(_Knowledge):
    """The pairwise comparison of BPR (Rendle et al. 2009) as a question."""

    wording = (
        "A {dataset} customer chose{history}. Rather {first} or {second}? Rather",
        "After{history}, one of two {dataset} items comes next, {first} or {second}. It is",
        "Given{history}, the better {dataset} suggestion is {first}, or else {second}. Better:",
    )

    def mentions(self, split: str, user: int, position: int, variant: int) -> Mentions:
        """The chosen item and one that is not the user's, in a drawn order."""
        keys = self.keys(user, position, variant)
        held_out = self.own.negatives_may_be_held_out
        (other,) = draw_negatives(self.splits, user, 1, *keys, may_be_held_out=held_out)
        two = [int(self.splits.catalogue.sequence(user)[position]), other]
        if draws.integer(2, *keys, "order"):
            two.reverse()
        return {"first": self.item(two[0]), "second": self.item(two[1])}


class Ranking(_Knowledge):
    """History and candidates in, the next item's title out."""

    wording = (
        "A {dataset} customer chose{history}. Candidates: {candidates}. The one to show first:",
        "History on {dataset}:{history}. Pick the next item among {candidates}. Pick:",
        "Behind{history} on {dataset}, which of {candidates} fits best? Best:",
    )

    def index(self, split: str) -> dict[str, np.ndarray]:
        """As the other tasks; a file of candidates is read, and refused, before any example."""
        self._given  # noqa: B018
        return super().index(split)

    @functools.cached_property
    def _given(self) -> dict[tuple[str, int], list[int]]:
        if not self.own.candidates_file:
            return {}
        return read_candidates(self.own.candidates_file, self.splits, targets_of(self.splits))

    def candidates(self, split: str, user: int, position: int, variant: int) -> list[int]:
        """Item rows in the order in which the prompt names them."""
        if split != "train" and self._given:
            return self._given[split, user]
        # The prompt names them, and then the features do.
        asked = (user, position, variant)
        found = self._drawn.get(asked)
        if found is None:
            found = self._drawn[asked] = self._draw(user, position, variant)
        return found

    @functools.cached_property
    def _drawn(self) -> Memo[tuple[int, int, int], list[int]]:
        return Memo(64)

    def _draw(self, user: int, position: int, variant: int) -> list[int]:
        return draw_candidates(
            self.splits,
            user,
            self.target(user, position),
            self.own.candidates,
            *self.keys(user, position, variant),
            may_be_held_out=self.own.negatives_may_be_held_out,
        )

    def mentions(self, split: str, user: int, position: int, variant: int) -> Mentions:
        """The candidates, set apart by semicolons."""
        segments: list[Segment] = []
        for row in self.candidates(split, user, position, variant):
            segments += [*([Segment(0, "; ")] if segments else []), *self.item(row)]
        return {"candidates": segments}

    def build(self, split: str, **integers: int) -> Example:
        """The example's features, and the rows of its candidates."""
        features = super().build(split, **integers)
        return features | {"candidates": self.candidates(split, **integers)}


class Rating(_Knowledge):
    """History with ratings and an item in, its rating out; empty where nothing is rated."""

    wording = (
        "Ratings by a {dataset} customer:{history}. For {item} the rating is",
        "{dataset} stars so far:{history}. Stars for {item}:",
        "Someone rated{history} on {dataset}. How will {item} be rated? With",
    )

    def index(self, split: str) -> dict[str, np.ndarray]:
        """As the other tasks, where the interaction has a rating."""
        users, positions = target_positions(self.splits, split)
        rated = np.isfinite(self.splits.catalogue.ratings[self._entries(users, positions)])
        return self.with_variants(split, user=users[rated], position=positions[rated])

    def _entries(self, users: Rows, positions: Rows) -> Rows:
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

    def answer(self, user: int, position: int) -> tuple[str, Spans | None, str]:
        """The rating as a number."""
        return self._stars(user, position), None, ""


def _as_mentioned(settings: TaskSettings) -> Mapping[str, Any]:
    own = settings.of(KnowledgeSettings)
    return {"mention_user": "none", "mention_history": own.mention, "target": own.answer}


def _history_and(items: int) -> Callable[[TaskSettings], Sequence[tuple[str, int]]]:
    return lambda settings: [(settings.mention_history, settings.history + items)]


def _spec(task: str, what: str, *reads: str, **more: Any) -> TaskSpec:
    """A task whose prompts name items as these settings say."""
    own = tuple(f"knowledge.{name}" for name in ("mention", "answer", *reads))
    return TaskSpec(
        family="knowledge",
        task=task,
        version=2,
        what=f"{what} | Cao et al.",
        settings=("history", *INDEX, *RENDERING, *own),
        fixes=_as_mentioned,
        **more,
    )


_HELD_OUT = "negatives_may_be_held_out"
FAMILY = TaskFamily(
    "knowledge",
    (
        _spec(
            "mim",
            "choices with one hidden | its title",
            make=MaskedItem,
            answer="items",
            metrics=RANKING,
            mentions=_history_and(0),
        ),
        TaskSpec(
            family="knowledge",
            task="mlm",
            version=2,
            make=MaskedWords,
            answer="text",
            metrics=("nll",),
            settings=(*RENDERING, "knowledge.mask_share"),
            what="an item's text with gaps | the missing words | Cao et al.",
        ),
        TaskSpec(
            family="knowledge",
            task="mlm_item",
            version=1,
            make=MaskedWordsOfItem,
            answer="text",
            metrics=("nll",),
            settings=(*INDEX, *RENDERING, "knowledge.mention", "knowledge.mask_share"),
            fixes=_as_mentioned,
            mentions=lambda settings: [(settings.mention_history, 1)],
            what="an item, its text with gaps | the missing words | Cao et al., ours",
        ),
        _spec(
            "bpr",
            "history, two items | the chosen one's title",
            _HELD_OUT,
            make=OneOfTwo,
            answer="text",
            metrics=("exact_match",),
            mentions=_history_and(2),
        ),
        _spec(
            "retrieval",
            "history in titles | title of the next item",
            make=Retrieval,
            answer="items",
            metrics=RANKING,
            mentions=_history_and(0),
        ),
        _spec(
            "ranking",
            "history, candidates | title of the next item",
            _HELD_OUT,
            "candidates",
            "candidates_file",
            make=Ranking,
            answer="items",
            metrics=RANKING,
            mentions=lambda settings: _history_and(settings.of(KnowledgeSettings).candidates)(
                settings
            ),
            features=(*PROMPT_FEATURES, ("candidates", "ints")),
        ),
        _spec(
            "rating",
            "history with ratings, an item | its rating",
            make=Rating,
            answer="rating",
            metrics=("rmse", "mae"),
            mentions=_history_and(1),
        ),
    ),
    KnowledgeSettings,
    mixtures={
        "knowledge": ("mim", "mlm", "bpr", "retrieval", "ranking", "rating"),
        "knowledge_auxiliary": ("mim", "mlm", "bpr"),
        "knowledge_recommendation": ("retrieval", "ranking", "rating"),
    },
)
