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

from ilm_jax.cli.words import DATASET, parse_flags

if TYPE_CHECKING:
    from ilm_jax.data.catalogue.splits import Splits
    from ilm_jax.data.examples.task_settings import TaskSettings
    from ilm_jax.data.tokenizers import Tokenizer


def _flags() -> flags.FlagValues:
    values = flags.FlagValues()
    texts = {
        **DATASET,
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
    beam = {
        "beam_runner": "Apache Beam's runner whose workers write caches, such as DirectRunner, "
        "FlinkRunner, SparkRunner or DataflowRunner (extra `beam`).",
        "beam_options": "Options of the runner, such as '--direct_num_workers=4 "
        "--direct_running_mode=multi_processing'.",
        "beam_dir": "Folder that this machine and the runner's workers share, such as "
        "gs://BUCKET/x; left out: they all see CACHE_DIR.",
    }
    for name, text in beam.items():
        flags.DEFINE_string(name, "", text, flag_values=values)
    return values


def main(argv: Sequence[str]) -> int:
    """Runs the verb with the words after it; returns the exit code.

    Raises:
      UserError: for wrong input.
    """
    values = _flags()
    parse_flags(values, "cache_tasks", argv)
    # What TensorFlow says of accelerators that nothing here uses.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

    from ilm_jax import user_modules
    from ilm_jax.data.catalogue.splits import make_splits
    from ilm_jax.data.examples.settings_json import settings_from, settings_json
    from ilm_jax.data.examples.task_families import DEFAULT_TASKS
    from ilm_jax.data.sources.prepare import load_catalogue
    from ilm_jax.errors import UserError
    from ilm_jax.files import default_cache_dir
    from ilm_jax.tasks.caching import Caching, Plan, run_pool

    if values.beam_runner and values.workers > 1:
        raise UserError("--workers are processes of this machine; a Beam runner has its own")
    if not values.beam_runner and (values.beam_options or values.beam_dir):
        raise UserError("--beam_options and --beam_dir are those of a --beam_runner: name one")
    settings = settings_from(parse_settings(values.settings))
    cache_dir = pathlib.Path(values.cache_dir or default_cache_dir()).expanduser()
    plan = Plan(
        values.dataset,
        settings_json(settings),
        tuple(values.tasks or DEFAULT_TASKS),
        values.with_text_only,
        str(cache_dir.resolve()),
        tuple(user_modules.names()),
    )
    jobs = plan.jobs()
    catalogue = load_catalogue(values.dataset, data_dir=values.data_dir, cache_dir=cache_dir)
    splits = make_splits(catalogue, settings.split)
    tokenizer = ensure_tokenizer(values.dataset, splits, settings, cache_dir)
    shared = Caching(values.dataset, splits, tokenizer, cache_dir)
    if values.beam_runner:
        from ilm_jax.tasks import caching_beam

        caching_beam.run(shared, plan, values.beam_runner, values.beam_options, values.beam_dir)
    elif values.workers > 1 and (parts := shared.missing(jobs)):
        run_pool(plan, parts, values.workers)
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
