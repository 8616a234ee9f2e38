"""A conversation's turns, as far as a prompt has room for them."""

import numpy as np

from ilm_jax.data.examples.mentions import example_of
from ilm_jax.data.examples.prompt_tokens import PromptTokenizer, Tokens, Turn, spoken, trimmed
from ilm_jax.data.examples.prompts import Rendered
from ilm_jax.data.tokenizers.chat_template import ASSISTANT, USER
from ilm_jax.decoding.config import DecodingConfig
from ilm_jax.serving.answering import Answerer
from ilm_jax.serving.requests import Request


class Turns:
    """The conversation so far, for a model with a chat format; plain text has no turns.

    Attributes:
      said: the turns, oldest first: a question, its answer, and so on.
      unread: how many of the oldest ones the last question left out, as they did not fit.
    """

    def __init__(self, answerer: Answerer, catalogue: str = "") -> None:
        """Starts with nothing said.

        Args:
          answerer: whose tokenizer and room it is.
          catalogue: name of the catalogue that rows are of.
        """
        self._answerer, self._catalogue = answerer, catalogue
        self._words = PromptTokenizer(answerer.tokenizer)
        self.said: list[Turn] = []
        self.unread = 0

    @property
    def kept(self) -> bool:
        """Whether the model reads earlier turns."""
        return self._answerer.tokenizer.chat is not None

    def clear(self) -> None:
        """Forgets everything that was said."""
        self.said, self.unread = [], 0

    def alone(self, asked: Rendered, number: int = 0) -> Request:
        """A question without what was said before."""
        return self._request(asked, self._words.prompt(asked), number)

    def request(self, asked: Rendered) -> Request:
        """A question behind what was said before."""
        if not self.kept:
            return self.alone(asked)
        now, self.unread = Turn(USER, trimmed(asked)), 0
        tokens = self._words.conversation([*self.said, now])
        while self.unread < len(self.said) and not self._fits(tokens):
            self.unread += 2
            tokens = self._words.conversation([*self.said[self.unread :], now])
        return self._request(asked, tokens, 0)

    def keep(self, asked: Rendered, answer: str) -> None:
        """Remembers a question and its answer."""
        if self.kept:
            self.said += [Turn(USER, trimmed(asked)), Turn(ASSISTANT, spoken(answer))]

    def answer(self, asked: Rendered, config: DecodingConfig) -> str:
        """The model's answer to a question, in words; both are remembered.

        Raises:
          UserError: if the question is too long.
        """
        (found,) = self._answerer.texts([self.request(asked)], config)
        self.keep(asked, found["text"])
        return found["text"]

    def _fits(self, tokens: Tokens) -> bool:
        converter, (inputs, slots, _) = self._answerer.converter, tokens
        width = int(np.where(np.asarray(inputs, np.int32) < 0, converter.num_queries, 1).sum())
        return width <= converter.inputs_length and len(slots) <= converter.max_entities

    def _request(self, asked: Rendered, tokens: Tokens, number: int) -> Request:
        example = example_of(tokens, self._catalogue, "what was said")
        return Request(number, number, asked.text, example)
