"""Prompted examples: what render steps hand to the token step, that step, and the tasks' base."""

import abc
import dataclasses
import functools
from collections.abc import Callable, Hashable

import numpy as np

from ilm_jax.data import draws
from ilm_jax.data.catalogue.splits import Splits
from ilm_jax.data.examples.example import Example
from ilm_jax.data.examples.memo import Memo
from ilm_jax.data.examples.prompt_tokens import PromptTokenizer
from ilm_jax.data.examples.prompts import PromptRenderer, Rendered
from ilm_jax.data.examples.task_settings import TaskSettings
from ilm_jax.data.examples.task_specs import TaskSpec
from ilm_jax.data.tokenizers import Tokenizer, without_chat

# Answers that are remembered: an item's text has some hundred tokens.
TARGETS = 1 << 15


@dataclasses.dataclass(frozen=True)
class Prompted:
    """One example in words.

    Attributes:
      key: unique within the task, the same for the same data in every run.
      user: raw user id, or "".
      template: name of the template, such as "long_description/0".
      prompt: the prompt; None for plain text of a corpus.
      target_text: the answer.
      target_item: local row of the item that the answer names or describes.
      content: spans of target_text that carry information; None for all of it.
      source: who wrote the answer, where that is a question.
    """

    key: str
    user: str
    template: str
    prompt: Rendered | None
    target_text: str
    target_item: int
    content: list[tuple[int, int]] | None = None
    source: str = ""


class ExampleTokenizer:
    """Turns prompted examples into features; remembers answers, as items recur."""

    def __init__(self, tokenizer: Tokenizer | None) -> None:
        self._given = tokenizer
        self._targets: Memo[tuple[Hashable, ...], tuple[list[int], list[int]]] = Memo(TARGETS)

    @functools.cached_property
    def _tokens(self) -> PromptTokenizer:
        if self._given is None:
            raise TypeError("made without a tokenizer: nothing can be tokenized")
        return PromptTokenizer(self._given)

    @functools.cached_property
    def _plain(self) -> PromptTokenizer:
        """Of texts that are read as they are, in whichever format prompts are."""
        return PromptTokenizer(without_chat(self._tokens.tokenizer))

    def features(self, example: Prompted) -> Example:
        """Features of a prompt task (see `ilm_jax.data.examples.task_specs`)."""
        prompt = example.prompt or Rendered(())
        inputs, slots, bounds = self._tokens.prompt(prompt)
        targets, content = self._target(example, self._tokens)
        return _features(
            example,
            inputs=inputs,
            targets=targets,
            targets_content=content,
            slots=slots,
            history_bounds=bounds,
        )

    def corpus_features(self, example: Prompted) -> Example:
        """The same as one text: no inputs; prompt, answer and eos are all target."""
        targets, content = self._target(example, self._plain)
        if example.prompt is not None:
            prompt, slots, _ = self._plain.prompt(example.prompt)
            if slots:
                raise AssertionError(f"{example.key}: a corpus text has a slot")
            targets, content = prompt + targets, [0] * len(prompt) + content
        return _features(
            example,
            inputs=[],
            targets=targets,
            targets_content=content,
            slots=[],
            history_bounds=[],
        )

    def _target(self, example: Prompted, tokens: PromptTokenizer) -> tuple[list[int], list[int]]:
        """(tokens of the answer, 1 where they carry information), which nobody changes."""
        behind = example.prompt is not None
        content = None if example.content is None else tuple(example.content)
        key = (example.target_text, content, behind, tokens is self._tokens)
        found = self._targets.get(key)
        if found is None:
            found = self._targets[key] = self._made(example, tokens, behind)
        return found

    def _made(
        self, example: Prompted, tokens: PromptTokenizer, behind: bool
    ) -> tuple[list[int], list[int]]:
        targets, spans = tokens.answer(example.target_text, behind_prompt=behind)
        everything = [1] * len(targets)
        content = everything if example.content is None else overlaps(spans, example.content)
        return [*targets, tokens.tokenizer.eos_id], [*content, 0]


class PromptTask(abc.ABC):
    """Base of the tasks whose examples are a prompt and its answer.

    Attributes:
      splits: of the catalogue.
      settings: as the task reads them.
      spec: which task.
      renderer: of its prompts.
    """

    def __init__(
        self,
        splits: Splits,
        settings: TaskSettings,
        tokenizer: Tokenizer | None = None,
        *,
        spec: TaskSpec,
    ) -> None:
        """Without a tokenizer only `index`, `render` and `truncations` work."""
        self.splits, self.settings, self.spec = splits, settings, spec
        self.renderer = PromptRenderer(splits, settings)
        self._tokens = ExampleTokenizer(tokenizer)

    @abc.abstractmethod
    def index(self, split: str) -> dict[str, np.ndarray]:
        """Integer columns; row k names example k of the split."""

    @abc.abstractmethod
    def render(self, split: str, **integers: int) -> Prompted:
        """The example in words."""

    def truncations(self, split: str) -> dict[str, int]:
        """Number of cuts, by name: none, unless a task says otherwise."""
        return {}

    def build(self, split: str, **integers: int) -> Example:
        """The example's features."""
        return self._tokens.features(self.render(split, **integers))

    def with_variants(self, split: str, **columns: np.ndarray) -> dict[str, np.ndarray]:
        """An index with a column "variant": several renderings of each training example."""
        variants = self.settings.variants if split == "train" else 1
        count = len(next(iter(columns.values())))
        if variants == 1:
            return {**columns, "variant": np.zeros(count, np.int32)}
        repeated = {name: np.repeat(column, variants) for name, column in columns.items()}
        return {**repeated, "variant": np.tile(np.arange(variants, dtype=np.int32), count)}

    def template(self, count: int, split: str, variant: int, *keys: object) -> int:
        """Number of the template of an example, see `template_number`."""
        own = (self.settings.seed, self.spec.version, self.spec.task, *keys)
        return template_number(draws.integer, count, split, variant, *own)


def _features(example: Prompted, **tokens: list[int]) -> Example:
    return {
        "key": example.key,
        "user": example.user,
        "template": example.template,
        "target_text": example.target_text,
        "target_item": example.target_item,
        "source": example.source,
        **tokens,
    }


def overlaps(spans: list[tuple[int, int]], content: list[tuple[int, int]]) -> list[int]:
    """1 for every span that shares a character with a content span, else 0; both ascending."""
    found = [0] * len(spans)
    parts = iter(content)
    first, last = next(parts, (0, -1))
    for number, (start, end) in enumerate(spans):
        while 0 <= last <= start:
            first, last = next(parts, (0, -1))
        if last < 0:  # no content behind here
            break
        if first < end:
            found[number] = 1
    return found


def template_number(
    draw: Callable[..., int], count: int, split: str, variant: int, *keys: object
) -> int:
    """Template of a variant: drawn by hash in training, different for different variants.

    Validation and test always read template 0.
    """
    return (draw(count, *keys) + variant) % count if split == "train" else 0
