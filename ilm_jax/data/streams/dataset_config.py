"""From a recipe's few settings to batches: which tasks, mixed how, converted to which shapes."""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

from ilm_jax.checks import Count, Number, Positive, Seed, Weight, check
from ilm_jax.data.catalogue.catalogue import Catalogue
from ilm_jax.data.examples.task_families import find_spec, has_task
from ilm_jax.data.examples.task_keys import (
    naming,
    plain_settings,
    slots_at_most,
    tokenizer_path,
)
from ilm_jax.data.examples.task_settings import TaskSettings
from ilm_jax.data.examples.task_specs import TaskSpec
from ilm_jax.data.sources.prepare import load_catalogue
from ilm_jax.data.streams.converters import Rows
from ilm_jax.data.streams.feed import Feed
from ilm_jax.data.streams.layouts import PROMPTS, Layout
from ilm_jax.data.streams.mixtures import rates_of
from ilm_jax.data.streams.redrawing import Draw, Renderings
from ilm_jax.data.streams.streams import Mixture, Stream
from ilm_jax.data.streams.task_tokenizer import cache_folder
from ilm_jax.data.streams.tasks_on_disk import Task, open_tasks, ready_tokenizer
from ilm_jax.data.tokenizers import Tokenizer
from ilm_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class DatasetConfig:
    """One kind of batch, in t5x's spelling where t5x has the thing.

    Attributes:
      mixture_or_task_name: a task, a mixture (`task_families.mixtures`) or {task: rate} (rate None:
        see `rates_by`; 0: the task is left out). A short name ("long_description"), with its
        family if another has one of that name ("elm24/long_description"), stands for that task of
        every dataset, a registered one ("elm24_toy_long_description") for the one.
      task_feature_lengths: {"inputs", "targets"} of prompt tasks and corpora, {"text"} of
        item-text pairs.
      split: "train", "validation" or "test".
      shuffle: False keeps the order of the task.
      repeat: endless; False for evaluation.
      seed: of the shuffle.
      rates_by: "size" or "equal", for rates that are not given.
      temperature, cap: of rates by size, see `Mixture`.
      truncate_targets: cut over-long targets and texts, and count them, instead of raising.
      max_entities: slots per row at most; None: as many as the settings can bring (where examples
        share rows, of all of them) and a row has room for.
      pack: examples that share a row at most, in training; 0 for none.
      pack_room: positions of a shared row, in rows of one example (`task_feature_lengths`).
      block: so many examples of one task follow each other in training, then as many of the next,
        by turns: BATCH_SIZE for batches of one task each. 0: tasks are mixed by their rates.
      redraw: renderings of each training example in an epoch, each drawn anew from its
        `TaskSettings.variants`; 0: all of them, the same in every epoch.
      use_cached: examples are read from task caches, which are made first where they are absent;
        else they are made when they are read. They are the same.
      dataset, data_dir, cache_dir: see `open_tasks`.
      also: further datasets to mix in, {name: data_dir or None}; `dataset` owns the tokenizer.
      settings: of the tasks.
    """

    mixture_or_task_name: str | Mapping[str, Weight | None]
    task_feature_lengths: Mapping[str, Number] = dataclasses.field(default_factory=dict)
    split: str = "train"
    shuffle: bool = True
    repeat: bool = True
    seed: Seed = 0
    rates_by: str = "size"
    temperature: Positive = 1.0
    cap: Count | None = None
    truncate_targets: bool = False
    max_entities: Number | None = None
    pack: Number = 0
    pack_room: Positive = 1.0
    block: Number = 0
    redraw: Number = 0
    use_cached: bool = False
    dataset: str = "toy"
    data_dir: str | None = None
    also: Mapping[str, str | None] = dataclasses.field(default_factory=dict)
    cache_dir: str | os.PathLike | None = None
    settings: TaskSettings = TaskSettings()

    def __post_init__(self) -> None:
        check(self)

    def replace(self, **changes: object) -> "DatasetConfig":
        """A copy with some fields changed, such as `split="validation", repeat=False`."""
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]

    @property
    def rates(self) -> dict[str, float | None]:
        """Rate of every task by its registered name.

        Raises:
          UserError: for an unknown task, or one named twice.
        """
        return {name: rate for name, (_, _, rate) in self._tasks().items()}

    @property
    def own_tasks(self) -> list[str]:
        """Registered names of the tasks of `dataset` itself."""
        return [name for name, (dataset, _, _) in self._tasks().items() if dataset == self.dataset]

    def specs(self) -> list[TaskSpec]:
        """The tasks that are mixed; errors as `rates`."""
        return [spec for _, spec, _ in self._tasks().values()]

    def alone(self, task: str, catalogue: Catalogue | None = None) -> "DatasetConfig":
        """One task by itself, in the catalogue that it is of, to be measured or asked.

        Args:
          task: a short name stands for that task of `dataset`, a registered one for the dataset's
            of which it is; words are cut as when the datasets are mixed.
          catalogue: the loaded catalogue of `dataset`, if the caller has it.
        """
        owner, *_ = self._owners(task)
        one = self.replace(mixture_or_task_name=task, also={})
        if owner == self.dataset:
            return one
        settings = self._shared_settings(catalogue)
        return one.replace(dataset=owner, data_dir=self.also[owner], settings=settings)

    def naming(self, task: str | None = None) -> TaskSettings:
        """The settings by which a task's prompts and answers name items.

        Args:
          task: its name; None: the first that is mixed whose answers are items, if any is.

        Raises:
          UserError: for an unknown task.
        """
        for spec in self.specs() if task is None else [find_spec(self.dataset, task)]:
            if task is not None or spec.answer == "items":
                return naming(spec, self.settings)
        return self.settings

    def record(self) -> dict[str, Any]:
        """What decides the examples and their order, beside data and tokenizer; no paths."""
        chosen = (
            "task_feature_lengths",
            "split",
            "shuffle",
            "seed",
            "rates_by",
            "temperature",
            "cap",
            "truncate_targets",
            "max_entities",
            "pack",
            "pack_room",
            "block",
            "redraw",
        )
        tasks = {
            name: {
                "version": spec.version,
                "rate": rate,
                "settings": plain_settings(spec, self.settings),
            }
            for name, (_, spec, rate) in self._tasks().items()
        }
        return {"tasks": tasks, **{name: getattr(self, name) for name in chosen}}

    def _owners(self, task: str) -> list[str]:
        """The datasets that have a task; where none has it, the first one, which says so."""
        return [d for d in (self.dataset, *self.also) if has_task(d, task)] or [self.dataset]

    def _tasks(self) -> dict[str, tuple[str, TaskSpec, float | None]]:
        """(dataset, task, rate) by registered name, of the tasks that are not left out."""
        found: dict[str, tuple[str, TaskSpec, float | None]] = {}
        given = rates_of(self.mixture_or_task_name, self.rates_by)
        for name, rate in given.items():
            for dataset in self._owners(name):
                spec = find_spec(dataset, name)
                if spec.name(dataset) in found:
                    raise UserError(f"mixture {list(given)} names a task twice")
                found[spec.name(dataset)] = (dataset, spec, rate)
        kept = {name: task for name, task in found.items() if task[2] != 0}
        if found and not kept:
            raise UserError(f"mixture {list(given)}: all rates are 0; give one above")
        return kept

    def open_tokenizer(self, catalogue: Catalogue) -> Tokenizer:
        """The tokenizer of the tasks, made first where it is absent; errors as `open_tasks`."""
        return ready_tokenizer(
            self.dataset,
            self.settings,
            self.own_tasks,
            catalogue,
            data_dir=self.data_dir,
            cache_dir=self.cache_dir,
            use_cached=self.use_cached,
        )

    def open(self, catalogue: Catalogue | None = None) -> dict[str, Task]:
        """The tasks of the split; errors as `open_tasks`."""
        opened: dict[str, Task] = {}
        if self.own_tasks or not self.also:
            opened |= open_tasks(
                self.dataset,
                self.settings,
                self.own_tasks,
                self.split,
                data_dir=self.data_dir,
                cache_dir=self.cache_dir,
                catalogue=catalogue,
                use_cached=self.use_cached,
            )
        for dataset, folder in self.also.items():
            names = [name for name, (owner, _, _) in self._tasks().items() if owner == dataset]
            opened |= open_tasks(
                dataset,
                self._shared_settings(catalogue),
                names,
                self.split,
                data_dir=folder,
                cache_dir=self.cache_dir,
                use_cached=self.use_cached,
            )
        return opened

    def _shared_settings(self, catalogue: Catalogue | None) -> TaskSettings:
        """The settings with the path of this dataset's tokenizer, which exists by now."""
        catalogue = catalogue or load_catalogue(
            self.dataset, data_dir=self.data_dir, cache_dir=self.cache_dir
        )
        path = tokenizer_path(
            self.dataset, self.settings, catalogue.fingerprint, cache_folder(self.cache_dir)
        )
        return self.settings.replace(tokenizer=str(path))

    def build(
        self,
        rows: Rows | None = None,
        *,
        layout: Layout = PROMPTS,
        catalogue: Catalogue | None = None,
    ) -> Feed:
        """Batches of this configuration.

        Args:
          rows: (block, local rows) -> global rows, as `TableSet.rows`; None for text alone.
          layout: what becomes of the examples; an objective's, for one of its batch kinds.
          catalogue: the loaded catalogue, if the caller has it.

        Raises:
          UserError: for tasks that the layout does not take, or as `open_tasks` and the converters.
        """
        layout.check(self, rows)  # before data is opened, which may take minutes
        self._check_redraw()
        catalogue = catalogue or load_catalogue(
            self.dataset, data_dir=self.data_dir, cache_dir=self.cache_dir
        )
        tokenizer = self.open_tokenizer(catalogue)
        tasks = self.open(catalogue)
        sources, converter = layout.open(self, dict(tasks), tokenizer, rows)
        drawn: dict[str, Renderings] = {}
        if self.redraw and self.repeat:
            how = self.settings.variants, self.redraw
            drawn = {name: Renderings(source, *how, name) for name, source in sources.items()}
        stream = Stream(
            drawn or sources,
            Mixture(self.rates, self.temperature, self.cap),
            seed=self.seed,
            shuffle=self.shuffle,
            repeat=self.repeat,
            block=self.block,
            transform=Draw(drawn) if drawn else None,
        )
        return Feed(stream, converter, wrap=layout.wraps)

    def _check_redraw(self) -> None:
        """Raises UserError where renderings cannot be drawn anew in every epoch."""
        if not self.redraw:
            return
        for spec in self.specs():
            if spec.settings is not None and "variants" not in spec.settings:
                raise UserError(f"DatasetConfig.redraw: {spec.task} has one rendering of each")
        if self.shares_rows:
            raise UserError(
                "DatasetConfig.redraw and pack: which examples share a row is planned once, of "
                "all renderings; leave one of the two out"
            )

    @property
    def shares_rows(self) -> bool:
        """Whether several examples stand in a row: in training alone."""
        return self.pack > 1 and self.repeat

    @property
    def row_lengths(self) -> Mapping[str, int]:
        """Lengths of a row: `task_feature_lengths`, or those of all examples that share it.

        No prompt is longer for it; answers have what is left.
        """
        lengths = self.task_feature_lengths
        if not self.shares_rows or "inputs" not in lengths:  # pairs share no rows
            return lengths
        positions = int(sum(lengths.values()) * self.pack_room)
        return {**lengths, "targets": positions - lengths["inputs"]}

    @property
    def row_entities(self) -> int:
        """Slots of a prompt: `max_entities`, or as many as its settings can bring."""
        if self.max_entities is not None:
            return self.max_entities
        return max(1, *(slots_at_most(spec, self.settings) for spec in self.specs()))
