"""`ilm infer`: answers of a trained run, or of a language model, to the prompts of a file."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from absl import flags

if TYPE_CHECKING:
    from ilm_jax.data.catalogue.splits import Splits
    from ilm_jax.evaluation.trained import TrainedModel
    from ilm_jax.runs.run import Run
    from ilm_jax.serving.requests import Request

T = TypeVar("T")


def _flags() -> flags.FlagValues:
    from ilm_jax.cli import opening

    values = flags.FlagValues()
    opening.define_run(values)
    opening.define_model(values)
    opening.define_decoding(values, 64)
    texts = {
        "input": 'Prompts: a JSON object per line, {"prompt": "… {item:ID} … {user:ID} …"}, with '
        'an "id" if you like. An item may be named by its title too.',
        "task": "Instead of --input: a task, such as sequential_random.",
        "output": "File of the answers; what it holds already is not asked again.",
        "mention": "How {item:ID} is read: id, title, slot or a combination such as id+slot. "
        "Default: as histories were in training.",
    }
    for name, text in texts.items():
        flags.DEFINE_string(name, None, text, flag_values=values)
    flags.DEFINE_enum(
        "split", "test", ["train", "validation", "test"], "Of --task.", flag_values=values
    )
    flags.DEFINE_enum(
        "answer",
        "text",
        ["text", "items", "id_strings", "item_and_text"],
        "text: as the model writes it. items: --beams of the catalogue, best first, by the run's "
        "item head where it has one. id_strings, and items where it has none: by beams that are "
        "constrained to the items' strings. item_and_text, of runs/lumen.gin: items, and what is "
        "said of the first, greedily.",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "exclude_mentioned",
        False,
        "Of items: those that the prompt names are none.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "batch_size", 32, "Prompts that are read at once.", lower_bound=1, flag_values=values
    )
    flags.DEFINE_integer(
        "max_prompt_length",
        0,
        "Positions of a prompt at most. 0: as in training; of --lm 1024.",
        lower_bound=0,
        flag_values=values,
    )
    return values


def _check(values: flags.FlagValues) -> None:
    """Raises UserError for words that do not go together in asking a run."""
    from ilm_jax.cli import opening
    from ilm_jax.errors import UserError

    if bool(values.input) == bool(values.task) or not values.output:
        raise UserError("ilm infer takes --output=FILE, and either --input=FILE or --task=NAME")
    if wrong := opening.flags_of_model(values):
        raise UserError(f"{', '.join(wrong)}: of --lm; a run has its own")
    opening.check_decoding(values)
    if values.answer != "text" and values.sample:
        raise UserError("--sample draws texts; --answer=items searches by --beams: leave it out")


def _given(values: flags.FlagValues, name: str, default: T) -> T:
    """A flag's value; where nobody gave one, the default of lists."""
    return default if values[name].using_default_value else getattr(values, name)


def main(argv: Sequence[str]) -> int:
    """Runs the verb with the words after it; returns the exit code.

    Raises:
      UserError: for wrong input; of a file with its line, before any model is loaded.
    """
    from ilm_jax.cli import opening, words

    bindings, rest = words.split_bindings(argv)
    values = _flags()
    words.parse_flags(values, "infer", rest)

    from ilm_jax.errors import UserError

    if values.lm:
        from ilm_jax.cli import infer_model

        return infer_model.main(values, bindings)
    _check(values)
    beams, penalty = _given(values, "beams", 10), _given(values, "length_penalty", 0.0)
    ranks = values.answer != "text"
    run = opening.open_run(values.model_dir, bindings, "infer")
    splits = _splits(run, values)
    most = splits.catalogue.num_items
    if ranks and beams > most:
        raise UserError(f"--beams={beams}: give a number from 1 to {most}, all items")
    requests, total, slots, length = _requests(run, values)

    from ilm_jax.serving.answer_writing import write_answers
    from ilm_jax.serving.answering import Answerer

    opening.say_template(run.tokenizer, *opening.folders_of(run))
    trained = opening.load(run, values.step)
    sizes: dict[str, Any] = {"length": length, "slots": slots, "batch_size": values.batch_size}
    by_names = values.answer == "id_strings"
    answerer = Answerer.of_trained(trained, task=values.task, by_names=by_names, **sizes)
    if ranks and penalty and answerer.shelf:
        raise UserError("--length_penalty is of strings: give --answer=id_strings, or leave it out")
    config = opening.decoding(values, run.stop_ids, run.tokenizer.pad_id)
    speaks = values.answer == "item_and_text"
    if speaks:  # --beams is the length of the lists
        config = dataclasses.replace(config, beams=1)
    how = _searching(values, beams, penalty) if ranks else opening.plain(config)
    how |= {"max_new_tokens": config.max_new_tokens} if speaks else {}
    settings = _made_from(splits, trained, values) | {"decoding": how}

    def answer(batch: "Sequence[Request]") -> list[dict[str, Any]]:
        """One record per request of the batch: texts, or items with their scores, or both."""
        if not ranks:
            return answerer.texts(batch, config)
        gone = [request.mentioned for request in batch] if values.exclude_mentioned else None
        if speaks:
            return answerer.items_and_texts(batch, beams, config, gone)
        return answerer.items(batch, beams, gone, penalty)

    to = values.output, settings, values.batch_size, total
    new, there = write_answers(answerer, requests, answer, *to)
    print(f"wrote {values.output}: {new} answers, {there} were there")
    return 0


