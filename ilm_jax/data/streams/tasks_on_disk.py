"""Opening tasks by name: what is not cached yet is cached in a process of its own first.

TensorFlow-free: the whole of training goes through `open_tasks`.
"""

import os
import pathlib
from collections.abc import Sequence

from ilm_jax import subprocesses
from ilm_jax.data.catalogue.catalogue import Catalogue
from ilm_jax.data.examples.item_index import vocabulary
from ilm_jax.data.examples.settings_json import settings_json
from ilm_jax.data.examples.task_families import find_spec
from ilm_jax.data.examples.task_keys import task_key, task_path, tokenizer_path
from ilm_jax.data.examples.task_settings import SPLITS, TaskSettings
from ilm_jax.data.examples.task_specs import TaskSpec
from ilm_jax.data.sources.prepare import default_cache_dir, load_catalogue
from ilm_jax.data.streams.cached_task import CachedTask
from ilm_jax.data.tokenizers import Tokenizer, chat_of, extended, formatted, open_tokenizer_at
from ilm_jax.errors import UserError
from ilm_jax.locks import taking_turns

StrPath = str | os.PathLike
PROGRESS = "cache: "


def open_tasks(
    dataset: str,
    settings: TaskSettings,
    names: Sequence[str],
    split: str,
    *,
    data_dir: StrPath | None = None,
    cache_dir: StrPath | None = None,
    catalogue: Catalogue | None = None,
) -> dict[str, CachedTask]:
    """Opens one split of some tasks, cached first where needed.

    Args:
      dataset: such as "toy".
      settings: of the tasks.
      names: registered names ("align_toy_item_text") or short ones ("item_text").
      split: "train", "validation" or "test".
      data_dir: folder of the raw files, for a dataset that has any.
      cache_dir: None means `default_cache_dir()`.
      catalogue: the loaded catalogue, if the caller has it.

    Returns:
      the tasks by registered name.

    Raises:
      UserError: for an unknown task or split, an empty split, or a cache that cannot be made.
    """
    if split not in SPLITS:
        raise UserError(f"no split {split!r}; there are {', '.join(SPLITS)}")
    cache = _cache_dir(cache_dir)
    catalogue = catalogue or load_catalogue(dataset, data_dir=data_dir, cache_dir=cache)
    specs = [find_spec(dataset, name) for name in names]
    ensure_cached(
        dataset,
        settings,
        [spec.name(dataset) for spec in specs],
        catalogue,
        data_dir=data_dir,
        cache_dir=cache,
    )
    tokenizer = open_tokenizer(dataset, settings, catalogue, cache)
    opened = {}
    for spec in specs:
        name = spec.name(dataset)
        key = _key(spec, settings, catalogue, tokenizer)
        task = CachedTask(task_path(name, key, cache, split))
        if not len(task):
            held_out = settings.split.held_out_items
            raise UserError(
                f"{name}: split {split!r} is empty (held_out_items={held_out}); "
                "leave the task out of this split, or change the split settings"
            )
        opened[name] = task
    return opened


def open_tokenizer(
    dataset: str,
    settings: TaskSettings,
    catalogue: Catalogue,
    cache_dir: StrPath | None = None,
) -> Tokenizer:
    """The tokenizer of cached tasks, with the words and the layout that the settings ask for.

    Raises:
      UserError: if it is absent: no task has been cached with these settings; or as `laid_out`.
    """
    path = tokenizer_path(dataset, settings, catalogue.fingerprint, _cache_dir(cache_dir))
    return laid_out(path, settings)


def laid_out(path: StrPath, settings: TaskSettings) -> Tokenizer:
    """The tokenizer of a path with the words appended that ids need, and the layout of prompts.

    Raises:
      UserError: as `open_tokenizer_at`, `vocabulary` and `formatted`.
    """
    tokenizer = extended(open_tokenizer_at(path), vocabulary(settings, settings.new_tokens))
    return formatted(tokenizer, settings.prompt_format, settings.system_text)


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
    cache = _cache_dir(cache_dir)
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
    cache = _cache_dir(cache_dir)
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


def _cache_dir(cache_dir: StrPath | None) -> pathlib.Path:
    return default_cache_dir() if cache_dir is None else pathlib.Path(cache_dir).expanduser()
