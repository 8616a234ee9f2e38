"""`ilm cache_tasks`: prepares a dataset for training: catalogue, tokenizer, task caches.

Training does this on demand, in a process of its own; the verb does it ahead of time and prints
what there is.
"""

import json
import os
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from absl import flags

if TYPE_CHECKING:
    from ilm_jax.data.catalogue.splits import Splits
    from ilm_jax.data.examples.task_settings import TaskSettings
    from ilm_jax.data.tokenizers import Tokenizer


def _flags() -> flags.FlagValues:
    values = flags.FlagValues()
    texts = {
        "dataset": ("toy", "Dataset, such as toy or movielens/latest_small."),
        "data_dir": (None, "Folder of the dataset's raw files."),
        "cache_dir": (None, "Folder of prepared data (default: $ILM_CACHE or ~/.cache/ilm_jax)."),
        "settings": (
            "{}",
            'JSON of task settings to change, such as {"history": 20, "knowledge": '
            '{"candidates": 50}}.',
        ),
    }
    for name, (default, text) in texts.items():
        flags.DEFINE_string(name, default, text, flag_values=values)
    flags.DEFINE_list(
        "tasks",
        [],
        "Tasks by full or short name, or families such as openp5; default: those of "
        "the shipped recipes. `ilm inspect` lists all.",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "with_text_only",
        True,
        "Also cache the prompt tasks with every slot in words.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "workers",
        1,
        "Processes that write caches at the same time.",
        lower_bound=1,
        flag_values=values,
    )
    flags.DEFINE_string(
        "worker",
        None,
        "For several hosts on one CACHE_DIR: run with --worker=0/4 to "
        "--worker=3/4, then once without, which finishes.",
        flag_values=values,
    )
    return values


def main(argv: Sequence[str]) -> int:
    """Runs the verb with the words after it; returns the exit code.

    Raises:
      UserError: for wrong input.
    """
    from ilm_jax.cli.words import parse_flags

    values = _flags()
    parse_flags(values, "cache_tasks", argv)
    # What TensorFlow says of accelerators that nothing here uses.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

    from ilm_jax import user_modules
    from ilm_jax.data.catalogue.splits import make_splits
    from ilm_jax.data.examples.settings_json import settings_from
    from ilm_jax.data.examples.task_families import DEFAULT_TASKS, find_specs
    from ilm_jax.data.examples.task_keys import reads
    from ilm_jax.data.sources.prepare import default_cache_dir, load_catalogue
    from ilm_jax.tasks.caching import Caching, run_workers, share

    settings = settings_from(parse_settings(values.settings))
    specs = find_specs(values.dataset, values.tasks or DEFAULT_TASKS)
    cache_dir = pathlib.Path(values.cache_dir or default_cache_dir()).expanduser()
    catalogue = load_catalogue(values.dataset, data_dir=values.data_dir, cache_dir=cache_dir)
    splits = make_splits(catalogue, settings.split)
    tokenizer = ensure_tokenizer(values.dataset, splits, settings, cache_dir)
    jobs = [(spec, settings) for spec in specs]
    if values.with_text_only and not settings.text_only:
        words = settings.replace(text_only=True)
        jobs += [(spec, words) for spec in specs if "text_only" in reads(spec)]
    shared = Caching(values.dataset, splits, tokenizer, cache_dir)
    if values.worker:
        shared.write_parts(jobs, *share(values.worker))
        return 0
    if values.workers > 1 and shared.missing(jobs):
        names = ("dataset", "data_dir", "cache_dir", "settings")
        flag_words = [f"--{name}={v}" for name in names if (v := getattr(values, name)) is not None]
        flag_words += [f"--tasks={','.join(values.tasks)}"] if values.tasks else []
        flag_words += [f"--with_text_only={values.with_text_only}", *user_modules.words()]
        run_workers(flag_words, values.workers)
    infos = shared.finish(jobs)
    print(table(infos))
    print(f"tokenizer: {tokenizer.vocab_size} pieces, {tokenizer.fingerprint[:12]}")
    if tokenizer.chat is not None:
        print("prompts: turns in the model's chat template")
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

    What it cannot say of the items' titles and texts is noted on stderr.

    Raises:
      UserError: if a tokenizer that the settings name is absent, or a model file is damaged.
    """
    from ilm_jax.data.streams import task_tokenizer

    return task_tokenizer.ensure_tokenizer(dataset, settings, splits.catalogue, cache_dir, splits)


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
            (
                info["task"],
                slots,
                info["split"],
                str(info["size"]),
                ", ".join(lengths),
                ", ".join(cut),
            )
        )
    return aligned(rows)


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """A table of plain text, its columns aligned."""
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
