"""Specs of tasks: name, version, features, answer, the settings that a task reads, its code."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Protocol

import numpy as np

from ilm_jax.data.catalogue.splits import Splits
from ilm_jax.data.examples.example import Example
from ilm_jax.data.examples.task_settings import TaskSettings
from ilm_jax.data.tokenizers import Tokenizer

# What a model is to answer, see `TaskSpec.answer`.
Answer = Literal["items", "text", "rating", "item_and_text", "item_then_text", "pairs", "none"]
ITEM_THEN_TEXT: Literal["item_then_text"] = "item_then_text"
Features = tuple[tuple[str, str], ...]

PROMPT_FEATURES: Features = (
    ("key", "text"),
    ("user", "text"),
    ("template", "text"),
    ("target_text", "text"),
    ("inputs", "ints"),
    ("targets", "ints"),
    ("targets_content", "ints"),
    ("slots", "ints"),
    ("history_bounds", "ints"),
    ("target_item", "int"),
)
WRITTEN_FEATURES: Features = (*PROMPT_FEATURES, ("source", "text"))
RANKING = ("hr@1", "hr@5", "hr@10", "ndcg@5", "ndcg@10")
LANGUAGE = ("nll", "nll_content")
# Settings that tasks read in groups, see `TaskSpec.settings`.
RENDERING = ("text_only", "variants", "seed")
INDEX = ("item_index", "index_order", "cluster_tokens", "cluster_split", "item_codes")
NEXT_ITEM = ("mention_history", "mention_user", "target", "history", *INDEX, *RENDERING)


class Examples(Protocol):
    """The examples of a task on one catalogue; pure functions of their arguments."""

    spec: "TaskSpec"
    splits: Splits

    def index(self, split: str) -> dict[str, np.ndarray]:
        """Integer columns; row k names example k of the split."""

    def truncations(self, split: str) -> dict[str, int]:
        """Number of cuts, by name."""

    @property
    def build(self) -> Callable[..., Example]:
        """(split, **integers) -> features of the example that these integers name."""


class MakeExamples(Protocol):
    """Factory of a task's examples: a class, or a function."""

    def __call__(
        self,
        splits: Splits,
        settings: TaskSettings,
        tokenizer: Tokenizer | None = None,
        *,
        spec: "TaskSpec",
    ) -> Examples:
        """The examples of `spec`; without a tokenizer they only render.

        Args:
          splits: of the catalogue.
          settings: as the task reads them: what its spec does not name is at its default.
          tokenizer: of the features.
          spec: of the task.
        """


def fixes_nothing(settings: TaskSettings) -> Mapping[str, Any]:
    """The task takes all settings as they are."""
    del settings
    return {}


def mentions_nothing(settings: TaskSettings) -> Sequence[tuple[str, int]]:
    """Prompts of the task have no slots."""
    del settings
    return ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskSpec:
    """One task. A family whose tasks differ by data alone adds fields in a subclass.

    Attributes:
      family: prefix of the registered name, before the dataset.
      task: rest of the name.
      version: raised whenever the examples of unchanged settings change.
      make: makes its examples.
      answer: what a model is to answer, by which evaluation chooses its measures: "items" (a ranked
        list of the catalogue's), "text", "rating" (a number), "item_and_text" (an item's name and
        what is said of it, in one text), "item_then_text" (an item by a model's item head, and
        behind its soft tokens what is said of it), "pairs" (nothing is said: rows of the embedding
        table and, in one kind, a text are aligned) or "none" (plain text to be modelled, no
        prompt).
      features: (name, kind) of every cached feature; kind is "ints" (rank 1), "int" or "text".
      settings: what its examples depend on, the split aside: fields of TaskSettings, and of a
        family's own settings as "family.field"; of a file (`checks.InputFile`), its content. None:
        all that a prompt may depend on, and all of its family. Anything else reaches the task at
        its default, so no cache is read that another setting would have changed.
      fixes: settings that make the task what it is, whatever is set, from the settings.
      mentions: (form of a mention, how often at most) in a prompt, from the settings as the task
        reads them: how many slots it can have.
      metrics: names of the metrics that evaluation reports.
      what: "input | target | paper", for lists of tasks.
      counted: whether the number of examples follows from the interactions by arithmetic; else
        neighbours or texts are looked at, which takes a while for a large catalogue.
    """

    family: str
    task: str
    version: int
    make: MakeExamples
    answer: Answer
    features: Features = PROMPT_FEATURES
    settings: tuple[str, ...] | None = None
    fixes: Callable[[TaskSettings], Mapping[str, Any]] = fixes_nothing
    mentions: Callable[[TaskSettings], Sequence[tuple[str, int]]] = mentions_nothing
    metrics: tuple[str, ...] = ()
    what: str = ""
    counted: bool = True

    @property
    def full(self) -> str:
        """The name that no other family's task has: "knowledge/ranking"."""
        return f"{self.family}/{self.task}"

    def name(self, dataset: str) -> str:
        """Registered name for a dataset, such as "elm24_toy_world3_long_description"."""
        return f"{self.family}_{dataset.replace('/', '_')}_{self.task}"
