"""From a trained model to metrics and files: what `ilm evaluate` does.

A task is measured by the evaluator of the kind of answers that its spec names. The same evaluators
serve the evaluation during training. Which metrics a kind has `ilm_jax.metrics.registry` says.
"""

import os
import pathlib
from collections.abc import Sequence
from typing import Any

import jax

from ilm_jax.data.tokenizers import record_of
from ilm_jax.errors import UserError
from ilm_jax.evaluation.evaluator import (
    CHOICES,
    DESCRIPTIONS,
    NO_JUDGES,
    EvaluationConfig,
    Evaluator,
    Judges,
    Writer,
)
from ilm_jax.evaluation.measures.passes import check_prompts
from ilm_jax.evaluation.reports import card, results
from ilm_jax.evaluation.trained import EvaluatedTask, TrainedModel
from ilm_jax.metrics.values import Evaluation
from ilm_jax.progress import Watch, unseen
from ilm_jax.registry import Registry

# "module:class" by `TaskSpec.answer`.
EVALUATORS: Registry[type[Evaluator]] = Registry("evaluator of answers")
EVALUATORS.register("items", "ilm_jax.evaluation.evaluators.items:ItemsEvaluator")
EVALUATORS.register("rating", "ilm_jax.evaluation.evaluators.ratings:RatingEvaluator")
EVALUATORS.register("text", "ilm_jax.evaluation.evaluators.texts:TextEvaluator")
EVALUATORS.register("item_then_text", "ilm_jax.evaluation.evaluators.narratives:NarrativeEvaluator")
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
    evaluation = Evaluation([], protocol=_interactions([e.task for e in evaluators]))
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
        prompts={**record_of(trained.tokenizer), "tokenizer": trained.tokenizer.fingerprint},
    )


def _interactions(tasks: Sequence[EvaluatedTask]) -> dict[str, Any]:
    """The card of what was held out, of every dataset that is measured."""
    first, *others = {task.catalogue.name: task.splits for task in tasks}.values()
    more = {f"{splits.catalogue.name} split": splits.report() for splits in others}
    return card.interactions_card(first.report()) | more
