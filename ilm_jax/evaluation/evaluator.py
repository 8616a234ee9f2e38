"""Evaluators of tasks and their settings: the parts that every kind of answer shares."""

import dataclasses
import pathlib
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from jaxtyping import Array, Int, PyTree

from ilm_jax.checks import Count, check
from ilm_jax.errors import UserError
from ilm_jax.evaluation.measures.auto_rater import AutoRater
from ilm_jax.evaluation.measures.semantic import Encode
from ilm_jax.evaluation.trained import EvaluatedTask
from ilm_jax.metrics.registry import Answers
from ilm_jax.metrics.values import Evaluation
from ilm_jax.progress import Watch, unseen

# Writes files into a folder and returns their names there.
Writer = Callable[[pathlib.Path], list[str]]
# Their metrics stand in a report under their own names, those of other tasks behind "task/".
DESCRIPTIONS, CHOICES = "long_description", "sequential_random"
NO_TEXT = "not measured (no head of the model learns what answers say: it ranks items alone)"


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
    """Which metrics are computed, and on how many examples.

    Attributes:
      tasks: short names. The metrics of all but descriptions and choices bear their task's name.
      split: "test" or "validation".
      users: whose lists and ratings are measured, a fixed sample of so many; None for all.
      texts: that are scored and written, a fixed sample of so many; None for all.
      beams: length of the ranked lists.
      length_penalty: of lists by id strings: scores are log p / length ** this.
      exclude_seen: a user's earlier choices are no candidates.
      ranking, generation: whether items are ranked, and whether texts are written.
      id_strings: whether a model with an item head is also measured by the id strings that it
        learnt.
      liked: ratings from here on count as liked, for AUC.
    """

    tasks: tuple[str, ...] = (DESCRIPTIONS, CHOICES)
    split: str = "test"
    users: Count | None = None
    texts: Count | None = None
    beams: Count = 10
    length_penalty: float = 0.0
    exclude_seen: bool = False
    ranking: bool = True
    id_strings: bool = True
    generation: bool = True
    liked: float = 4.0

    def __post_init__(self) -> None:
        check(self)
        if not self.tasks or len(set(self.tasks)) < len(self.tasks):
            given = ",".join(self.tasks)
            raise UserError(f"tasks={given!r}: name at least one, and each once")


@dataclasses.dataclass(frozen=True)
class Judges:
    """Models that judge generated texts, beside the metrics.

    Attributes:
      encoder: of sentences, for semantic consistency; None: not available.
      rater: a language model that judges, if there is one.
    """

    encoder: Encode | None = None
    rater: AutoRater | None = None


NO_JUDGES = Judges()


class Evaluator(Protocol):
    """Measures one task; its programs are compiled once, for any parameters.

    Attributes:
      task: what is measured.
    """

    task: EvaluatedTask

    def __init__(
        self, task: EvaluatedTask, config: EvaluationConfig, watch: Watch = unseen
    ) -> None:
        """Raises UserError for what cannot be measured; compiles and measures nothing yet."""

    def answer(self, params: PyTree[Array], numbers: Int[np.ndarray, " chosen"]) -> Answers:
        """The model's answers to these examples; every process takes part."""

    def metrics(self, answers: Answers) -> Evaluation:
        """The registered metrics of the answers, and what else the answers alone tell."""

    def likelihood(self, params: PyTree[Array], numbers: Int[np.ndarray, " chosen"]) -> Evaluation:
        """Of the right answers to these examples, where the task has it; else no metric.

        Every process takes part.
        """
        return Evaluation([])

    def shown(self, answers: Answers) -> tuple[Sequence[object], Sequence[object]]:
        """(targets, predictions) as files show them."""

    def evaluate(
        self, params: PyTree[Array], step: int, judges: Judges = NO_JUDGES
    ) -> tuple[Evaluation, list[Writer]]:
        """All that `ilm evaluate` reports of the task, and what writes its files.

        Every process takes part. Samples are those of the configuration.
        """
