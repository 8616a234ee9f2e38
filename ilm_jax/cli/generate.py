"""`ilm generate`: has a corpus' target texts written by a language model."""

import collections
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from absl import flags

if TYPE_CHECKING:
    from ilm_jax.data.catalogue.splits import Splits
    from ilm_jax.data.examples.instructions import Instruction
    from ilm_jax.decoding.config import DecodingConfig
    from ilm_jax.serving.answering import Answerer
    from ilm_jax.serving.requests import Request


def _flags() -> flags.FlagValues:
    from ilm_jax.cli import opening

    values = flags.FlagValues()
    opening.define_run(values)
    opening.define_model(values)
    opening.define_decoding(values, 256)
    texts = {
        "dataset": "Of --lm: whose items are written about, such as movielens/1m. A run has its "
        "own.",
        "data_dir": "Folder of the dataset's raw files.",
        "cache_dir": "Where prepared datasets lie.",
        "instructions": "JSON file of instructions, {task: {instruction, items, neighbour}}. "
        "Default: ours for ELM's tasks.",
        "output": "File of the texts, for Elm24Settings.texts_file; what it holds is not "
        "written again.",
        "source": "Name of the model in the texts. Default: its folder's.",
    }
    for name, text in texts.items():
        flags.DEFINE_string(name, None, text, flag_values=values)
    flags.DEFINE_list(
        "tasks", ["long_description"], "Whose texts are written; 'all' for all.", flag_values=values
    )
    flags.DEFINE_enum(
        "neighbours", "cf", ["cf", "text"], "Where neighbours are near.", flag_values=values
    )
    numbers = {
        "limit": (0, "Texts per task at most; 0 for all."),
        "batch_size": (32, "Prompts that are read at once."),
        "max_prompt_length": (1024, "Tokens of an instruction at most."),
        "tries": (
            3,
            "A text that loops, is empty or was not ended within --max_new_tokens is drawn anew so "
            "often, and then left out; 0 takes all as they come.",
        ),
    }
    for name, (default, text) in numbers.items():
        flags.DEFINE_integer(name, default, text, lower_bound=0, flag_values=values)
    flags.DEFINE_list(
        "stop_ids",
        [],
        "Ids that end a text, beside those of the model's own files.",
        flag_values=values,
    )
    return values


def main(argv: Sequence[str]) -> int:
    """Runs the verb with the words after it; returns the exit code.

    Raises:
      UserError: for wrong input, before any text is written.
    """
    from ilm_jax.cli import opening, words

    bindings, rest = words.split_bindings(argv)
    values = _flags()
    words.parse_flags(values, "generate", rest)

    _check(values)
    chosen = _chosen(values.instructions, values.tasks)

    from ilm_jax import progress
    from ilm_jax.checkpoints.identity import identity
    from ilm_jax.data.tokenizers import record_of
    from ilm_jax.serving import corpus_writing
    from ilm_jax.serving.answer_file import AnswerFile

    writer, splits, stops = _open(values, bindings)

    def prompts() -> "Iterator[Request]":
        """The prompts anew from the first: lazily, so that none are held in memory."""
        return corpus_writing.requests(
            chosen,
            splits,
            writer.tokenizer,
            values.max_prompt_length,
            limit=values.limit or None,
            space=values.neighbours,
        )

    wanted = {request.id for request in prompts()}
    source = values.source or opening.name_of(values.lm or values.model_dir)
    stops = (*stops, *_stop_ids(values.stop_ids, writer.tokenizer.vocab_size))
    config = opening.decoding(values, stops, writer.tokenizer.pad_id)
    settings = _asked_for(values, chosen) | {
        "source": source,
        "dataset": splits.catalogue.name,
        "decoding": opening.plain(config),
        "tokenizer": writer.tokenizer.fingerprint,
        "prompts": record_of(writer.tokenizer),
        "data": splits.fingerprint,
        # What lies at a path or bears a name may be another one by the time that this goes on.
        "model": identity(values.lm or values.model_dir, values.step),
    }
    with AnswerFile(values.output, corpus_writing.entry, settings, "ilm generate") as file:
        there = len(wanted & set(file.done))
        advance = progress.bar("texts", len(wanted), there)
        left = (request for request in prompts() if request.id not in file.done)
        written, faults = _write(writer, left, config, source, values, file.write, advance)
    print(f"wrote {values.output}: {written} texts, {there} were there")
    if faults:
        told = ", ".join(f"{count} {fault}" for fault, count in sorted(faults.items()))
        print(f"{faults.total()} texts are left out ({told}); --max_new_tokens bounds their length")
    return 0


