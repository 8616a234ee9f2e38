"""Generation and ranking while a model trains: t5x's `infer_eval/`.

Descriptions are written greedily and items ranked by beams, on validation examples; what comes out
goes to MODEL_DIR/infer_eval in seqio's files, and the figures to metrics.jsonl and TensorBoard.
"""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from ilm_jax.checks import Count, Number, check
from ilm_jax.data.catalogue.splits import Splits
from ilm_jax.data.examples.prompt_tokens import PromptTokenizer
from ilm_jax.data.examples.prompts import PromptRenderer
from ilm_jax.data.examples.task_settings import TaskSpec
from ilm_jax.data.streams.dataset_config import DatasetConfig, Feed
from ilm_jax.data.tokenizers import Tokenizer
from ilm_jax.errors import UserError
from ilm_jax.evaluation import seqio_files
from ilm_jax.evaluation.measures import GenerationMeasure, RankingMeasure, target_trie
from ilm_jax.evaluation.passes import Setting
from ilm_jax.evaluation.sampling import sample_examples, text_mark
from ilm_jax.metrics import texts


@dataclasses.dataclass(frozen=True)
class InferEvalConfig:
    """How often and on what.

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
    """Figures of a model's answers; its programs are compiled once."""

    def __init__(
        self,
        config: InferEvalConfig,
        setting: Setting,
        feed: Callable[[DatasetConfig], Feed],
        splits: Splits,
        tokenizer: Tokenizer,
        folder: str | os.PathLike,
        stop_ids: Sequence[int] = (),
    ) -> None:
        """Opens the tasks.

        Args:
          config: which.
          setting: the model and its mesh.
          feed: opens a dataset for this model, as `Run.feed`.
          splits: of the catalogue.
          tokenizer: of the tasks.
          folder: for seqio's files.
          stop_ids: that end an answer, beside the tokenizer's eos.

        Raises:
          UserError: for a task that asks for no answer.
        """
        self.every = config.every
        self._config, self.setting, self._splits = config, setting, splits
        self._tokenizer, self._folder = tokenizer, pathlib.Path(folder)
        self._stop_ids = tuple(stop_ids)
        base = config.dataset.replace(shuffle=False, repeat=False)
        self._tasks = {
            spec.name(base.dataset): self._measure(
                spec, feed(base.replace(mixture_or_task_name=spec.name(base.dataset)))
            )
            for spec in base.specs()
        }

    def __call__(self, params: Any, step: int) -> dict[str, float]:
        """Measures every task and writes its files; all processes take part, one writes."""
        found: dict[str, float] = {}
        for name, measure in self._tasks.items():
            figures = measure(params, step)
            if not jax.process_index():
                seqio_files.append_metrics(self._folder, name, step, figures)
            found |= {f"{name}/{figure}": value for figure, value in figures.items()}
        return found

    def _measure(self, spec: TaskSpec, feed: Feed) -> Callable[[Any, int], dict[str, float]]:
        config, name = self._config, spec.name(self._config.dataset.dataset)
        items = self._splits.catalogue.item_ids
        marks = [text_mark(feed.stream[number], items) for number in range(feed.len_epoch)]
        numbers = sample_examples(marks, config.examples).numbers
        if any(metric.startswith("hr@") for metric in spec.metrics):
            prompts = PromptRenderer(self._splits, config.dataset.naming(spec.task))
            trie = target_trie(prompts, self._tokenizer)
            ranking = RankingMeasure(self.setting, feed, trie, config.beams)

            def ranks(params: Any, step: int) -> dict[str, float]:
                found = ranking(params, numbers)
                names = [[items[row] for row in rows if row >= 0] for rows in found.lists]
                targets = [items[row] for row in found.targets]
                self._write(name, step, feed, found.index, targets, names)
                return {figure.name: figure.mean for figure in found.figures()} | found.totals()

            return ranks
        if not feed.len_epoch or not len(feed.stream[0]["inputs"]):
            raise UserError(f"infer_eval names {name}, whose examples have no prompt to answer")
        steps = config.dataset.task_feature_lengths["targets"]
        generation = GenerationMeasure(self.setting, feed, self._tokenizer, steps, self._stop_ids)

        def written(params: Any, step: int) -> dict[str, float]:
            found = generation(params, numbers)
            self._write(name, step, feed, found.index, found.targets, found.predictions)
            figures = texts.text_means(found.predictions, found.targets)
            return {**figures, "ended": found.ended}

        return written

    def _write(
        self, task: str, step: int, feed: Feed, index: np.ndarray, targets: Any, predictions: Any
    ) -> None:
        if not jax.process_index():
            words = PromptTokenizer(self._tokenizer).decode_prompt
            asked = [seqio_files.asked(feed.stream[int(i)], words) for i in index]
            seqio_files.write_answers(
                self._folder, task, step, asked, targets, prediction=predictions
            )
