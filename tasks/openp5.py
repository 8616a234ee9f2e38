"""OpenP5 (Xu et al. 2023): the next item from the history (sequential) or the user alone.

Every position from the second of a user's training interactions is an example of both tasks;
validation and test are leave-one-out. A task fixes how items are named, see
`ilm_jax.data.examples.item_index`, and which templates it reads: the unseen one of each kind is met
by no training example, and its tasks have no training examples. The templates are ours, or a file's
in OpenP5's format.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from ilm_jax.data.examples.prompts import Segment
from ilm_jax.data.examples.task_families import TaskFamily
from ilm_jax.data.examples.task_settings import TaskSettings
from ilm_jax.data.examples.task_specs import NEXT_ITEM, RANKING, TaskSpec
from ilm_jax.tasks.histories import HistoryTask, Mentions


@dataclasses.dataclass(frozen=True, kw_only=True)
class OpenP5Spec(TaskSpec):
    """One of OpenP5's tasks.

    Attributes:
      kind: whether the prompt has a history.
      prompts: which templates.
    """

    kind: Literal["sequential", "straightforward"]
    prompts: Literal["seen", "unseen"] = "seen"


class NextItem(HistoryTask):
    """Examples of one of OpenP5's tasks; its spec says which."""

    spec: OpenP5Spec

    @functools.cached_property
    def wording(self) -> tuple[str, ...]:
        """The templates of its kind."""
        return self.renderer.templates(self.spec.kind, self.spec.prompts)

    def index(self, split: str) -> dict[str, np.ndarray]:
        """User row, position of the target in the user's sequence, and variant."""
        index = super().index(split)
        if split == "train" and self.spec.prompts == "unseen":
            return {name: column[:0] for name, column in index.items()}
        return index

    def truncations(self, split: str) -> dict[str, int]:
        """How many examples have more history than the setting keeps."""
        return {} if self.spec.kind == "straightforward" else super().truncations(split)

    def elements(self, user: int, position: int) -> list[list[Segment]]:
        """The history before the position, where there is one."""
        return [] if self.spec.kind == "straightforward" else super().elements(user, position)

    def mentions(self, split: str, user: int, position: int, variant: int) -> Mentions:
        """The user."""
        return {"user": self.renderer.mention_user(user)}


# How the tasks name items: (what they are called by, what is fixed).
INDEXINGS: dict[str, dict[str, Any]] = {
    "random": {"item_index": "random"},
    "sequential": {"item_index": "sequential"},
    "collaborative": {"item_index": "collaborative"},
    "title": {"item_index": "random", "mention_history": "title", "target": "title"},
    "slot": {
        "item_index": "random",
        "mention_history": "slot",
        "mention_user": "slot",
        "target": "id",
    },
}
GIVEN: dict[Literal["sequential", "straightforward"], str] = {
    "sequential": "user, history",
    "straightforward": "user",
}


@dataclasses.dataclass(frozen=True)
class Indexed:
    """Fixes how a task names items."""

    indexing: str

    def __call__(self, settings: TaskSettings) -> Mapping[str, Any]:
        """What is fixed."""
        del settings
        return INDEXINGS[self.indexing]


def _user(settings: TaskSettings) -> Sequence[tuple[str, int]]:
    return [(settings.mention_user, 1)]


def _user_and_history(settings: TaskSettings) -> Sequence[tuple[str, int]]:
    return [(settings.mention_user, 1), (settings.mention_history, settings.history)]


MENTIONS: dict[str, Callable[[TaskSettings], Sequence[tuple[str, int]]]] = {
    "sequential": _user_and_history,
    "straightforward": _user,
}


def _specs() -> list[TaskSpec]:
    prompts: tuple[Literal["seen", "unseen"], ...] = ("seen", "unseen")
    return [
        OpenP5Spec(
            family="openp5",
            task=f"{kind}_{indexing}" + "_unseen" * (shown == "unseen"),
            version=3 if indexing == "title" else 2,
            make=NextItem,
            answer="items",
            settings=(*NEXT_ITEM, "prompt_file", "bare_history"),
            fixes=Indexed(indexing),
            mentions=MENTIONS[kind],
            metrics=RANKING,
            what=f"{GIVEN[kind]} ({indexing} ids, {shown} prompts) | "
            f"{'title' if indexing == 'title' else 'id'} of the next item | OpenP5",
            kind=kind,
            prompts=shown,
        )
        for kind, indexing, shown in itertools.product(GIVEN, INDEXINGS, prompts)
    ]


FAMILY = TaskFamily(
    "openp5",
    tuple(_specs()),
    mixtures={
        **{f"openp5_{name}": tuple(f"{kind}_{name}" for kind in GIVEN) for name in INDEXINGS},
        **{f"openp5_{kind}_tasks": tuple(f"{kind}_{name}" for name in INDEXINGS) for kind in GIVEN},
    },
)
SEQUENTIAL_RANDOM = next(spec for spec in FAMILY.specs if spec.task == "sequential_random")