def _write(
    writer: "Answerer",
    requests: "Iterable[Request]",
    config: "DecodingConfig",
    source: str,
    values: flags.FlagValues,
    keep: Callable[[list[dict[str, Any]]], None],
    advance: Callable[[int], None],
) -> tuple[int, collections.Counter[str]]:
    """(texts that were written, how many were left out by their fault).

    Args:
      writer, config, source: see `corpus_writing.texts`.
      requests: what is asked.
      values: batch size and tries.
      keep: takes the rows of every batch.
      advance: hears of texts that are done.
    """
    from ilm_jax.serving import corpus_writing

    written, last = 0, values.tries
    faults: collections.Counter[str] = collections.Counter()
    for attempt in range(last + 1):
        faulty, how = [], config if not attempt else corpus_writing.drawn(config, attempt)
        for batch in writer.batches(requests, values.batch_size):
            rows = []
            for text in corpus_writing.texts(writer, batch, how, source):
                # Without tries a text stays as it came.
                if text.row is not None and not (text.fault and last):
                    rows.append(text.row)
                elif attempt < last:
                    faulty.append(text.request)
                else:
                    faults[text.fault] += 1
            keep(rows)
            written += len(rows)
            advance(len(rows))
        requests = faulty
    advance(faults.total())
    return written, faults


def _asked_for(values: flags.FlagValues, chosen: "Sequence[Instruction]") -> dict[str, object]:
    from ilm_jax.files import sha256_json

    return {
        "instructions": values.instructions,
        "neighbours": values.neighbours,
        "dtype": values.dtype,
        "tries": values.tries,
        "asked": sha256_json([dataclasses.asdict(instruction) for instruction in chosen]),
    }


def _check(values: flags.FlagValues) -> None:
    from ilm_jax.errors import UserError

    if bool(values.model_dir) == bool(values.lm) or not values.output:
        raise UserError(
            "ilm generate takes --output=FILE, and either --model_dir=RUN or --lm=FOLDER"
        )


def _chosen(path: str | None, tasks: Sequence[str]) -> "list[Instruction]":
    from ilm_jax.data.examples import instructions
    from ilm_jax.errors import UserError

    known = instructions.read(path) if path else instructions.ours()
    if list(tasks) == ["all"]:
        return list(known.values())
    missing = [task for task in tasks if task not in known]
    if missing or not tasks:
        raise UserError(f"no instruction for {missing}: there are {', '.join(known)}")
    return [known[task] for task in tasks]


def _stop_ids(given: Sequence[str], size: int) -> list[int]:
    from ilm_jax.errors import UserError

    wrong = [word for word in given if not (word.strip().isdecimal() and int(word) < size)]
    if wrong:
        raise UserError(f"--stop_ids={wrong[0]}: give ids of the tokenizer, 0 to {size - 1}")
    return [int(word) for word in given]


def _open(
    values: flags.FlagValues, bindings: Sequence[str]
) -> "tuple[Answerer, Splits, tuple[int, ...]]":
    """(the model that writes, the catalogue that it writes about, ids that end a text)."""
    from ilm_jax.cli import opening
    from ilm_jax.errors import UserError
    from ilm_jax.serving import corpus_writing

    length, size = values.max_prompt_length, values.batch_size
    if values.model_dir:
        given = opening.flags_of_model(values)
        if values.dataset or values.data_dir or given:
            named = ", ".join(["--dataset", "--data_dir", *given])
            raise UserError(f"{named} are of --lm: a run has its own")
        run = opening.open_run(values.model_dir, bindings, "generate")

        from ilm_jax.runs.opening import load_trained

        opening.say_template(run.tokenizer, *opening.folders_of(run))
        trained = load_trained(run, values.step)
        return corpus_writing.writer_of_run(trained, length, size), run.splits, run.stop_ids
    if bindings or not values.dataset:
        raise UserError("--lm=FOLDER takes --dataset=NAME, and no gin bindings")

    from ilm_jax.data.catalogue.splits import make_splits
    from ilm_jax.data.sources.prepare import load_catalogue

    where = {"data_dir": values.data_dir, "cache_dir": values.cache_dir}
    splits = make_splits(load_catalogue(values.dataset, **where))
    model, stops = opening.load_model(values)
    return corpus_writing.writer_of_model(model, length, size), splits, stops
