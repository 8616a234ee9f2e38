"""REGEN's tasks (Su et al. 2025): the next item with or without a critique, and narratives.

The joint task answers with the item and a reason in one text. A training example never speaks of a
held-out item: its critique and narrative would carry the item's words. Written texts that name what
is held out do not train, and are counted.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from ilm_jax.checks import Count, InputFile, check
from ilm_jax.data.catalogue.splits import item_folds
from ilm_jax.data.examples.narratives import Narratives
from ilm_jax.data.examples.prompts import Segment
from ilm_jax.data.examples.task_families import TaskFamily
from ilm_jax.data.examples.task_settings import SPLITS, TaskSettings
from ilm_jax.data.examples.task_specs import (
    LANGUAGE,
    NEXT_ITEM,
    RANKING,
    WRITTEN_FEATURES,
    TaskSpec,
)
from ilm_jax.data.examples.telling import TELLS
from ilm_jax.tasks.histories import HistoryTask, Mentions, Spans, told_positions, withheld
from ilm_jax.tasks.prompted import Prompted, PromptTask


@dataclasses.dataclass(frozen=True)
class RegenSettings:
    """Settings of these tasks alone.

    Attributes:
      texts_file: written critiques and narratives (see `narratives`); "": the corpus' own, or
        composed ones.
      similar: leading category levels that two neighbouring purchases share where a critique is
        composed.

    Raises:
      SettingError: for a value that makes no sense.
    """

    texts_file: InputFile = ""
    similar: Count = 1

    def __post_init__(self) -> None:
        check(self)


class Regen(PromptTask):
    """A task that reads critiques and narratives."""

    @functools.cached_property
    def texts(self) -> Narratives:
        """Critiques and narratives of the catalogue."""
        own = self.settings.of(RegenSettings)
        return Narratives(
            self.splits, texts_file=own.texts_file, similar=own.similar, seed=self.settings.seed
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class PurchaseSpec(TaskSpec):
    """A task about a purchase.

    Attributes:
      critique: whether the prompt has one.
      narrative: kind of the text in the answer, or "".
      names_item: whether the answer names the item, before the text if there is one.
      wording: templates; the sentence with the critique goes where a task has none.
    """

    critique: bool = False
    narrative: str = ""
    names_item: bool = False
    wording: tuple[str, ...]


class Purchase(Regen, HistoryTask):
    """A task about the item at a position of a user's sequence; its spec says what of it."""

    spec: PurchaseSpec

    @property
    def wording(self) -> tuple[str, ...]:
        """Its templates."""
        return self.spec.wording

    def index(self, split: str) -> dict[str, np.ndarray]:
        """User row, position of the item, and variant, where the texts are there."""
        users, positions = told_positions(self.texts, split, self._kinds)
        return self.with_variants(split, user=users, position=positions)

    @property
    def _kinds(self) -> list[str]:
        """The kinds of text that it reads."""
        return [kind for kind in (self.spec.narrative, "critique" * self.spec.critique) if kind]

    def truncations(self, split: str) -> dict[str, int]:
        """The written texts that do not train."""
        return withheld(self.texts, split, self._kinds)

    def mentions(self, split: str, user: int, position: int, variant: int) -> Mentions:
        """The user, the item, and what the user says."""
        critique = self.texts.about("critique", user, position) if self.spec.critique else None
        return {
            "user": self.renderer.mention_user(user),
            "critique": [Segment(0, critique[0])] if critique else [],
            "item": self.item(int(self.splits.catalogue.sequence(user)[position])),
        }

    def answer(self, user: int, position: int) -> tuple[str, Spans | None, str]:
        """The item, a text about the purchase, or both."""
        name = self.renderer.target(int(self.splits.catalogue.sequence(user)[position]))
        if not self.spec.narrative:
            return name, None, self._critic(user, position)
        found = self.texts.about(self.spec.narrative, user, position)
        assert found is not None, "the index holds what has a text"
        text, spans, source = found
        source = source or self._critic(user, position)
        if not self.spec.names_item:
            return text, spans, source
        shift = len(name) + 2
        spans = [(0, len(text))] if spans is None else spans
        moved = [(start + shift, end + shift) for start, end in spans]
        return f"{name}. {text}", [(0, len(name)), *moved], source

    def _critic(self, user: int, position: int) -> str:
        found = self.texts.about("critique", user, position) if self.spec.critique else None
        return found[2] if found else ""


