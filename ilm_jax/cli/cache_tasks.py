"""`ilm cache_tasks`: prepares a dataset for training: catalogue, tokenizer, task caches.

Training does this on demand, in a process of its own; the verb does it ahead of time and prints
what there is.
"""

import json
import pathlib
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from absl import flags

if TYPE_CHECKING:
    from ilm_jax.data.splits import Splits
    from ilm_jax.data.task_settings import TaskSettings, TaskSpec
    from ilm_jax.data.tokenizers import Tokenizer


def _flags() -> flags.FlagValues:
    values = flags.FlagValues()
    texts = {
        "dataset": ("toy", "Dataset, such as toy or movielens/latest_small."),
        "data_dir": (None, "Folder of the dataset's raw files."),
        "cache_dir": (None, "Folder of prepared data (default: $ILM_CACHE or ~/.cache/ilm_jax)."),
        "settings": ("{}", 'JSON of task settings to change, such as {"history": 20}.'),
    }
    for name, (default, text) in texts.items():
        flags.DEFINE_string(name, default, text, flag_values=values)
    flags.DEFINE_list(
        "tasks", [], "Tasks by full or short name, or families such as openp5; default: those of "
        "the shipped recipes. `ilm inspect` lists all.", flag_values=values,
    )  # fmt: skip
    flags.DEFINE_bool(
        "with_text_only", True, "Also cache the prompt tasks with every slot in words.",
        flag_values=values,
    )  # fmt: skip
    return values


def main(argv: Sequence[str]) -> int:
    """Runs the verb with the words after it; returns the exit code.

    Raises:
      UserError: for wrong input.
    """
    from ilm_jax.cli.words import parse_flags

    values = _flags()
    parse_flags(values, "cache_tasks", argv)

    from ilm_jax.data.prepare import default_cache_dir, load_catalogue
    from ilm_jax.data.splits import make_splits
    from ilm_jax.data.task_settings import settings_from
    from ilm_jax.data.task_specs import DEFAULT_TASKS, find_specs

    settings = settings_from(parse_settings(values.settings))
    specs = find_specs(values.dataset, values.tasks or DEFAULT_TASKS)
    cache_dir = pathlib.Path(values.cache_dir or default_cache_dir()).expanduser()
    catalogue = load_catalogue(values.dataset, data_dir=values.data_dir, cache_dir=cache_dir)
    splits = make_splits(catalogue, settings.split)
    tokenizer = ensure_tokenizer(values.dataset, splits, settings, cache_dir)
    infos = list(cache(values.dataset, specs, settings, splits, tokenizer, cache_dir))
    if values.with_text_only and not settings.text_only:
        prompts = [spec for spec in specs if "text_only" in spec.settings]
        words = settings.replace(text_only=True)
        infos += cache(values.dataset, prompts, words, splits, tokenizer, cache_dir)
    print(table(infos))
    print(f"tokenizer: {tokenizer.vocab_size} pieces, {tokenizer.fingerprint[:12]}")
    print(f"everything lies in {cache_dir}")
    return 0


def parse_settings(text: str) -> dict[str, Any]:
    """The JSON object that `--settings` gives; UserError for anything else."""
    from ilm_jax.errors import UserError

    try:
        value = json.loads(text)
    except ValueError as error:
        raise UserError(f"--settings={text!r} is not JSON ({error})") from error
    if not isinstance(value, dict):
        raise UserError(f'--settings={text!r}: give an object such as {{"history": 20}}')
    return value


def ensure_tokenizer(
    dataset: str, splits: "Splits", settings: "TaskSettings", cache_dir: pathlib.Path
) -> "Tokenizer":
    """Loads the tokenizer of a dataset, trained and saved first if absent.

    Raises:
      UserError: if a tokenizer that the settings name is absent, or a model file is damaged.
    """
    from ilm_jax.data.task_settings import tokenizer_path
    from ilm_jax.data.tokenizers import open_tokenizer_at

    path = tokenizer_path(dataset, settings, splits.catalogue.fingerprint, cache_dir)
    if not settings.tokenizer and not path.exists():
        from ilm_jax.tasks.corpus import train_tokenizer

        tokenizer = train_tokenizer(splits, settings)
        tokenizer.save(path)
        print(f"cache: {path.name}: {tokenizer.vocab_size} pieces", file=sys.stderr, flush=True)
    return open_tokenizer_at(path)


def cache(
    dataset: str,
    specs: Sequence["TaskSpec"],
    settings: "TaskSettings",
    splits: "Splits",
    tokenizer: "Tokenizer",
    cache_dir: pathlib.Path,
) -> Iterator[dict[str, Any]]:
    """Writes every split of some tasks that is not there yet; yields what info.json says of each.

    Imports TensorFlow if anything is to be written.
    """
    from ilm_jax.data.task_cache import CachedTask
    from ilm_jax.data.task_settings import SPLITS, task_key, task_path

    for spec in specs:
        name = spec.name(dataset)
        key = task_key(spec, settings, splits.catalogue.fingerprint, tokenizer.fingerprint)
        for split in SPLITS:
            path = task_path(name, key, cache_dir, split)
            if not (path / "info.json").exists():
                _write(dataset, spec, settings, splits, tokenizer, split, key, path)
            yield CachedTask(path).info


def _write(
    dataset: str,
    spec: "TaskSpec",
    settings: "TaskSettings",
    splits: "Splits",
    tokenizer: "Tokenizer",
    split: str,
    key: str,
    path: pathlib.Path,
) -> None:
    from ilm_jax.data import task_cache
    from ilm_jax.data.task_settings import plain_settings
    from ilm_jax.tasks import common, registry

    made = registry.make_examples([spec], splits, settings, tokenizer)
    common.register(dataset, settings, made, tokenizer)
    name = spec.name(dataset)
    examples = common.registered(name)
    info = {
        "task": name,
        "split": split,
        "dataset": splits.catalogue.name,
        "version": spec.version,
        "key": key,
        "settings": plain_settings(spec, settings),
        "metrics": list(spec.metrics),
        "truncations": examples.truncations(split),
        "tokenizer": {"fingerprint": tokenizer.fingerprint, "vocab_size": tokenizer.vocab_size},
        "sources": {
            "catalogue": splits.catalogue.fingerprint,
            "catalogue_version": splits.catalogue.version,
            "splits": splits.fingerprint,
        },
    }
    total = common.num_examples(name, split)
    task_cache.write(path, spec.features, common.task_examples(name, spec, split), info, total)


def table(infos: Sequence[dict[str, Any]]) -> str:
    """One line per task and split: size, token lengths, what was cut."""
    head = ("task", "slots", "split", "examples", "tokens: longest (mean)", "cut")
    rows = [head]
    for info in infos:
        text_only = info["settings"].get("text_only")
        lengths = [
            f"{name} {stats['max']} ({stats['mean']:.0f})"
            for name, stats in info["lengths"].items()
            if name in ("inputs", "targets", "text") and stats["max"]
        ]
        cut = [f"{name} {count}" for name, count in info["truncations"].items() if count]
        slots = {None: "", True: "words", False: "slots"}[text_only]
        rows.append(
            (info["task"], slots, info["split"], str(info["size"]), ", ".join(lengths),
             ", ".join(cut))
        )  # fmt: skip
    return aligned(rows)


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """A table of plain text, its columns aligned."""
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
