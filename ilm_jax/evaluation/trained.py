"""A trained language model with its parameters, and the data that it is asked about."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float32

from ilm_jax.cf.table import TableSet
from ilm_jax.data.catalogue.catalogue import Catalogue
from ilm_jax.data.catalogue.splits import Splits
from ilm_jax.data.streams.dataset_config import DatasetConfig, Feed
from ilm_jax.data.tokenizers import Tokenizer
from ilm_jax.evaluation.measures.passes import ModelOnMesh
from ilm_jax.evaluation.task import EvaluatedTask
from ilm_jax.objectives.language import LanguageModelling
from ilm_jax.sharding.partitioning import Partitioner


@dataclasses.dataclass(frozen=True, eq=False)
class TrainedModel:
    """What measures, answers and exports take; `ilm_jax.runs.trained.load_trained` opens a run's.

    Attributes:
      model_dir: where it was trained.
      step: of the checkpoint.
      objective: with sizes.
      params: nested, on the mesh.
      partitioner: of the mesh.
      data: dataset, settings and lengths that it was trained with.
      open_feed: gives the examples of a dataset in the form that the model reads.
      splits: of the catalogue.
      tokenizer, stop_ids: of its texts, and what ends them.
      tables: the vectors that it reads; None for text-only models.
      trainable_params, frozen_params: their numbers.
      identity: digest of the weights and of what they were made from.
    """

    model_dir: str
    step: int
    objective: LanguageModelling
    params: dict[str, Any]
    partitioner: Partitioner
    data: DatasetConfig
    open_feed: Callable[[DatasetConfig], Feed]
    splits: Splits
    tokenizer: Tokenizer
    stop_ids: tuple[int, ...]
    tables: TableSet | None
    trainable_params: int
    frozen_params: int
    identity: str = ""

    @property
    def catalogue(self) -> Catalogue:
        """Items, users and interactions."""
        return self.splits.catalogue

    @property
    def vectors(self) -> Float32[np.ndarray, "capacity cf"]:
        """The stacked vectors; one zero for text-only models."""
        return self.tables.vectors if self.tables else np.zeros((1, 1), np.float32)

    @property
    def text_only(self) -> bool:
        """Whether prompts must do without slots."""
        return self.objective.qformer is None

    @functools.cached_property
    def model(self) -> ModelOnMesh:
        """The model as measures take it."""
        return ModelOnMesh(self.objective, self.partitioner, self.vectors)

    def dataset(self, task: str, split: str) -> DatasetConfig:
        """A prompt task in the form that this model reads, in the order of its cache."""
        base = self.data
        settings = base.settings.replace(text_only=self.text_only)
        return base.replace(
            mixture_or_task_name=task, split=split, shuffle=False, repeat=False, settings=settings
        )

    def task(self, name: str, split: str) -> EvaluatedTask:
        """A task to be measured, with its examples."""
        dataset = self.dataset(name, split)
        return EvaluatedTask(
            dataset,
            self.open_feed(dataset),
            self.model,
            self.splits,
            self.tokenizer,
            self.stop_ids,
            self.tables,
        )