class UserSummary(Regen):
    """What a user is like, from training purchases; users are split by a hash as items are."""

    wording = (
        "Purchases[ of {user}] on {dataset}:{history}. Describe the customer:",
        "Who buys{history} on {dataset}? A portrait:",
        "Sum up the taste behind{history}, all from {dataset}:",
    )

    def index(self, split: str) -> dict[str, np.ndarray]:
        """User rows that have a summary, and variant."""
        rows = [row for row in self._users(split) if self.texts.summary(row)]
        return self.with_variants(split, user=np.array(rows, np.int32))

    def truncations(self, split: str) -> dict[str, int]:
        """The summaries that are left out for what they name."""
        told = sum(self.texts.tells_of(row) for row in self._users(split))
        return {TELLS: told} if told else {}

    def _users(self, split: str) -> list[int]:
        """Rows of the split's users who have a history."""
        catalogue, config = self.splits.catalogue, self.splits.config
        fold = item_folds(f"{catalogue.name.split('/')[0]} users", catalogue.user_ids, config)
        found = np.flatnonzero(fold == SPLITS.index(split)).tolist()
        return [row for row in found if len(self.splits.train_sequence(row))]

    def render(self, split: str, user: int, variant: int) -> Prompted:
        """The example in words."""
        raw = self.splits.catalogue.user_ids[user]
        history = self.splits.train_sequence(user)[-self.settings.history :].tolist()
        template = self.template(len(self.wording), split, variant, raw)
        mentions = {"user": self.renderer.mention_user(user)}
        found = self.texts.summary(user)
        assert found is not None, "the index holds what has a text"
        return Prompted(
            key=f"{raw}#{variant}",
            user=raw,
            template=f"{self.spec.task}/{template}",
            prompt=self.renderer.fill(
                self.wording[template], mentions, self.renderer.history(history)
            ),
            target_text=found[0],
            target_item=-1,
            content=found[1],
            source=found[2],
        )


_NEXT_ITEM = (
    "Purchases[ of {user}] on {dataset}:{history}.[ Now they say: {critique}] They get",
    "[{user}|Somebody] bought{history} on {dataset}.[ The wish is: {critique}] The next "
    "purchase is",
    "{dataset} basket, oldest first:{history}.[ Request: {critique}] Recommended:",
)
_JOINT = (
    "Purchases[ of {user}] on {dataset}:{history}.[ Now they say: {critique}] Name the next "
    "item and say why:",
    "[{user}|Somebody] bought{history} on {dataset}.[ The wish is: {critique}] Recommend and "
    "explain:",
    "{dataset} basket, oldest first:{history}.[ Request: {critique}] Item and reason:",
)
_REASON = (
    "After{history}[, {user}|, somebody] took {item} from {dataset}. The reason:",
    "Why {item}, given the {dataset} purchases{history}? Because:",
    "Purchases[ of {user}] on {dataset}:{history}. Then {item}. Explain:",
)
_ENDORSEMENT = (
    "Recommend {item} to somebody who bought{history} on {dataset}:",
    "Purchases[ of {user}] on {dataset}:{history}. Speak for {item}:",
    "Having{history} from {dataset}, why not {item}? Make the case:",
)


def _mentions(settings: TaskSettings) -> Sequence[tuple[str, int]]:
    return [(settings.mention_history, settings.history + 1), (settings.mention_user, 1)]


_SHARED: dict[str, Any] = {
    "family": "regen",
    "version": 2,
    "features": WRITTEN_FEATURES,
    "settings": (*NEXT_ITEM, "regen.texts_file", "regen.similar"),
    "mentions": _mentions,
}


def _purchase(task: str, what: str, wording: tuple[str, ...], **more: Any) -> PurchaseSpec:
    counted = not (more.get("critique") or more.get("narrative"))
    return PurchaseSpec(
        task=task,
        make=Purchase,
        wording=wording,
        what=f"{what} | REGEN",
        counted=counted,
        **more,
        **_SHARED,
    )


_ITEM: dict[str, Any] = {"answer": "items", "names_item": True, "metrics": RANKING}
_BOTH: dict[str, Any] = {
    "answer": "item_and_text",
    "names_item": True,
    "narrative": "purchase_reason",
    "metrics": LANGUAGE,
}
_TEXT: dict[str, Any] = {"answer": "text", "metrics": LANGUAGE}
_SPECS: tuple[TaskSpec, ...] = (
    _purchase("next_item", "history | id of the next item", _NEXT_ITEM, **_ITEM),
    _purchase(
        "next_item_critique",
        "history, critique | id of the next item",
        _NEXT_ITEM,
        critique=True,
        **_ITEM,
    ),
    _purchase("joint", "history | id of the next item, and the reason", _JOINT, **_BOTH),
    _purchase(
        "joint_critique",
        "history, critique | id of the next item, and the reason",
        _JOINT,
        critique=True,
        **_BOTH,
    ),
    _purchase(
        "purchase_reason",
        "history, item | why it was bought",
        _REASON,
        narrative="purchase_reason",
        **_TEXT,
    ),
    _purchase(
        "endorsement",
        "history, item | what speaks for it",
        _ENDORSEMENT,
        narrative="endorsement",
        **_TEXT,
    ),
    TaskSpec(
        task="user_summary",
        make=UserSummary,
        what="history | what the user is like | REGEN",
        counted=False,
        **_TEXT,
        # Until 2, composed summaries gave their spans as their source.
        **{**_SHARED, "version": 3},
    ),
)
FAMILY = TaskFamily(
    "regen", _SPECS, RegenSettings, mixtures={"regen": tuple(spec.task for spec in _SPECS)}
)
