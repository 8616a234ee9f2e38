"""A conversation with a trained model: what was chosen, what is wanted, what is recommended."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from ilm_jax.data.examples.mentions import Names, as_example
from ilm_jax.data.examples.prompt_tokens import PromptTokenizer
from ilm_jax.data.examples.prompts import PromptRenderer, Rendered, Segment
from ilm_jax.decoding.config import DecodingConfig
from ilm_jax.errors import UserError
from ilm_jax.serving.answering import Answerer
from ilm_jax.serving.requests import Request

# How a critique is put in front of the question; the model reads it as it reads any words.
WANTED = "Wanted: {}. "
FULL_STOPS = ".\N{IDEOGRAPHIC FULL STOP}\N{DEVANAGARI DANDA}\N{ARABIC FULL STOP}"


@dataclasses.dataclass(frozen=True)
class Recommendation:
    """An item and why.

    Attributes:
      row: of the item.
      id, title: the catalogue's.
      score: log-probability of the item's string after the prompt, in nats.
      explanation: what the model writes of the item.
    """

    row: int
    id: str
    title: str
    score: float
    explanation: str


class Conversation:
    """What was said so far, and the model that answers.

    Attributes:
      names: of the catalogue.
      history: rows of the chosen items, oldest first.
      critiques: in words, oldest first.
      user: row of the user, or None.
      refused: rows that a critique followed; they are not recommended again.
    """

    def __init__(self, answerer: Answerer, *, count: int, config: DecodingConfig) -> None:
        """Starts with nothing said.

        Args:
          answerer: of a run with a catalogue.
          count: items of a recommendation.
          config: how explanations are written.

        Raises:
          UserError: if the catalogue has fewer items.
        """
        if answerer.renderer is None:
            raise UserError("a conversation needs a run with a catalogue")
        self._renderer: PromptRenderer = answerer.renderer
        items = self._renderer.catalogue.num_items
        if not 1 <= count <= items:
            raise UserError(f"{count} items per recommendation: give a number from 1 to {items}")
        self._answerer, self._count, self._config = answerer, count, config
        self._words = PromptTokenizer(answerer.tokenizer)
        self.names = Names(self._renderer.catalogue)
        self.clear()

    def clear(self) -> None:
        """Forgets everything that was said."""
        self.history: list[int] = []
        self.critiques: list[str] = []
        self.refused: set[int] = set()
        self.user: int | None = None
        self._last: list[int] = []

    def speak_as(self, name: str, *, recall: bool = False) -> None:
        """Takes the part of a user of the catalogue.

        Args:
          name: id of the user.
          recall: what this user chose counts as chosen: the last of it, as many items as prompts
            had in training, is the history, and none of it is recommended.

        Raises:
          UserError: for an unknown one.
        """
        self.user = self.names.user(name)
        if recall:
            chosen = self.names.catalogue.sequence(self.user).tolist()
            self.history = chosen[-self._renderer.settings.history :]
            self.refused.update(chosen)

    def add(self, names: Sequence[str]) -> list[int]:
        """Adds items to the history, all or none; returns their rows.

        Raises:
          UserError: for an unknown one.
        """
        rows = [self.names.item(name) for name in names]
        self.history += rows
        return rows

    def criticise(self, words: str) -> None:
        """Remembers a critique; what was recommended last is not recommended again."""
        self.critiques.append(words.strip().rstrip(FULL_STOPS))
        self.refused.update(self._last)

    def rank(self) -> list[dict[str, Any]]:
        """{"id", "title", "score"} of the best items for what was said, without explanations.

        Raises:
          UserError: if what was said is too long, or nothing is left to recommend.
        """
        asked = self._request(0, self.prompt())
        gone = sorted({*self.history, *self.refused})
        (found,) = self._answerer.items([asked], self._count, [gone])
        if not found["items"]:
            raise UserError("every item was chosen or refused before: /clear starts anew")
        self._last = [self.names.catalogue.item_row[item["id"]] for item in found["items"]]
        return found["items"]

    def recommend(self) -> list[Recommendation]:
        """The best items for what was said, none of them chosen or refused before, and why.

        Raises:
          UserError: as `rank`.
        """
        ranked = self.rank()
        texts = self.describe(self._last)
        return [
            Recommendation(row, item["id"], item["title"], item["score"], text)
            for row, item, text in zip(self._last, ranked, texts, strict=True)
        ]

    def describe(self, rows: Sequence[int]) -> list[str]:
        """What the model writes of these items."""
        why = [self._request(k, self._renderer.description(row, 0)) for k, row in enumerate(rows)]
        return [text["text"] for text in self._answerer.texts(why, self._config)]

    def prompt(self) -> Rendered:
        """What the model is asked: the words of its training, behind the critiques."""
        user = [] if self.user is None else self._renderer.mention_user(self.user)
        task = "sequential" if self.history else "straightforward"
        template = self._renderer.templates(task)[0]
        history = self._renderer.history(self.history) if self.history else ()
        asked = self._renderer.fill(template, {"user": user}, history)
        if not self.critiques:
            return asked
        wanted = Segment(0, WANTED.format(", ".join(self.critiques)))
        return Rendered((wanted, *asked.segments), tuple(n + 1 for n in asked.elements))

    def _request(self, number: int, rendered: Rendered) -> Request:
        name = self._renderer.catalogue.name
        example = as_example(self._words, rendered, name, "what was said")
        return Request(number, number, rendered.text, example)
