"""LUMEN's tasks (Su et al. 2025, REGEN): the next item, and behind its soft tokens a narrative.

A row is [history, perhaps with critiques][item position][the next item's soft tokens][narrative].
The item position is the prompt's last place: an item head is asked there, before the item stands
in the row. Training reads the true item (teacher forcing), inference the one that was ranked
first. Of LUMEN itself the paper says that items and words share one vocabulary; an item head over
item vectors in its place, soft tokens for the item and the row's order are ours.

A held-out item is asked for as any other, by its place in the table. Its words, which a critique
and a narrative would carry, are never trained: such a row ends at the item position, and the tasks
whose prompts have critiques leave it out. So are written texts that name what is held out; they are
counted.
"""

import dataclasses
import functools
from typing import Any

import numpy as np

from ilm_jax.data.catalogue.splits import TRAIN
from ilm_jax.data.examples.example import Example
from ilm_jax.data.examples.prompts import ITEM_SLOT
from ilm_jax.data.examples.purchases import WORDING, LumenSettings, PurchasePrompts
from ilm_jax.data.examples.task_families import TaskFamily
from ilm_jax.data.examples.task_settings import TaskSettings
from ilm_jax.data.examples.task_specs import (
    ITEM_THEN_TEXT,
    LANGUAGE,
    NEXT_ITEM,
    RANKING,
    WRITTEN_FEATURES,
    TaskSpec,
)
from ilm_jax.tasks.histories import HistoryTask, Spans, told_positions, withheld
from ilm_jax.tasks.prompted import Prompted
from ilm_jax.tasks.regen import Regen


@dataclasses.dataclass(frozen=True, kw_only=True)
class LumenSpec(TaskSpec):
    """A task of LUMEN.

    Attributes:
      of_critiques: only purchases that a critique led to are asked about.
      shows: whether prompts have the critique.
    """

    of_critiques: bool = False
    shows: bool = False


class Lumen(Regen, HistoryTask):
    """The item at a position of a user's sequence, and what is said of it."""

    spec: LumenSpec
    wording = WORDING

    @functools.cached_property
    def _own(self) -> LumenSettings:
        return self.settings.of(LumenSettings)

    @functools.cached_property
    def _prompts(self) -> PurchasePrompts:
        return PurchasePrompts(self.renderer, past=self._own.past_critiques)

    def index(self, split: str) -> dict[str, np.ndarray]:
        """User row, position of the item, and variant, where there is something to ask for."""
        # Without a slot nothing would be left of a row that says nothing.
        kinds = ["critique"] * self.spec.of_critiques
        kinds += [self._own.narrative] * self.settings.text_only
        users, positions = told_positions(self.texts, split, kinds)
        return self.with_variants(split, user=users, position=positions)

    def truncations(self, split: str) -> dict[str, int]:
        """The written texts that do not train."""
        critiques = ["critique"] * (self.spec.of_critiques or self.spec.shows)
        return withheld(self.texts, split, [self._own.narrative, *critiques])

    def render(self, split: str, user: int, position: int, variant: int) -> Prompted:
        """The example in words; one that ends at the item has no `target_text`."""
        raw = self.splits.catalogue.user_ids[user]
        template = self.template(len(self.wording), split, variant, raw, position)
        sequence = self.splits.catalogue.sequence(user)
        first = max(0, position - self.settings.history)
        text, content, source = self.answer(user, position)
        if not self._speaks(split, user, position):
            text, content, source = "", None, ""
        return Prompted(
            key=f"{raw}@{position}#{variant}",
            user=raw,
            template=f"{self.spec.task}/{template}",
            prompt=self._prompts.prompt(
                sequence[first:position].tolist(),
                self._critiques(split, user, first, position),
                user=self.renderer.mention_user(user),
                template=template,
            ),
            target_text=text,
            target_item=self.target(user, position),
            content=content,
            source=source,
        )

    def answer(self, user: int, position: int) -> tuple[str, Spans | None, str]:
        """The narrative, empty where there is none."""
        found = self.texts.about(self._own.narrative, user, position)
        return found if found is not None else ("", None, "")

    def build(self, split: str, **integers: int) -> Example:
        """The example's features: `targets` begin with the item's slot, ITEM_SLOT.

        Its row is `target_item`. It stands alone where nothing is said of the item; text-only
        models read no slot, and have the narrative behind the prompt.
        """
        found = super().build(split, **integers)
        if self.settings.text_only:
            return found
        said = bool(found["target_text"])
        for name, first in (("targets", ITEM_SLOT), ("targets_content", 0)):
            found[name] = [first, *(found[name] if said else [])]
        return found

    def _speaks(self, split: str, user: int, position: int) -> bool:
        """Whether a narrative is there, and may be told."""
        told = bool(self.answer(user, position)[0])
        return told and self._open(split, self._own.narrative, user, position)

    def _open(self, split: str, kind: str, user: int, position: int) -> bool:
        """Whether the words of the item at a position may be told, by a text of this kind."""
        if split != "train":
            return True
        item = int(self.splits.catalogue.sequence(user)[position])
        if self.splits.item_fold[item] != TRAIN:
            return False
        return bool(self.texts.may_train(kind, np.array([user]), np.array([position]))[0])

    def _critique(self, split: str, user: int, position: int) -> str | None:
        """What was said before the item at a position, where it may be told."""
        found = self.texts.about("critique", user, position)
        return found[0] if found and self._open(split, "critique", user, position) else None

    def _critiques(self, split: str, user: int, first: int, position: int) -> dict[int, str]:
        """The critiques that a prompt may show, by place in a history that starts at `first`.

        Earlier ones are training's in every split: of held-out items they are never shown.
        """
        found: dict[int, str] = {}
        if not self.spec.shows:
            return found
        for place in range(first + 1, position) if self._own.past_critiques else ():
            if (words := self._critique("train", user, place)) is not None:
                found[place - first] = words
        if (words := self._critique(split, user, position)) is not None:
            found[position - first] = words
        return found


def _mentions(settings: TaskSettings) -> list[tuple[str, int]]:
    return [(settings.mention_history, settings.history), (settings.mention_user, 1), ("slot", 1)]


def _spec(task: str, what: str, **more: Any) -> LumenSpec:
    return LumenSpec(
        family="lumen",
        task=task,
        version=1,
        make=Lumen,
        answer=ITEM_THEN_TEXT,
        features=WRITTEN_FEATURES,
        settings=(
            *NEXT_ITEM,
            "regen.texts_file",
            "regen.similar",
            "lumen.narrative",
            "lumen.past_critiques",
        ),
        mentions=_mentions,
        metrics=(*RANKING, *LANGUAGE),
        what=f"{what} | the next item, and what speaks for it | REGEN",
        counted=not more,
        **more,
    )


_SPECS = (
    _spec("purchase", "history"),
    _spec("purchase_critique", "history, critique", of_critiques=True, shows=True),
    _spec(
        "purchase_uncritiqued", "history of the same purchases, without critique", of_critiques=True
    ),
)
FAMILY = TaskFamily(
    "lumen",
    _SPECS,
    LumenSettings,
    mixtures={"lumen": ("purchase", "purchase_critique")},
)
