"""Has the texts of a corpus written by a language model, from instructions around items' facts.

What is written is read back by the tasks of ELM (data/formats/text_records.py), marked with its
source.
"""

import dataclasses
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ilm_jax.checkpoints.language_models import LoadedModel
from ilm_jax.data import draws
from ilm_jax.data.catalogue.splits import Splits
from ilm_jax.data.examples.instructions import Instruction, facts, subjects
from ilm_jax.data.examples.mentions import as_example
from ilm_jax.data.examples.prompt_tokens import PromptTokenizer
from ilm_jax.data.examples.prompts import Rendered, Segment
from ilm_jax.data.streams.converters import PromptConverter
from ilm_jax.data.tokenizers import Tokenizer
from ilm_jax.decoding.config import Buckets, DecodingConfig
from ilm_jax.decoding.generator import Generator
from ilm_jax.errors import UserError
from ilm_jax.evaluation.trained import TrainedModel
from ilm_jax.metrics.loops import loop_of
from ilm_jax.serving.answering import Answerer
from ilm_jax.serving.requests import Request


def writer_of_run(trained: TrainedModel, length: int, batch_size: int) -> Answerer:
    """The language model of a run, as it was frozen or trained; it reads no slots."""
    return _writer(
        Generator.for_lm(
            trained.objective.model.lm,
            trained.params["lm"],
            buckets=Buckets(rows=(batch_size,)),
            partitioner=trained.partitioner,
        ),
        trained.tokenizer,
        length,
    )


def writer_of_model(model: LoadedModel, length: int, batch_size: int) -> Answerer:
    """A language model by itself.

    Args:
      model: the model.
      length: positions of a prompt at most.
      batch_size: prompts that are read at once.
    """
    generator = Generator.for_lm(
        model.objective.model.lm,
        model.params["lm"],
        buckets=Buckets(rows=(batch_size,)),
        partitioner=model.partitioner,
    )
    return _writer(generator, model.tokenizer, length)


def _writer(generator: Generator, tokenizer: Tokenizer, length: int) -> Answerer:
    converter = PromptConverter({"inputs": length, "targets": 1}, tokenizer)
    return Answerer(generator, converter, tokenizer)


def requests(
    instructions: Iterable[Instruction],
    splits: Splits,
    tokenizer: Tokenizer,
    length: int,
    *,
    limit: int | None = None,
    space: str = "cf",
) -> Iterator[Request]:
    """A prompt for every task and its items; `Request.id` holds both.

    Draws depend on task and items alone, so that neither other tasks nor an interruption change a
    text.

    Args:
      instructions: of the tasks.
      splits: of the catalogue.
      tokenizer: of the model that writes.
      length: positions of a prompt at most.
      limit: prompts of each task at most.
      space: where neighbours are near, "cf" or "text".

    Raises:
      UserError: for an empty catalogue, or a prompt that is too long, with its item.
    """
    words, catalogue = PromptTokenizer(tokenizer), splits.catalogue
    for instruction in instructions:
        for place, rows in enumerate(subjects(instruction, splits, space)):
            if place == limit:
                break
            ids = [catalogue.item_ids[row] for row in rows]
            asked = instruction.prompt([facts(catalogue, row) for row in rows])
            name = f"{instruction.task} of {', '.join(ids)}"
            rendered = Rendered((Segment(0, f"{asked} "),))
            example = as_example(words, rendered, catalogue.name, name)
            if len(example["inputs"]) > length:
                raise UserError(
                    f"{name}: the instruction takes {len(example['inputs'])} tokens, {length} are "
                    "read: raise --max_prompt_length, or shorten the item's text"
                )
            number = draws.integer(2**31 - 1, "written", instruction.task, *ids)
            yield Request(number, (instruction.task, *ids), asked, example, rows)


def entry(row: Mapping[str, Any]) -> tuple[Hashable, None]:
    """The `Request.id` of a written row."""
    return (row["task"], *row["item_ids"]), None


class Text(NamedTuple):
    """A text written for a request.

    Attributes:
      request: the request.
      row: of the file: task, item_ids, target and source; None for an empty text.
      fault: what speaks against it, "" for nothing.
    """

    request: Request
    row: dict[str, Any] | None
    fault: str


def texts(
    writer: Answerer, batch: Sequence[Request], config: DecodingConfig, source: str
) -> Iterator[Text]:
    """The texts of a batch with their faults: "empty", "loops", or "has no end"."""
    for request, found in zip(batch, writer.texts(batch, config), strict=True):
        assert isinstance(request.id, tuple)
        task, *ids = request.id
        target = " ".join(found["text"].split())
        row = {"task": task, "item_ids": ids, "target": target, "source": source}
        fault = "" if found["stop"] == "end" else "has no end"
        fault = "loops" if loop_of(target) else fault
        yield Text(request, row if target else None, fault if target else "empty")


def drawn(config: DecodingConfig, attempt: int) -> DecodingConfig:
    """How a text with a fault is written again: from draws that are others each time."""
    usual: dict[str, Any] = {} if config.sample else {"temperature": 0.7, "top_p": 0.9}
    seed = (config.seed + attempt) % 2**31
    return dataclasses.replace(config, **{**usual, "beams": 1, "sample": True, "seed": seed})


def write(
    writer: Answerer, batch: Sequence[Request], config: DecodingConfig, source: str
) -> list[dict[str, Any]]:
    """Rows of the file, whatever their faults, without those that came out empty."""
    return [text.row for text in texts(writer, batch, config, source) if text.row is not None]
