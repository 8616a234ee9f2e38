"""One run as a recipe describes it, and what it opens: catalogue, table, batches, objective."""

import dataclasses
import functools
import pathlib
from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np

from ilm_jax.cf.grown_tables import grown_since, joined
from ilm_jax.cf.item_rows import ItemRows, check_vectors, item_rows
from ilm_jax.cf.table import EmbeddingTable
from ilm_jax.cf.table_set import TableSet
from ilm_jax.checkpoints.checkpoints import CheckpointConfig
from ilm_jax.checkpoints.identity import identity
from ilm_jax.checks import Choice, Number, check
from ilm_jax.data.catalogue.catalogue import Catalogue
from ilm_jax.data.catalogue.splits import TRAIN, Splits, make_splits
from ilm_jax.data.examples.task_keys import has_prompts
from ilm_jax.data.sources.prepare import load_catalogue
from ilm_jax.data.streams.dataset_config import DatasetConfig
from ilm_jax.data.streams.feed import Feed
from ilm_jax.data.streams.schedule import Schedule
from ilm_jax.data.tokenizers import (
    Tokenizer,
    chat_of,
    record_of,
    record_of_new,
    stop_ids,
    without_new_tokens,
)
from ilm_jax.errors import UserError
from ilm_jax.evaluation.infer_eval import InferEval, InferEvalConfig
from ilm_jax.evaluation.measures.passes import ModelOnMesh
from ilm_jax.files import sha256_json
from ilm_jax.objectives.objective import Objective
from ilm_jax.sharding.freezing import matches
from ilm_jax.sharding.partitioning import Partitioner
from ilm_jax.sharding.processes import ProcessConfig
from ilm_jax.training.optimizers import OptimizerConfig
from ilm_jax.training.trainer import Trainer, TrainerConfig