def _searching(values: flags.FlagValues, beams: int, penalty: float) -> dict[str, Any]:
    """How lists are found, for the record of the file."""
    found = {"beams": beams, "exclude_mentioned": values.exclude_mentioned}
    return found | ({"length_penalty": penalty} if penalty else {})


def _splits(run: "Run", values: flags.FlagValues) -> "Splits":
    """Of the catalogue that is asked: of --task's dataset, or of the run's first."""
    if not values.task:
        return run.splits
    return run.splits_of(run.dataset.alone(values.task, run.catalogue).dataset)


def _made_from(
    splits: "Splits", trained: "TrainedModel", values: flags.FlagValues
) -> dict[str, Any]:
    """What answers are of; a file of other answers is not gone on with."""
    return {
        "model": str(values.model_dir),
        "step": trained.step,
        "weights": trained.identity,
        "data": splits.fingerprint,
        "answer": values.answer,
        "source": values.input or f"{values.task}/{values.split}",
    }


def _requests(run: "Run", values: flags.FlagValues) -> tuple["Iterable[Request]", int, int, int]:
    """(what is asked, how many, most slots, positions at most), all of it checked."""
    from ilm_jax import progress
    from ilm_jax.data.examples.prompt_settings import MENTIONS
    from ilm_jax.data.examples.prompts import PromptRenderer
    from ilm_jax.errors import UserError
    from ilm_jax.serving import requests

    base = run.dataset
    queries = run.objective.num_queries
    text_only = not queries
    length = values.max_prompt_length or base.task_feature_lengths.get("inputs", 0)
    if values.mention and values.mention not in MENTIONS:
        raise UserError(f"--mention={values.mention}: there are {', '.join(MENTIONS)}")
    if values.mention and text_only and "slot" in values.mention:
        raise UserError(f"--mention={values.mention}: this model reads no slots")
    if values.task:
        if values.mention:
            raise UserError("--mention is of --input; a task's prompts are made already")
        one = base.alone(values.task, run.catalogue)
        dataset = one.replace(
            split=values.split,
            shuffle=False,
            repeat=False,
            settings=one.settings.replace(text_only=text_only),
            task_feature_lengths={"inputs": length, "targets": 1},
            truncate_targets=True,
        )
        feed = run.feed(dataset)
        prompts = requests.TaskPrompts(feed, run.tokenizer)
        return prompts, feed.len_epoch, dataset.row_entities, length
    naming = base.naming().replace(text_only=text_only)
    writer = requests.Writer(
        PromptRenderer(run.splits, naming), run.tokenizer, max(1, queries), length, values.mention
    )
    found = requests.PromptFile(values.input, writer)
    advance = progress.bar("prompts checked", found.lines(), late=True)
    total, slots = requests.count(found, advance)
    if not total:
        raise UserError(f"{values.input}: no prompts in it")
    return found, total, slots, length
