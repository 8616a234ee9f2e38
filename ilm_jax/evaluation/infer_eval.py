"""Generation and ranking while a model trains: t5x's `infer_eval/`.

The evaluators of `ilm evaluate` measure validation examples: what the model answers and, of texts,
the likelihood of the right ones with what the items' vectors are worth for it. Answers go to
MODEL_DIR/infer_eval in seqio's files, metrics to metrics.jsonl and what else writes metrics.
"""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Sequence

import jax
import numpy as np
from jaxtyping import Array, Int64, PyTree

from ilm_jax.checks import Count, Number, check
from ilm_jax.data.catalogue.splits import Splits
from ilm_jax.data.streams.dataset_config import DatasetConfig
from ilm_jax.data.streams.feed import Feed
from ilm_jax.data.tokenizers import Tokenizer
from ilm_jax.errors import UserError
from ilm_jax.evaluation.evaluate import evaluator_of
from ilm_jax.evaluation.evaluator import EvaluationConfig, Evaluator
from ilm_jax.evaluation.measures.passes import ModelOnMesh
from ilm_jax.evaluation.reports import seqio_files
from ilm_jax.evaluation.trained import EvaluatedTask


@dataclasses.dataclass(frozen=True)
class InferEvalConfig:
    """Interval and data of the evaluation of answers while training.

    Attributes:
      dataset: the tasks, each measured by itself; `shuffle` and `repeat` are not heeded.
      every: steps between evaluations, and one at the end; 0: never.
      examples: of each task, a fixed sample by hash of users and items; None for all.
      beams: length of the ranked lists.

    Raises:
      UserError: for a number that makes no sense.
    """

    dataset: DatasetConfig
    every: Number = 0
    examples: Count | None = 256
    beams: Count = 10

    def __post_init__(self) -> None:
        check(self)


class InferEval:
    """Metrics of a model's answers; its programs are compiled once."""

    def __init__(
        self,
        config: InferEvalConfig,
        model: ModelOnMesh,
        feed: Callable[[DatasetConfig], Feed],
        splits_of: Callable[[str], Splits],
        tokenizer: Tokenizer,
        folder: str | os.PathLike,
        stop_ids: Sequence[int] = (),
    ) -> None:
        """Opens the tasks.

        Args:
          config: which.
          model: the model on its mesh.
          feed: opens a dataset for this model, as `Run.feed`.
          splits_of: gives the split catalogue of a dataset, as `Run.splits_of`.
          tokenizer: of the tasks.
          folder: for seqio's files.
          stop_ids: that end an answer, beside the tokenizer's eos.

        Raises:
          UserError: for a task that asks for no answer.
        """
        self.every, self.model, self._folder = config.every, model, pathlib.Path(folder)
        self._evaluators: list[tuple[Evaluator, Int64[np.ndarray, " sample"]]] = []
        base = config.dataset.replace(shuffle=False, repeat=False)
        catalogue = splits_of(base.dataset).catalogue
        for name in base.rates:
            dataset = base.alone(name, catalogue)
            splits = splits_of(dataset.dataset)
            task = EvaluatedTask(dataset, feed(dataset), model, splits, tokenizer, tuple(stop_ids))
            if not asks(task):
                raise UserError(
                    f"infer_eval names {task.name}, whose examples have no prompt to answer"
                )
            measured = EvaluationConfig((task.spec.full,), dataset.split, beams=config.beams)
            numbers = task.sample_of_texts(config.examples).numbers
            self._evaluators.append((evaluator_of(task, measured), numbers))

    def __call__(self, params: PyTree[Array], step: int) -> dict[str, float]:
        """Measures every task and writes its files; all processes take part, one writes."""
        metrics: dict[str, float] = {}
        for evaluator, numbers in self._evaluators:
            task = evaluator.task
            answers = evaluator.answer(params, numbers)
            measured = evaluator.metrics(answers) + evaluator.likelihood(params, numbers)
            of_task = measured.numbers
            if not jax.process_index():
                shown = evaluator.shown(answers)
                task.write_answers(self._folder, step, answers.index, *shown)
                seqio_files.append_metrics(self._folder, task.name, step, of_task)
            metrics |= {f"{task.name}/{name}": value for name, value in of_task.items()}
        return metrics


def asks(task: EvaluatedTask) -> bool:
    """Whether a task's examples have prompts, and there are any."""
    if task.spec.answer in ("pairs", "none") or not task.feed.len_epoch:
        return False
    return len(task.feed.stream[0]["inputs"]) > 0
