"""Opening tasks by name: their examples are made as they are read, or read from caches.

Caches that are asked for and absent are made in a process of their own first. TensorFlow-free: the
whole of training goes through `open_tasks`.
"""

import functools
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from ilm_jax import subprocesses
from ilm_jax.data.catalogue.catalogue import Catalogue
from ilm_jax.data.examples.example import Example
from ilm_jax.data.examples.settings_json import settings_json
from ilm_jax.data.examples.task_families import find_spec
from ilm_jax.data.examples.task_keys import task_key, task_path, tokenizer_path
from ilm_jax.data.examples.task_settings import SPLITS, TaskSettings
from ilm_jax.data.examples.task_specs import TaskSpec
from ilm_jax.data.sources.prepare import load_catalogue
from ilm_jax.data.streams.cached_task import CachedTask
from ilm_jax.data.streams.on_demand import OnDemandTask, examples_of, splits_of
from ilm_jax.data.streams.task_tokenizer import cache_folder, ensure_tokenizer, open_tokenizer
from ilm_jax.data.tokenizers import Tokenizer, chat_of
from ilm_jax.errors import UserError
from ilm_jax.locks import taking_turns

StrPath = str | os.PathLike
PROGRESS = "cache: "


class Task(Protocol):
    """One split of a task by random access; example i is a pure function of i.

    Attributes:
      path: folder of what is kept of this split on disk.
    """

    path: pathlib.Path

    @property
    def name(self) -> str:
        """Registered name of the task."""

    @property
    def catalogue(self) -> str:
        """Name of the catalogue that local rows count in."""

    def __len__(self) -> int:
        """Number of examples."""

    def __getitem__(self, index: int) -> Example:
        """Example `index`: read-only int32 arrays, integers, strings, and "catalogue"."""

    def __iter__(self) -> Iterator[Example]:
        """All examples in order."""


def open_tasks(
    dataset: str,
    settings: TaskSettings,
    names: Sequence[str],
    split: str,
    *,
    data_dir: StrPath | None = None,
    cache_dir: StrPath | None = None,
    catalogue: Catalogue | None = None,
    use_cached: bool = False,
) -> Mapping[str, Task]:
    """Opens one split of some tasks.

    Args:
      dataset: such as "toy".
      settings: of the tasks.
      names: registered names ("align_toy_item_text") or short ones ("item_text").
      split: "train", "validation" or "test".
      data_dir: folder of the raw files, for a dataset that has any.
      cache_dir: None means `default_cache_dir()`.
      catalogue: the loaded catalogue, if the caller has it.
      use_cached: whether caches are read, and made first where they are absent; else examples are
        made when they are read. The examples are the same.

    Returns:
      the tasks by registered name.

    Raises:
      UserError: for an unknown task or split, an empty split, or a cache that cannot be made.
    """
    if split not in SPLITS:
        raise UserError(f"no split {split!r}; there are {', '.join(SPLITS)}")
    cache = cache_folder(cache_dir)
    catalogue = catalogue or load_catalogue(dataset, data_dir=data_dir, cache_dir=cache)
    specs = [find_spec(dataset, name) for name in names]
    where: dict[str, Any] = {"data_dir": data_dir, "cache_dir": cache}
    tokenizer = ready_tokenizer(
        dataset,
        settings,
        [spec.name(dataset) for spec in specs],
        catalogue,
        use_cached=use_cached,
        **where,
    )
    opened: dict[str, Task] = {}
    for spec in specs:
        name, key = spec.name(dataset), _key(spec, settings, catalogue, tokenizer)
        path = task_path(name, key, cache, split)
        task: Task
        if use_cached:
            task = CachedTask(path)
        else:
            splits = splits_of(catalogue, settings.split)
            examples = examples_of(spec, settings, splits, tokenizer, key)
            again = functools.partial(open_tasks, dataset, settings, [spec.full], split, **where)
            task = OnDemandTask(name, examples, split, path, again)
        opened[name] = _not_empty(task, split, settings)
    return opened


def _not_empty(task: Task, split: str, settings: TaskSettings) -> Task:
    if not len(task):
        held_out = settings.split.held_out_items
        raise UserError(
            f"{task.name}: split {split!r} is empty (held_out_items={held_out}); "
            "leave the task out of this split, or change the split settings"
        )
    return task


def ready_tokenizer(
    dataset: str,
    settings: TaskSettings,
    names: Sequence[str],
    catalogue: Catalogue,
    *,
    data_dir: StrPath | None = None,
    cache_dir: StrPath | None = None,
    use_cached: bool = False,
) -> Tokenizer:
    """The tokenizer of some tasks, made first where it is absent; arguments as `open_tasks`.

    Raises:
      UserError: as `ensure_cached` and `ensure_tokenizer`.
    """
    if not use_cached:
        splits = splits_of(catalogue, settings.split)
        return ensure_tokenizer(dataset, settings, catalogue, cache_dir, splits)
    where: dict[str, Any] = {"data_dir": data_dir, "cache_dir": cache_dir}
    ensure_cached(dataset, settings, names, catalogue, **where)
    return open_tokenizer(dataset, settings, catalogue, cache_dir)


def _key(spec: TaskSpec, settings: TaskSettings, catalogue: Catalogue, tokenizer: Tokenizer) -> str:
    fingerprints = catalogue.fingerprint, tokenizer.fingerprint, chat_of(tokenizer)
    return task_key(spec, settings, *fingerprints)


def ensure_cached(
    dataset: str,
    settings: TaskSettings,
    names: Sequence[str],
    catalogue: Catalogue,
    *,
    data_dir: StrPath | None = None,
    cache_dir: StrPath | None = None,
) -> None:
    """Runs `ilm cache_tasks` in a process of its own for the tasks that are not cached.

    Raises:
      UserError: what that process says, if it fails.
    """
    cache = cache_folder(cache_dir)
    if not missing_tasks(dataset, settings, names, catalogue, cache):
        return
    with taking_turns(cache / "tasks/.lock"):
        missing = missing_tasks(dataset, settings, names, catalogue, cache)
        if not missing:  # another process was faster
            return
        words = [
            "ilm_jax",
            "cache_tasks",
            f"--dataset={dataset}",
            f"--cache_dir={cache}",
            f"--settings={settings_json(settings)}",
            f"--tasks={','.join(missing)}",
            "--nowith_text_only",
        ]
        if data_dir is not None:
            words.append(f"--data_dir={data_dir}")
        subprocesses.run(words, shown=[PROGRESS])


def missing_tasks(
    dataset: str,
    settings: TaskSettings,
    names: Sequence[str],
    catalogue: Catalogue,
    cache_dir: StrPath | None = None,
) -> list[str]:
    """Those of the tasks of which some split is not cached, by registered name.

    Raises:
      UserError: for an unknown task, or a damaged tokenizer.
    """
    cache = cache_folder(cache_dir)
    specs = {name: find_spec(dataset, name) for name in names}
    path = tokenizer_path(dataset, settings, catalogue.fingerprint, cache)
    if not settings.tokenizer and not path.exists():
        return [spec.name(dataset) for spec in specs.values()]
    tokenizer = open_tokenizer(dataset, settings, catalogue, cache)
    missing = []
    for spec in specs.values():
        name = spec.name(dataset)
        key = _key(spec, settings, catalogue, tokenizer)
        folders = [task_path(name, key, cache, split) for split in SPLITS]
        if not all((folder / "info.json").exists() for folder in folders):
            missing.append(name)
    return missing
