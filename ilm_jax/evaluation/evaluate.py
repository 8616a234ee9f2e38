"""From a trained model to metrics and files: what `ilm evaluate` measures, and by what.

A task is measured by the evaluator of the kind of answers that its spec names. The same evaluators
serve the evaluation during training. Which metrics a kind has `ilm_jax.metrics.registry` says.
"""

import dataclasses
import os
import pathlib
from collections.abc import Callable
from typing import Any, Protocol

import jax
import numpy as np
from jaxtyping import Int

from ilm_jax.checks import Count, check
from ilm_jax.errors import UserError
from ilm_jax.evaluation.measures.auto_rater import AutoRater
from ilm_jax.evaluation.measures.passes import check_prompts
from ilm_jax.evaluation.measures.semantic import Encode
from ilm_jax.evaluation.reports import card, results
from ilm_jax.evaluation.trained import EvaluatedTask, TrainedModel
from ilm_jax.metrics.registry import Answers
from ilm_jax.metrics.values import Evaluation
from ilm_jax.progress import Watch, unseen
from ilm_jax.registry import Registry

# Writes files into a folder and returns their names there.
Writer = Callable[[pathlib.Path], list[str]]
# Their metrics stand in a report under their own names, those of other tasks behind "task/".
DESCRIPTIONS, CHOICES = "long_description", "sequential_random"


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
    """What is measured, and on how much of it.

    Attributes:
      tasks: short names. The metrics of all but descriptions and choices bear their task's name.
      split: "test" or "validation".
      users: whose lists and ratings are measured, a fixed sample of so many; None for all.
      texts: that are scored and written, a fixed sample of so many; None for all.
      beams: length of the ranked lists.
      exclude_seen: a user's earlier choices are no candidates.
      ranking, generation: whether items are ranked, and whether texts are written.
      liked: ratings from here on count as liked, for AUC.
    """

    tasks: tuple[str, ...] = (DESCRIPTIONS, CHOICES)
    split: str = "test"
    users: Count | None = None
    texts: Count | None = None
    beams: Count = 10
    exclude_seen: bool = False
    ranking: bool = True
    generation: bool = True
    liked: float = 4.0

    def __post_init__(self) -> None:
        check(self)
        if not self.tasks or len(set(self.tasks)) < len(self.tasks):
            given = ",".join(self.tasks)
            raise UserError(f"tasks={given!r}: name at least one, and each once")


@dataclasses.dataclass(frozen=True)
class Judges:
    """What reads generated texts beside the metrics.

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

    def answer(self, params: Any, numbers: Int[np.ndarray, " chosen"]) -> Answers:
        """The model's answers to these examples; every process takes part."""

    def metrics(self, answers: Answers) -> Evaluation:
        """The registered metrics of the answers, and what else the answers alone tell."""

    def shown(self, answers: Answers) -> tuple[Any, Any]:
        """(targets, predictions) as files show them."""

    def evaluate(
        self, params: Any, step: int, judges: Judges = NO_JUDGES
    ) -> tuple[Evaluation, list[Writer]]:
        """All that `ilm evaluate` reports of the task, and what writes its files.

        Every process takes part. Samples are those of the configuration.
        """


# "module:class" by `TaskSpec.answer`.
EVALUATORS: Registry[type[Evaluator]] = Registry("evaluator of answers")
EVALUATORS.register("items", "ilm_jax.evaluation.evaluators.items:ItemsEvaluator")
EVALUATORS.register("rating", "ilm_jax.evaluation.evaluators.ratings:RatingEvaluator")
EVALUATORS.register("text", "ilm_jax.evaluation.evaluators.texts:TextEvaluator")
# The item's name stands at the head of the text.
EVALUATORS.register("item_and_text", "ilm_jax.evaluation.evaluators.texts:TextEvaluator")
# Nothing is asked; the text can be scored.
EVALUATORS.register("none", "ilm_jax.evaluation.evaluators.texts:TextEvaluator")


def evaluator_of(task: EvaluatedTask, config: EvaluationConfig, watch: Watch = unseen) -> Evaluator:
    """The evaluator of a task, by what its spec says is answered.

    Raises:
      UserError: for a task that has nothing to measure.
    """
    check_prompts(task.feed)
    if not task.feed.len_epoch:
        raise UserError(f"task {task.label} has no examples in split {task.split}")
    return EVALUATORS[task.spec.answer](task, config, watch)


def evaluate(
    trained: TrainedModel,
    output: str | os.PathLike,
    config: EvaluationConfig | None = None,
    judges: Judges = NO_JUDGES,
    watch: Watch = unseen,
) -> dict[str, Any]:
    """Measures a run and writes a folder (see `results`); returns evaluation.json's record.

    Every process takes part in measuring, the first one writes, when all is measured: an evaluation
    that was stopped leaves the folder as it was.

    Args:
      trained: the run.
      output: the folder.
      config: what is measured; None: its defaults.
      judges: of generated texts.
      watch: hears how far it is.

    Raises:
      UserError: for a task that there is not, or that has nothing to measure, before any is.
    """
    config = config or EvaluationConfig()
    evaluators = [
        evaluator_of(trained.task(name, config.split), config, watch) for name in config.tasks
    ]
    evaluation = Evaluation([], protocol=card.interactions_card(trained.splits.report()))
    writers: list[Writer] = []
    while evaluators:  # each goes with its programs when it is done
        evaluator = evaluators.pop(0)
        measured, more = evaluator.evaluate(trained.params, trained.step, judges)
        name = evaluator.task.label
        evaluation += measured if name in (DESCRIPTIONS, CHOICES) else measured.under(name)
        writers += more
    if jax.process_index():
        return {}
    return results.write(
        pathlib.Path(output),
        evaluation,
        watch,
        writers,
        model_dir=trained.model_dir,
        step=trained.step,
        trainable_params=trained.trainable_params,
        frozen_params=trained.frozen_params,
    )
