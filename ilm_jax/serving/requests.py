"""Requests to a model: prompts from a file, or those of a cached task."""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from ilm_jax.data.examples.example import Example
from ilm_jax.data.examples.mentions import Names, as_example, items_in_slots, render
from ilm_jax.data.examples.prompt_tokens import PromptTokenizer
from ilm_jax.data.examples.prompts import PromptRenderer, Rendered, Segment
from ilm_jax.data.formats import raw_lines
from ilm_jax.data.streams.feed import Feed
from ilm_jax.data.tokenizers import Tokenizer
from ilm_jax.errors import UserError

_KEYS = {"id", "prompt"}


@dataclasses.dataclass(frozen=True)
class Request:
    """One prompt.

    Attributes:
      number: its place, which random draws depend on.
      id: what its answer is called.
      prompt: as written, or as a task shows it.
      example: as `PromptConverter.prompts` takes it.
      mentioned: rows of the items that it mentions.
    """

    number: int
    id: str | int | tuple[str, ...]
    prompt: str
    example: Example
    mentioned: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True)
class Writer:
    """Makes requests of written prompts, with mentions such as {item:ID}.

    Attributes:
      renderer: mentions items and users as the model was trained to read them.
      tokenizer: the model's.
      num_queries: positions per slot.
      length: positions of a prompt at most.
      mention: form of item mentions, see `mentions.render`.
    """

    renderer: PromptRenderer
    tokenizer: Tokenizer
    num_queries: int
    length: int
    mention: str | None = None

    def request(self, number: int, key: str | int, prompt: str) -> Request:
        """One request; `number` and `key` as in `Request`.

        Raises:
          UserError: for an unknown item or user, or a prompt that is too long.
        """
        rendered, items = render(prompt, self.renderer, self._names, self.mention)
        example = as_example(self._words, rendered, self.renderer.catalogue.name, str(key))
        width = np.where(example["inputs"] < 0, self.num_queries, 1).sum()
        if width > self.length:
            raise UserError(
                f"the prompt takes {width} positions, {self.length} are read; "
                "shorten it, or raise --max_prompt_length"
            )
        return Request(number, key, prompt, example, tuple(items))

    @functools.cached_property
    def _names(self) -> Names:
        return Names(self.renderer.catalogue)

    @functools.cached_property
    def _words(self) -> PromptTokenizer:
        return PromptTokenizer(self.tokenizer)


@dataclasses.dataclass(frozen=True)
class PlainWriter:
    """Makes requests of prompts to a language model that knows no catalogue.

    Attributes:
      tokenizer: the model's.
      length: positions of a prompt at most.
    """

    tokenizer: Tokenizer
    length: int

    def request(self, number: int, key: str | int, prompt: str) -> Request:
        """One request; `number` and `key` as in `Request`.

        Raises:
          UserError: for a prompt that is too long.
        """
        rendered = Rendered((Segment(0, f"{prompt} "),))
        example = as_example(PromptTokenizer(self.tokenizer), rendered, "", str(key))
        width = len(example["inputs"])
        if width > self.length:
            raise UserError(
                f"the prompt takes {width} positions, {self.length} are read; "
                "shorten it, or raise --max_prompt_length"
            )
        return Request(number, key, prompt, example)


@dataclasses.dataclass(frozen=True)
class PromptFile:
    """Prompts of a JSON-lines file: {"prompt": …}, and an "id" (the number of its line without).

    Attributes:
      path: the file.
      writer: makes the requests.
    """

    path: str
    writer: Writer | PlainWriter

    def lines(self) -> int:
        """Of the file; errors as reading it."""
        return sum(1 for _ in _lines(self.path))

    def __iter__(self) -> Iterator[Request]:
        """Reads the file line by line; blank lines are passed over.

        Raises:
          UserError: with file and line, for bad JSON, an id given twice, or as `Writer.request`.
        """
        first: dict[str | int, int] = {}
        for line, text in enumerate(_lines(self.path), 1):
            if not text.strip():
                continue
            record = _record(self.path, line, text)
            key = record.get("id", line)
            if key in first:
                raw_lines.fail(
                    self.path,
                    line,
                    f"id {key!r} is that of line {first[key]} too",
                    "ids tell answers apart",
                )
            first[key] = line
            try:
                yield self.writer.request(line, key, record["prompt"])
            except UserError as error:
                raise UserError(f"{self.path}:{line}: {error}") from error


@dataclasses.dataclass(frozen=True)
class TaskPrompts:
    """The prompts of a task's split, in the order of its cache; ids are the examples' keys."""

    feed: Feed
    tokenizer: Tokenizer

    def __iter__(self) -> Iterator[Request]:
        """Reads the cache example by example."""
        words = PromptTokenizer(self.tokenizer)
        for number in range(self.feed.len_epoch):
            example = self.feed.stream[number]
            shown = words.decode_prompt(example["inputs"])
            items = tuple(items_in_slots(example))
            yield Request(number, example["key"], shown, example, items)


def count(
    requests: Iterable[Request], on_request: Callable[[int], None] = lambda new: None
) -> tuple[int, int]:
    """(number of requests, most slots in one): reads all of them, so that errors come early.

    `on_request` hears of each.
    """
    total, slots = 0, 0
    for request in requests:
        total += 1
        on_request(1)
        slots = max(slots, len(request.example["slots"]))
    return total, slots


def by_shape(
    requests: Iterable[Request], shape: Callable[[Request], int], size: int
) -> Iterator[list[Request]]:
    """Requests of one shape together, `size` at a time; what is left at the end comes last."""
    waiting: dict[int, list[Request]] = {}
    for request in requests:
        batch = waiting.setdefault(shape(request), [])
        batch.append(request)
        if len(batch) == size:
            yield waiting.pop(shape(request))
    yield from waiting.values()


def _lines(path: str) -> Iterator[str]:
    file = pathlib.Path(path).expanduser()
    if not file.exists():
        raise UserError(f"{path}: no such file; name one with a JSON object per line")
    yield from raw_lines.whole_text(file).split("\n")


def _record(path: str, line: int, text: str) -> dict[str, Any]:
    remedy = 'a line is {"prompt": "…"}, with an "id" if you like'
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:
        raw_lines.fail(path, line, f"not a JSON object ({error})", remedy)
    if not isinstance(record, dict) or not isinstance(record.get("prompt"), str):
        raw_lines.fail(path, line, "no prompt", remedy)
    unknown = sorted(set(record) - _KEYS)
    if unknown:
        raw_lines.fail(path, line, f"key {unknown[0]!r}", remedy)
    key = record.get("id", line)
    if isinstance(key, bool) or not isinstance(key, str | int):
        raw_lines.fail(path, line, f"id {key!r} is neither a text nor a number", remedy)
    return record
