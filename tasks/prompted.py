"""Prompted examples: what render steps hand to the token step, and that step."""

import dataclasses
from collections.abc import Callable
from typing import Any

from ilm_jax.data.prompts import Rendered, encode_prompt
from ilm_jax.data.tokenizer import Tokenizer


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
    """

    key: str
    user: str
    template: str
    prompt: Rendered | None
    target_text: str
    target_item: int
    content: list[tuple[int, int]] | None = None


class PromptTokenizer:
    """Turns prompted examples into features."""

    def __init__(self, tokenizer: Tokenizer | None) -> None:
        self._given = tokenizer
        self._memo: dict[str, list[int]] = {}

    @property
    def _tokenizer(self) -> Tokenizer:
        if self._given is None:
            raise TypeError("made without a tokenizer: nothing can be tokenized")
        return self._given

    def _encode_run(self, text: str) -> list[int]:
        """Encodes a text run of a prompt; the memo is bounded by templates and items."""
        ids = self._memo.get(text)
        if ids is None:
            ids = self._memo[text] = self._tokenizer.encode(text)
        return ids

    def features(self, example: Prompted) -> dict[str, Any]:
        """Features of a prompt task (see `ilm_jax.data.task_settings.SPECS`)."""
        prompt = example.prompt or Rendered(())
        inputs, slots, bounds = encode_prompt(prompt, self._encode_run)
        targets, content = self._target(example)
        return _features(
            example, inputs=inputs, targets=targets, targets_content=content, slots=slots,
            history_bounds=bounds,
        )  # fmt: skip

    def corpus_features(self, example: Prompted) -> dict[str, Any]:
        """The same as one text: no inputs; prompt, answer and eos are all target."""
        targets, content = self._target(example)
        if example.prompt is not None:
            prompt, slots, _ = encode_prompt(example.prompt, self._encode_run)
            if slots:
                raise AssertionError(f"{example.key}: a corpus text has a slot")
            targets, content = prompt + targets, [0] * len(prompt) + content
        return _features(
            example, inputs=[], targets=targets, targets_content=content, slots=[],
            history_bounds=[],
        )  # fmt: skip

    def _target(self, example: Prompted) -> tuple[list[int], list[int]]:
        eos = [self._tokenizer.eos_id]
        if example.content is None:
            targets = self._tokenizer.encode(example.target_text)
            return targets + eos, [1] * len(targets) + [0]
        targets, spans = self._tokenizer.encode_with_spans(example.target_text)
        return targets + eos, [*overlaps(spans, example.content), 0]


def _features(example: Prompted, **tokens: list[int]) -> dict[str, Any]:
    return {
        "key": example.key,
        "user": example.user,
        "template": example.template,
        "target_text": example.target_text,
        "target_item": example.target_item,
        **tokens,
    }


def overlaps(spans: list[tuple[int, int]], content: list[tuple[int, int]]) -> list[int]:
    """1 for every span that shares a character with a content span, else 0; both ascending."""
    found, number = [], 0
    for start, end in spans:
        while number < len(content) and content[number][1] <= start:
            number += 1
        found.append(int(number < len(content) and content[number][0] < end))
    return found


def template_number(
    draw: Callable[..., int], count: int, split: str, variant: int, *keys: object
) -> int:
    """Template of a variant: drawn by hash in training, different for different variants.

    Validation and test always read template 0.
    """
    return (draw(count, *keys) + variant) % count if split == "train" else 0