@dataclasses.dataclass
class Run:
    """The root of every training recipe.

    Attributes:
      model_dir: where everything that the run makes goes.
      objective: such as `Alignment` (stage 1) or `LanguageModelling` (stages 0 and 2); what it
        leaves open of vocabulary and vector width comes from the tokenizer and the table.
      train: dataset of each batch kind.
      train_eval: the same for validation during training; may leave kinds out.
      schedule: steps of each kind per cycle; one each if empty.
      cf_table: file written by `ilm fit_cf`; "" for text-only models; over several datasets, one
        file each, set apart by commas.
      normalise: of the table's vectors, see `TableSet`.
      infer_eval: generation and ranking during training; None, or one that is never due, for none.
      topology: the pod that the recipe is for, such as "v5e:16x16"; `ilm precompile` and
        launch/tpu_pod.py read it, training takes the devices that there are.
      processes: how the processes of a run wait for each other.
    """

    model_dir: str
    objective: Objective
    train: Mapping[str, DatasetConfig]
    trainer: TrainerConfig
    train_eval: Mapping[str, DatasetConfig] = dataclasses.field(default_factory=dict)
    schedule: Mapping[str, Number] = dataclasses.field(default_factory=dict)
    optimizer: OptimizerConfig = OptimizerConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    partitioner: Partitioner = Partitioner()
    cf_table: str = ""
    normalise: Annotated[str, Choice(("rms", "none"))] = "rms"
    infer_eval: InferEvalConfig | None = None
    topology: str = ""
    processes: ProcessConfig = ProcessConfig()

    def __post_init__(self) -> None:
        check(self)

    @property
    def dataset(self) -> DatasetConfig:
        """The first kind's dataset: names the catalogue, its settings and folders."""
        return next(iter(self.train.values()))

    @functools.cached_property
    def catalogue(self) -> Catalogue:
        """Items, users and interactions."""
        at = self.dataset
        return load_catalogue(at.dataset, data_dir=at.data_dir, cache_dir=at.cache_dir)

    @functools.cached_property
    def splits(self) -> Splits:
        """The catalogue, split."""
        return make_splits(self.catalogue, self.dataset.settings.split)

    @functools.cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the tasks; made on first use."""
        return self.dataset.open_tokenizer(self.catalogue)

    @property
    def language_model_folders(self) -> list[str]:
        """Where the recipe takes its language model from, the first first."""
        return [s.path for s in self.trainer.init if s.top == "lm" and matches("lm/", s.parameters)]

    @functools.cached_property
    def stop_ids(self) -> tuple[int, ...]:
        """Ids that end what the language model writes: the tokenizer's, and its folders' own."""
        return stop_ids(self.tokenizer, self.language_model_folders)

    @functools.cached_property
    def tables(self) -> TableSet | None:
        """The embedding table, checked against the splits; None for text-only models."""
        return TableSet(*tables, normalise=self.normalise) if (tables := self._files) else None

    def keep_trained_rows(self, record: Mapping[str, Any] | None) -> list[str]:
        """Takes tables that extend those of a run's record as these, and more; says how much more.

        Nothing joined where they do not extend them: they stay as they are, and `check_use` judges.
        """
        found = grown_since(record, self._files, self.tables)
        if found is None or record is None:
            return []
        self.tables = found
        return joined(record, found)

    @functools.cached_property
    def _files(self) -> list[EmbeddingTable]:
        """The tables as their files have them; none for text-only models."""
        if not self.cf_table:
            if self.objective.needs_table:
                raise UserError(
                    "this model reads item vectors: give the file that `ilm fit_cf` "
                    "wrote as --gin.CF_TABLE=…"
                )
            return []
        paths = self.cf_table.split(",")
        for path in paths:
            if not pathlib.Path(path).is_file():
                if pathlib.Path(path).is_dir():
                    raise UserError(
                        f"no embedding table at {path}, which is a folder: name the file that "
                        "`ilm fit_cf` wrote"
                    )
                raise UserError(f"no embedding table at {path}: run `ilm fit_cf --output={path}`")
        catalogues = [self.splits, *self._further_splits]
        if len(paths) != len(catalogues):
            raise UserError(
                f"{len(paths)} embedding tables for {len(catalogues)} datasets: give one file per "
                "dataset, in their order, set apart by commas"
            )
        return list(map(EmbeddingTable.load, paths, catalogues))

    @functools.cached_property
    def _further_splits(self) -> list[Splits]:
        """Of the datasets that `also` mixes in."""
        at = self.dataset
        return [
            make_splits(
                load_catalogue(name, data_dir=folder, cache_dir=at.cache_dir), at.settings.split
            )
            for name, folder in at.also.items()
        ]

    def splits_of(self, dataset: str) -> Splits:
        """The split catalogue of one of its datasets.

        Raises:
          UserError: for another dataset.
        """
        every = dict(zip(self.dataset.also, self._further_splits, strict=True))
        if dataset != self.dataset.dataset and dataset not in every:
            known = ", ".join([self.dataset.dataset, *every])
            raise UserError(
                f"{self.model_dir} reads no dataset {dataset!r}: it was made of {known}; name a "
                "task of those"
            )
        return every.get(dataset, self.splits)

    @property
    def vectors(self) -> np.ndarray:
        """The stacked vectors [capacity, cf]; one zero for text-only models."""
        return self.tables.vectors if self.tables else np.zeros((1, 1), np.float32)

    @property
    def start_rows(self) -> np.ndarray | None:
        """Rows of the vectors of training items, from which parameters may start."""
        if self.tables is None:
            return None
        rows = [
            self.tables.rows(f"{splits.catalogue.name}/item", splits.items_in(TRAIN))
            for splits in (self.splits, *self._further_splits)
        ]
        found = np.concatenate(rows)
        return found[~self.tables.cold[found]]

    @functools.cached_property
    def sized_objective(self) -> Objective:
        """The objective with the tokenizer's vocabulary and the table's width."""
        return self.objective.with_sizes(
            tokenizer=self.tokenizer,
            cf_dim=self.vectors.shape[1],
            target_length=self.target_length,
            items=self._items,
        )

    @property
    def _items(self) -> tuple[ItemRows, ...]:
        """Rows of the table that hold items, where the objective scores them."""
        if self.tables is None or not self.objective.scores_items:
            return ()
        every = (self.splits, *self._further_splits)
        return item_rows(self.tables, {s.catalogue.name: s.train_counts() for s in every})

    def _check_targets(self) -> None:
        """Raises UserError where the objective scores items and a training target has no vector."""
        if self.tables is None or not self.objective.scores_items:
            return
        for splits in (self.splits, *self._further_splits):
            catalogue = splits.catalogue
            counts = splits.train_counts()
            check_vectors(self.tables, catalogue.name, counts, catalogue.item_ids)

    @property
    def target_length(self) -> int:
        """Target tokens of a row at most, also of validation; 0 where rows are no prompts.

        Losses read no more of a row than these.
        """
        datasets = [*self.train.values(), *self.train_eval.values()]
        return max(dataset.row_lengths.get("targets", 0) for dataset in datasets)

    def feed(self, dataset: DatasetConfig, kind: str | None = None) -> Feed:
        """Batches of a dataset for this run's model, of one of its kinds; None: of its first."""
        own = dataset.dataset == self.dataset.dataset
        return dataset.build(
            self.tables.rows if self.tables else None,
            layout=self.objective.layout(kind or self.objective.kinds[0]),
            catalogue=self.catalogue if own else self.splits_of(dataset.dataset).catalogue,
        )

    def made_from(self) -> dict[str, Any]:
        """The part of the run's record (checkpoints/record.py) that its data make."""
        splits = [self.splits, *self._further_splits]
        read = [spec for dataset in self.train.values() for spec in dataset.specs()]
        prompts = {"prompts": record_of(self.tokenizer)} if any(map(has_prompts, read)) else {}
        new = {"new_tokens": new} if (new := record_of_new(self.tokenizer)) else {}
        return {
            **prompts,
            **new,
            "data": {s.catalogue.name: s.fingerprint for s in splits},
            "table": self.tables.fingerprint if self.tables else None,
            **({"table_rows": self.tables.sizes} if self.tables else {}),
            "tokenizer": without_new_tokens(self.tokenizer).fingerprint,
            "train": {kind: dataset.record() for kind, dataset in self.train.items()},
            "validation": {kind: dataset.record() for kind, dataset in self.train_eval.items()},
        }

    def inputs(self) -> dict[str, str]:
        """{what: identity} of all that the run is made from, beside its recipe."""
        tables = [path for path in self.cf_table.split(",") if path]
        tokenizer = self.dataset.settings.tokenizer
        sources = [(f"init {i}", s.path, s.step) for i, s in enumerate(self.trainer.init)]
        named = [(f"table {i}", path, "best") for i, path in enumerate(tables)] + sources
        named += [("tokenizer", tokenizer, "best")] if tokenizer else []
        splits = [self.splits, *self._further_splits]
        data = {f"data {s.catalogue.name}": s.fingerprint for s in splits}
        tasks = self.made_from()
        laid_out = [tasks["prompts"]] if chat_of(self.tokenizer) and "prompts" in tasks else []
        data["tasks"] = sha256_json([tasks["train"], tasks["validation"], *laid_out])
        return data | {what: identity(path, step) for what, path, step in named}

    def make_trainer(self, config_text: str = "") -> Trainer:
        """Opens everything and returns the trainer, not yet started."""
        # A mesh or batch size that does not fit should not wait for data to be opened.
        self.partitioner.batch_sharding(self.trainer.batch_size)
        self._check_targets()
        evaluation = {
            kind: self.feed(dataset.replace(shuffle=False, repeat=False), kind)
            for kind, dataset in self.train_eval.items()
        }
        return Trainer(
            model_dir=self.model_dir,
            objective=self.sized_objective,
            table=self.vectors,
            start_rows=self.start_rows,
            sources={kind: self.feed(dataset, kind) for kind, dataset in self.train.items()},
            eval_sources={kind: (feed, feed.len_epoch) for kind, feed in evaluation.items()},
            schedule=Schedule(self.schedule or dict.fromkeys(self.train, 1)),
            config=self.trainer,
            optimizer=self.optimizer,
            checkpoint=self.checkpoint,
            partitioner=self.partitioner,
            config_text=config_text,
            made_from=self.made_from(),
            inference=self._inference(),
        )

    def _inference(self) -> InferEval | None:
        config, objective = self.infer_eval, self.sized_objective.language
        if config is None or not config.every:
            return None
        if objective is None:
            raise UserError("infer_eval asks a run without a language model for answers")
        model = ModelOnMesh(objective, self.partitioner, self.vectors)
        folder = pathlib.Path(self.model_dir) / "infer_eval"
        return InferEval(
            config, model, self.feed, self.splits_of, self.tokenizer, folder, self.stop_ids
        )
