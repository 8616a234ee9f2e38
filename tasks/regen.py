"""REGEN's tasks (Su et al. 2025): the next item with or without a critique, and narratives.

The joint task answers with the item and a reason in one text. A training example never speaks of a
held-out item: its critique and narrative would carry the item's words.
"""

import numpy as np

from ilm_jax.data.catalogue.splits import TRAIN, Splits, item_folds
from ilm_jax.data.examples import templates
from ilm_jax.data.examples.narratives import Narratives
from ilm_jax.data.examples.prompts import Segment
from ilm_jax.data.examples.task_settings import SPLITS, TaskSettings
from ilm_jax.data.examples.task_specs import TaskSpec
from ilm_jax.data.tokenizers import Tokenizer
from ilm_jax.tasks.openp5 import target_positions
from ilm_jax.tasks.prompted import Prompted, PromptTask


class _Regen(PromptTask):
    def __init__(
        self,
        splits: Splits,
        settings: TaskSettings,
        tokenizer: Tokenizer | None = None,
        spec: TaskSpec | None = None,
    ) -> None:
        super().__init__(splits, settings, tokenizer, spec)
        self.texts = Narratives(splits, self.settings)

    @property
    def wording(self) -> tuple[str, ...]:
        """Its templates."""
        return templates.REGEN[self.spec.task.removesuffix("_critique")]


class Purchase(_Regen):
    """A task about the item at a position of a user's sequence."""

    @property
    def narrative(self) -> str:
        """The kind of text in the answer, or ""."""
        task = self.spec.task.removesuffix("_critique")
        return {"next_item": "", "joint": "purchase_reason"}.get(task, task)

    @property
    def asks(self) -> bool:
        """Whether the prompt has a critique."""
        return self.spec.task.endswith("_critique")

    def index(self, split: str) -> dict[str, np.ndarray]:
        """User row, position of the item, and variant, where the texts are there."""
        users, positions = target_positions(self.splits, split)
        kinds = [kind for kind in (self.narrative, "critique" if self.asks else "") if kind]
        if kinds:
            keep = np.array([
                self._allowed(split, user, position)
                and all(self.texts.about(kind, user, position) for kind in kinds)
                for user, position in zip(users.tolist(), positions.tolist(), strict=True)
            ], bool)  # fmt: skip
            users, positions = users[keep], positions[keep]
        return self.with_variants(split, user=users, position=positions)

    def _allowed(self, split: str, user: int, position: int) -> bool:
        item = int(self.splits.catalogue.sequence(user)[position])
        return split != "train" or self.splits.item_fold[item] == TRAIN

    def render(self, split: str, user: int, position: int, variant: int) -> Prompted:
        """The example in words."""
        catalogue = self.splits.catalogue
        sequence, raw = catalogue.sequence(user), catalogue.user_ids[user]
        item = int(sequence[position])
        history = sequence[max(0, position - self.settings.history) : position].tolist()
        template = self.template(len(self.wording), split, variant, raw, position)
        critique = self.texts.about("critique", user, position) if self.asks else None
        mentions: dict[str, list[Segment]] = {
            "user": self.renderer.mention_user(user),
            "critique": [Segment(0, critique[0])] if critique else [],
            "item": self.renderer.mention_item(
                item, self.renderer.history_mention, not self.renderer.held_out(item)
            ),
        }  # fmt: skip
        target, content, source = self._answer(user, position, item)
        return Prompted(
            key=f"{raw}@{position}#{variant}", user=raw, template=f"{self.spec.task}/{template}",
            prompt=self.renderer.fill(
                self.wording[template], mentions, self.renderer.history(history)
            ),
            target_text=target, target_item=item, content=content,
            source=source or (critique[2] if critique else ""),
        )  # fmt: skip

    def _answer(
        self, user: int, position: int, item: int
    ) -> tuple[str, list[tuple[int, int]] | None, str]:
        name = self.renderer.target(item)
        if not self.narrative:
            return name, None, ""
        found = self.texts.about(self.narrative, user, position)
        assert found is not None, "the index holds what has a text"
        text, spans, source = found
        if not self.spec.task.startswith("joint"):
            return text, spans, source
        shift = len(name) + 2
        spans = [(0, len(text))] if spans is None else spans
        moved = [(start + shift, end + shift) for start, end in spans]
        return f"{name}. {text}", [(0, len(name)), *moved], source


class UserSummary(_Regen):
    """What a user is like, from training purchases; users are split by a hash as items are."""

    def index(self, split: str) -> dict[str, np.ndarray]:
        """User rows that have a summary, and variant."""
        catalogue, config = self.splits.catalogue, self.splits.config
        fold = item_folds(f"{catalogue.name.split('/')[0]} users", catalogue.user_ids, config)
        rows = [
            row for row in np.flatnonzero(fold == SPLITS.index(split)).tolist()
            if self.texts.summary(row) and len(self.splits.train_sequence(row))
        ]  # fmt: skip
        return self.with_variants(split, user=np.array(rows, np.int32))

    def render(self, split: str, user: int, variant: int) -> Prompted:
        """The example in words."""
        raw = self.splits.catalogue.user_ids[user]
        history = self.splits.train_sequence(user)[-self.settings.history :].tolist()
        template = self.template(len(self.wording), split, variant, raw)
        mentions = {"user": self.renderer.mention_user(user)}
        found = self.texts.summary(user)
        assert found is not None, "the index holds what has a text"
        return Prompted(
            key=f"{raw}#{variant}", user=raw, template=f"{self.spec.task}/{template}",
            prompt=self.renderer.fill(
                self.wording[template], mentions, self.renderer.history(history)
            ),
            target_text=found[0], target_item=-1, content=found[1], source=found[2],
        )  # fmt: skip


def make(
    spec: TaskSpec, splits: Splits, settings: TaskSettings, tokenizer: Tokenizer | None
) -> PromptTask:
    """The task of this spec; without a tokenizer it only renders."""
    kind: type[PromptTask] = UserSummary if spec.task == "user_summary" else Purchase
    return kind(splits, settings, tokenizer, spec)
