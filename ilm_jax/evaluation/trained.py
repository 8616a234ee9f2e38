"""A trained language model with its parameters, and the tasks that it is evaluated on."""

import dataclasses
import functools
import os
from collections.abc import Callable, Iterable

import numpy as np
from jaxtyping import Array, Float32, Int64, PyTree

from ilm_jax.cf.table_set import TableSet
from ilm_jax.data.catalogue.catalogue import Catalogue
from ilm_jax.data.catalogue.splits import Splits
from ilm_jax.data.examples.prompt_tokens import PromptTokenizer
from ilm_jax.data.examples.prompts import PromptRenderer
from ilm_jax.data.examples.task_specs import TaskSpec
from ilm_jax.data.streams.dataset_config import DatasetConfig
from ilm_jax.data.streams.feed import Feed
from ilm_jax.data.tokenizers import Tokenizer
from ilm_jax.decoding.trie import Trie
from ilm_jax.errors import UserError
from ilm_jax.evaluation.measures.passes import NO_PROMPTS, ModelOnMesh
from ilm_jax.evaluation.measures.ranking import target_trie
from ilm_jax.evaluation.measures.sampling import (
    Sample,
    candidates_fingerprint,
    fingerprint,
    sample_examples,
    text_mark,
    user_mark,
)
from ilm_jax.evaluation.reports import seqio_files
from ilm_jax.objectives.objective import LanguageObjective
from ilm_jax.sharding.partitioning import Partitioner


@dataclasses.dataclass(frozen=True, eq=False)
class EvaluatedTask:
    """One task of one split, as one model reads it.

    Attributes:
      dataset: names the task and the split, settings and lengths.
      feed: its examples, in the order of their cache.
      model: the model on its mesh.
      splits: of the catalogue.
      tokenizer, stop_ids: of its texts, and what ends them.
      tables: the vectors that the model reads, if any.
    """

    dataset: DatasetConfig
    feed: Feed
    model: ModelOnMesh
    splits: Splits
    tokenizer: Tokenizer
    stop_ids: tuple[int, ...] = ()
    tables: TableSet | None = None

    @functools.cached_property
    def spec(self) -> TaskSpec:
        """The task's spec."""
        return self.dataset.specs()[0]

    @property
    def name(self) -> str:
        """Its registered name."""
        return self.spec.name(self.dataset.dataset)

    @property
    def label(self) -> str:
        """Its name as the user gave it, short or registered."""
        return str(self.dataset.mixture_or_task_name)

    @property
    def split(self) -> str:
        """ "train", "validation" or "test"."""
        return self.dataset.split

    @property
    def catalogue(self) -> Catalogue:
        """Items, users and interactions."""
        return self.splits.catalogue

    @property
    def answer_length(self) -> int:
        """Tokens of an answer at most, as in training."""
        return self.dataset.task_feature_lengths["targets"]

    @functools.cached_property
    def renderer(self) -> PromptRenderer:
        """Names the items as the task's answers do."""
        return PromptRenderer(self.splits, self.dataset.naming(self.spec.full))

    @functools.cached_property
    def trie(self) -> Trie:
        """The strings by which its answers name the items."""
        return target_trie(self.renderer, self.tokenizer)

    def sample_of_users(self, size: int | None) -> Sample:
        """All examples of a fixed sample of the users; None: of all."""
        return sample_examples(self._user_marks, size)

    def sample_of_texts(self, size: int | None) -> Sample:
        """A fixed sample of the examples, by hash of their users or items; None: all."""
        total = self.feed.len_epoch
        if size is None:
            return Sample(np.arange(total), total, total)
        items = self.catalogue.item_ids
        return sample_examples([text_mark(self.feed.stream[n], items) for n in range(total)], size)

    @functools.cached_property
    def _user_marks(self) -> list[bytes]:
        return [user_mark(self.feed.facts(n)) for n in range(self.feed.len_epoch)]

    def fingerprint(self, index: Int64[np.ndarray, " units"], *, items: bool = False) -> str:
        """Of what was measured, which two evaluations must share to be compared.

        Args:
          index: numbers of the measured examples.
          items: whether answers are items, which count by id however a task calls them.
        """
        if items:
            known = (self.feed.facts(int(number)) for number in index)
            return fingerprint(known, self.catalogue.item_ids)
        return fingerprint(self.feed.stream[int(number)] for number in index)

    def candidates(self, index: Int64[np.ndarray, " units"]) -> tuple[int, str] | None:
        """(how many items the first prompt names, fingerprint of all lists); None if none does."""
        if not len(index) or "candidates" not in self.feed.stream[int(index[0])]:
            return None
        examples = [self.feed.stream[int(number)] for number in index]
        lists = candidates_fingerprint(examples, self.catalogue.item_ids)
        return len(examples[0]["candidates"]), lists

    def write_answers(
        self,
        folder: str | os.PathLike,
        step: int,
        index: Int64[np.ndarray, " units"],
        targets: Iterable[object],
        predictions: Iterable[object],
    ) -> str:
        """Writes answers in seqio's format; returns the file's name in the folder."""
        words = PromptTokenizer(self.tokenizer).decode_prompt
        asked = [seqio_files.input_fields(self.feed.stream[int(n)], words) for n in index]
        seqio_files.write_answers(folder, self.name, step, asked, targets, prediction=predictions)
        return seqio_files.answers_name(self.name, step)


@dataclasses.dataclass(frozen=True, eq=False)
class TrainedModel:
    """For evaluators, answerers and exports; `ilm_jax.runs.opening.load_trained` opens a run's.

    Attributes:
      model_dir: where it was trained.
      step: of the checkpoint.
      objective: with sizes.
      params: nested, on the mesh.
      partitioner: of the mesh.
      data: dataset, settings and lengths that it was trained with.
      open_feed: gives the examples of a dataset in the form that the model reads.
      splits: of the catalogue; where there are several, of the first dataset's.
      splits_of: gives those of any of its datasets.
      tokenizer, stop_ids: of its texts, and what ends them.
      tables: the vectors that it reads; None for text-only models.
      trainable_params, frozen_params: their numbers.
      identity: digest of the weights and of what they were made from.
    """

    model_dir: str
    step: int
    objective: LanguageObjective
    params: PyTree[Array]
    partitioner: Partitioner
    data: DatasetConfig
    open_feed: Callable[[DatasetConfig], Feed]
    splits: Splits
    splits_of: Callable[[str], Splits]
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
        return self.objective.num_queries == 0

    @functools.cached_property
    def model(self) -> ModelOnMesh:
        """The model as measures take it."""
        return ModelOnMesh(self.objective, self.partitioner, self.vectors)

    def dataset(self, task: str, split: str) -> DatasetConfig:
        """A prompt task in the form that this model reads, in the order of its cache.

        Of several datasets a short name means the first one's, see `DatasetConfig.alone`.
        """
        base = self.data.alone(task, self.catalogue)
        settings = base.settings.replace(text_only=self.text_only)
        return base.replace(split=split, shuffle=False, repeat=False, settings=settings)

    def task(self, name: str, split: str) -> EvaluatedTask:
        """A task to be measured, with its examples.

        Raises:
          UserError: for a task that there is not, or that has no prompts.
        """
        dataset = self.dataset(name, split)
        if dataset.specs()[0].answer == "pairs":
            raise UserError(NO_PROMPTS)
        return EvaluatedTask(
            dataset,
            self.open_feed(dataset),
            self.model,
            self.splits_of(dataset.dataset),
            self.tokenizer,
            self.stop_ids,
            self.tables,
        )
