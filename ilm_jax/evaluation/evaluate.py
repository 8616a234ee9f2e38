"""From a trained model to metrics and files: the body of `ilm evaluate`."""

import os
import pathlib
from typing import Any

import jax

from ilm_jax.evaluation.evaluator import (
    CHOICES,
    DESCRIPTIONS,
    NO_JUDGES,
    EvaluationConfig,
    Judges,
    Writer,
    evaluator_of,
)
from ilm_jax.evaluation.reports import card, results
from ilm_jax.evaluation.trained import TrainedModel
from ilm_jax.metrics.values import Evaluation
from ilm_jax.progress import Watch, unseen


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
