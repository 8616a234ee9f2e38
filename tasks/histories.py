"""Tasks about what a user chose: every choice is an example, its target or what came before it."""

import collections
import weakref
from collections.abc import Sequence

import numpy as np

from ilm_jax.data.catalogue.splits import TRAIN, Splits
from ilm_jax.data.examples.narratives import Narratives
from ilm_jax.data.examples.prompts import Segment
from ilm_jax.tasks.prompted import Prompted, PromptTask

Mentions = dict[str, list[Segment]]
Spans = list[tuple[int, int]]


# Every task of a catalogue asks for them.
_positions: weakref.WeakKeyDictionary[Splits, dict[str, tuple[np.ndarray, np.ndarray]]] = (
    weakref.WeakKeyDictionary()
)


def target_positions(splits: Splits, split: str) -> tuple[np.ndarray, np.ndarray]:
    """(user rows, positions of the targets) of a split, by user and in time order; int32.

    Every position from the second of a user's training interactions is one; validation and test
    are leave-one-out. Users with fewer than three interactions train with all of them and have no
    other target.
    """
    known = _positions.setdefault(splits, {})
    if split not in known:
        found = _targets(np.diff(splits.catalogue.offsets), split)
        for column in found:
            column.flags.writeable = False
        known[split] = found
    return known[split]


def _targets(lengths: np.ndarray, split: str) -> tuple[np.ndarray, np.ndarray]:
    if split != "train":
        users = np.flatnonzero(lengths >= 3)
        positions = lengths[users] - (2 if split == "validation" else 1)
        return users.astype(np.int32), positions.astype(np.int32)
    count = np.maximum(np.where(lengths >= 3, lengths - 2, lengths) - 1, 0)
    users = np.repeat(np.arange(len(lengths), dtype=np.int32), count)
    # A user's first example is its second interaction; then they count up.
    positions = np.ones(len(users), np.int32)
    used = count[count > 0]
    positions[np.cumsum(used)[:-1]] = 1 - used[:-1]
    np.cumsum(positions, out=positions)
    return users, positions


def may_be_told(splits: Splits, split: str, users: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Whether the words of the items at these positions may be told: held-out ones' never train."""
    if split != "train":
        return np.ones(len(users), bool)
    catalogue = splits.catalogue
    return splits.item_fold[catalogue.items[catalogue.offsets[users] + positions]] == TRAIN


def told_positions(
    texts: Narratives, split: str, kinds: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """`target_positions` whose item's words may be told, and of which every kind of text is there.

    And trains, if the split is training's. Without kinds nothing is told: all of them.
    """
    users, positions = target_positions(texts.splits, split)
    if kinds:
        keep = may_be_told(texts.splits, split, users, positions)
        users, positions = users[keep], positions[keep]
    for kind in kinds:
        keep = texts.present(kind, users, positions)
        if split == "train":
            keep &= texts.may_train(kind, users, positions)
        users, positions = users[keep], positions[keep]
    return users, positions


def withheld(texts: Narratives, split: str, kinds: Sequence[str]) -> dict[str, int]:
    """How many written texts of these kinds do not train, by why (see `Narratives.withheld`).

    Nothing in other splits, or where texts are composed.
    """
    counts: collections.Counter[str] = collections.Counter()
    if split == "train":
        users, positions = target_positions(texts.splits, split)
        keep = may_be_told(texts.splits, split, users, positions)
        for kind in kinds:
            found = texts.withheld(kind, users[keep], positions[keep])
            counts.update({why: int(mask.sum()) for why, mask in found.items()})
    return dict(counts)


class HistoryTask(PromptTask):
    """A task that asks about the item at a position of a user's sequence.

    A task of one's own gives `wording`; by default the history comes in, the item's name goes out.

    Attributes:
      wording: its templates; they name {history}, {dataset} and what `mentions` gives.
    """

    wording: tuple[str, ...]

    def index(self, split: str) -> dict[str, np.ndarray]:
        """User row, position of the target item, and variant."""
        users, positions = target_positions(self.splits, split)
        return self.with_variants(split, user=users, position=positions)

    def truncations(self, split: str) -> dict[str, int]:
        """How many examples have more history than the setting keeps."""
        return {"history": int(np.sum(self.index(split)["position"] > self.settings.history))}

    def render(self, split: str, user: int, position: int, variant: int) -> Prompted:
        """The example in words."""
        catalogue = self.splits.catalogue
        raw = catalogue.user_ids[user]
        template = self.template(len(self.wording), split, variant, raw, position)
        mentions = self.mentions(split, user, position, variant)
        text, content, source = self.answer(user, position)
        return Prompted(
            key=f"{raw}@{position}#{variant}",
            user=raw,
            template=f"{self.spec.task}/{template}",
            prompt=self.renderer.fill(
                self.wording[template], mentions, self.elements(user, position)
            ),
            target_text=text,
            target_item=self.target(user, position),
            content=content,
            source=source,
        )

    def elements(self, user: int, position: int) -> list[list[Segment]]:
        """The history before the position, as the template's {history}."""
        sequence = self.splits.catalogue.sequence(user)
        before = sequence[max(0, position - self.settings.history) : position]
        return self.renderer.history(before.tolist())

    def mentions(self, split: str, user: int, position: int, variant: int) -> Mentions:
        """Mentions of the template beside the history: none, unless a task says otherwise."""
        return {}

    def target(self, user: int, position: int) -> int:
        """Row of the item that the answer names, or is about."""
        return int(self.splits.catalogue.sequence(user)[position])

    def answer(self, user: int, position: int) -> tuple[str, Spans | None, str]:
        """(the answer, spans of it that carry information or None for all, who wrote it or "")."""
        return self.renderer.target(self.target(user, position)), None, ""

    def item(self, row: int) -> list[Segment]:
        """An item as histories mention it; without words if it is held out."""
        mention = self.renderer.history_mention
        return self.renderer.mention_item(row, mention, not self.renderer.held_out(row))
