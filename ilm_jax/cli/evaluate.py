"""`ilm evaluate`: metrics of a trained run on held-out items and users."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from absl import flags

if TYPE_CHECKING:
    from ilm_jax.evaluation.measures.auto_rater import AutoRater


def _flags() -> flags.FlagValues:
    from ilm_jax.cli import opening

    values = flags.FlagValues()
    opening.define_run(values)
    texts = {
        "output": "Folder for what is found (default: MODEL_DIR/evaluation).",
        "encoder": "Folder of a sentence encoder (sentence-transformers' layout) for semantic "
        "consistency. Default: all-MiniLM-L6-v2 where its package is installed.",
        "rater": "Folder of a language model with its tokenizer, as `ilm convert` made it or as it "
        "was published, that judges generated texts: fluent? true of the item? of the history?",
    }
    for name, text in texts.items():
        flags.DEFINE_string(name, None, text, flag_values=values)
    numbers = {
        "users": (
            0,
            0,
            "So many users are ranked, and have ratings predicted: those whose ids "
            "have the smallest hashes, whatever else is measured; 0: all.",
        ),
        "texts": (0, 0, "So many texts are scored and written, chosen likewise; 0: all."),
        "beams": (10, 1, "Length of the ranked lists."),
    }
    for name, (default, least, text) in numbers.items():
        flags.DEFINE_integer(name, default, text, lower_bound=least, flag_values=values)
    flags.DEFINE_list(
        "tasks",
        ["long_description", "sequential_random"],
        "What is measured, each task by the metrics of its kind of answers.",
        flag_values=values,
    )
    flags.DEFINE_float(
        "length_penalty",
        0.0,
        "Of lists by id strings: scores are log p / length ** this; OpenP5's lists have 1.",
        flag_values=values,
    )
    flags.DEFINE_float(
        "liked", 4.0, "Ratings from here on count as liked, for AUC.", flag_values=values
    )
    flags.DEFINE_enum(
        "split", "test", ["test", "validation"], "Whose targets are measured.", flag_values=values
    )
    _define_switches(values)
    return values


def _define_switches(values: flags.FlagValues) -> None:
    flags.DEFINE_bool(
        "multiprocess",
        False,
        "This is one of several processes, as for `ilm train`.",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "exclude_seen", False, "A user's earlier choices are no candidates.", flag_values=values
    )
    flags.DEFINE_bool("ranking", True, "Also rank; --noranking leaves it out.", flag_values=values)
    flags.DEFINE_bool(
        "id_strings",
        True,
        "Also rank by id strings where a run with an item head learnt them; --noid_strings does "
        "not.",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "generation",
        True,
        "Also have descriptions written; --nogeneration leaves it out.",
        flag_values=values,
    )


def main(argv: Sequence[str]) -> int:
    """Runs the verb with the words after it; returns the exit code.

    `--gin.NAME=VALUE` overrides what the run was trained with, such as
    `--gin.TASK_FEATURE_LENGTHS="{'inputs': 76, 'targets': 36}"`.

    Raises:
      UserError: for wrong input.
    """
    from ilm_jax.cli import opening, words

    bindings, rest = words.split_bindings(argv)
    values = _flags()
    words.parse_flags(values, "evaluate", rest)

    from ilm_jax import progress
    from ilm_jax.evaluation.evaluate import evaluate
    from ilm_jax.evaluation.evaluator import EvaluationConfig, Judges
    from ilm_jax.evaluation.measures import semantic
    from ilm_jax.sharding.processes import writing

    config = EvaluationConfig(
        tasks=tuple(values.tasks),
        split=values.split,
        users=values.users or None,
        texts=values.texts or None,
        beams=values.beams,
        length_penalty=values.length_penalty,
        exclude_seen=values.exclude_seen,
        ranking=values.ranking,
        id_strings=values.id_strings,
        generation=values.generation,
        liked=values.liked,
    )
    from ilm_jax.errors import UserError

    run = opening.open_run(values.model_dir, bindings, "evaluate")

    run.processes.start(values.multiprocess)  # before anything touches a device
    output = pathlib.Path(values.output or pathlib.Path(values.model_dir, "evaluation"))
    if output.exists() and not output.is_dir():
        raise UserError(f"--output={output} is a file: name a folder")
    with writing(str(output), "ilm evaluate"):
        encoder = semantic.find_encoder(values.encoder) if values.generation else None
        rater = _rater(values.rater) if values.rater else None
        trained = opening.load(run, values.step)
        record = evaluate(trained, output, config, Judges(encoder, rater), progress.watch)
    if record:
        print(table(record))
        for line in measured(record["protocol"], values.users, values.texts):
            print(line)
        print(f"wrote {output}")
    return 0


def measured(card: Mapping[str, Any], users: int = 0, texts: int = 0) -> list[str]:
    """Number of users and texts of each metric, and where fewer exist than were asked for."""
    lines = []
    for name, part in card.items():
        if not isinstance(part, Mapping):
            continue
        for unit, asked in (("users", users), ("texts", texts)):
            shown = str(part.get(unit, ""))
            if not shown or name.endswith("split"):
                continue
            more = (
                f"; --{unit}={asked}: all are measured"
                if shown.isdigit() and (asked > int(shown))
                else ""
            )
            lines.append(f"{name}: {unit} {shown}{more}")
    return lines


def _rater(folder: str) -> "AutoRater":
    from ilm_jax.checkpoints.language_models import load_language_model
    from ilm_jax.cli import opening
    from ilm_jax.data.tokenizers import formatted, open_tokenizer_at
    from ilm_jax.evaluation.measures.auto_rater import AutoRater

    model = load_language_model(folder, formatted(open_tokenizer_at(folder)))
    return AutoRater.of_model(model, opening.name_of(folder))


def table(record: Mapping[str, Any]) -> str:
    """The metrics with their intervals, and what could not be had."""
    lines = []
    for name, value in record["figures"].items():
        interval, shown = record["intervals"].get(name), ""
        if interval and interval["low"] is not None:
            bounds = f"[{interval['low']:z.4f}, {interval['high']:z.4f}]"
            shown = f"  {bounds}  {interval['units']} units"
        lines.append(f"{name:24} {value:z.4f}{shown}")
    lines += [f"{name:24} {why}" for name, why in record["not_available"].items()]
    return "\n".join(lines)
