"""A conversation with a trained model: what was chosen, what is wanted, what is recommended."""

import copy
import dataclasses
from collections.abc import Sequence
from typing import Any

from ilm_jax.data.examples.mentions import Names, render
from ilm_jax.data.examples.prompts import PromptRenderer, Rendered, Segment
from ilm_jax.data.examples.purchases import NO_ITEM
from ilm_jax.decoding.config import DecodingConfig
from ilm_jax.errors import UserError
from ilm_jax.serving.answering import Answerer
from ilm_jax.serving.requests import Request
from ilm_jax.serving.turns import Turns

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
    """A conversation so far, and the model that answers.

    A model with a chat format reads turns: every question behind the earlier ones and what was
    recommended, a critique in the turn that it opens. One without reads a single prompt, all
    critiques in front of it. One that learnt to speak behind an item (LUMEN) reads the single
    prompt of its training: the history, and behind its last item what was wished since.

    Attributes:
      names: of the catalogue.
      renderer: of the model's prompts.
      history: rows of the chosen items, oldest first.
      critiques: in words, oldest first.
      user: row of the user, or None.
      refused: rows that a critique followed; they are not recommended again.
      turns: what the model reads of what was said.
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
        self.renderer: PromptRenderer = answerer.renderer
        items = self.renderer.catalogue.num_items
        if not 1 <= count <= items:
            raise UserError(f"{count} items per recommendation: give a number from 1 to {items}")
        self._answerer, self._count, self._config = answerer, count, config
        self.turns = Turns(answerer, self.renderer.catalogue.name)
        self.names = Names(self.renderer.catalogue)
        self.clear()

    def clear(self) -> None:
        """Forgets everything that was said."""
        self.history: list[int] = []
        self.critiques: list[str] = []
        self.refused: set[int] = set()
        self.user: int | None = None
        self._last: list[int] = []
        self._answered = self._before = 0
        self._state: object = None
        self._wishes: dict[int, list[str]] = {}
        self._asked: Request | None = None
        self._gone: list[int] = []
        self.turns.clear()

    def copy(self) -> "Conversation":
        """Another that goes on from here by itself."""
        other = copy.copy(self)
        other.history, other.critiques = list(self.history), list(self.critiques)
        other.refused = set(self.refused)
        other._wishes = {place: list(words) for place, words in self._wishes.items()}
        other.turns = copy.copy(self.turns)
        other.turns.said = list(self.turns.said)
        return other

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
            self.history = chosen[-self.renderer.settings.history :]
            self._wishes.clear()
            self.refused.update(chosen)

    def add(self, names: Sequence[str]) -> list[int]:
        """Adds items to the history, all or none; returns their rows.

        Raises:
          UserError: for an unknown one.
        """
        rows = [self.names.item(name) for name in names]
        self.history += rows
        return rows

    def remove(self, row: int) -> None:
        """Takes an item out of the history, wherever it stands; what was wished after it is wished
        after the item before.
        """
        while row in self.history:
            at = self.history.index(row)
            del self.history[at]
            moved: dict[int, list[str]] = {}
            for place, words in sorted(self._wishes.items()):
                if new := place - (place > at):  # none is wished before the first item
                    moved.setdefault(new, []).extend(words)
            self._wishes = moved

    def criticise(self, words: str) -> None:
        """Remembers a critique; what was recommended last is not recommended again.

        Raises:
          UserError: for a model whose critiques steer from an item (LUMEN), before there is one.
        """
        if self._answerer.purchases is not None:
            if not self.history:
                raise UserError(NO_ITEM.format(words, "add one first (/history add ID…)"))
            self._wishes.setdefault(len(self.history), []).append(_sentence(words))
        self.critiques.append(words.strip().rstrip(FULL_STOPS))
        self.refused.update(self._last)

    def rank(self) -> list[dict[str, Any]]:
        """{"id", "title", "score"} of the best items for what was said, without explanations.

        Raises:
          UserError: if what was said is too long, or nothing is left to recommend.
        """
        state = (self.user, tuple(self.history), len(self.critiques))
        if self._state == state:  # the same question: its answer is given again
            del self.turns.said[-2:]
            self._answered, self._state = self._before, None
        asked = self.prompt()
        gone = sorted({*self.history, *self.refused})
        alone = self._answerer.purchases is not None
        request = self.turns.alone(asked) if alone else self.turns.request(asked)
        (found,) = self._answerer.items([request], self._count, [gone])
        if not found["items"]:
            raise UserError("every item was chosen or refused before: /clear starts anew")
        self._last = [self.names.catalogue.item_row[item["id"]] for item in found["items"]]
        self._asked, self._gone = request, gone
        if not alone:
            self.turns.keep(asked, ", ".join(map(self.renderer.target, self._last)))
        self._state, self._before = state, self._answered
        self._answered = len(self.critiques)
        return found["items"]

    def standing(self, depth: int) -> list[int]:
        """Rows of the `depth` best items for what `rank` answered last: its answer before others
        (more beams may order them otherwise); [] before there was one.
        """
        if self._asked is None:
            return []
        (found,) = self._answerer.items([self._asked], depth, [self._gone])
        rows = [self.names.catalogue.item_row[item["id"]] for item in found["items"]]
        return list(dict.fromkeys([*self._last, *rows]))[:depth]

    def recommend(self) -> list[Recommendation]:
        """The best items for what was said, none of them chosen or refused before, and why.

        Raises:
          UserError: as `rank`.
        """
        ranked = self.rank()
        if self._answerer.purchases is None or self._asked is None:
            texts = self.describe(self._last)
        else:
            asked = [self._asked] * len(self._last)
            found = self._answerer.narratives(asked, self._last, self._config)
            texts = [text["text"] for text in found]
        return [
            Recommendation(row, item["id"], item["title"], item["score"], text)
            for row, item, text in zip(self._last, ranked, texts, strict=True)
        ]

    def describe(self, rows: Sequence[int]) -> list[str]:
        """The model's text about these items."""
        prompts = [self.renderer.description(row, 0) for row in rows]
        why = [self.turns.alone(asked, number) for number, asked in enumerate(prompts)]
        return [text["text"] for text in self._answerer.texts(why, self._config)]

    def ask(self, words: str) -> str:
        """The model's answer to any words, which may mention {item:ID} and {user:ID}.

        Raises:
          UserError: for an unknown item or user, or words that are too long.
        """
        asked, _ = render(words, self.renderer, self.names)
        self._state = None
        return self.turns.answer(asked, self._config)

    def prompt(self) -> Rendered:
        """The model's next prompt: the words of its training, behind the critiques that it has not
        answered.
        """
        user = [] if self.user is None else self.renderer.mention_user(self.user)
        if self._answerer.purchases is not None:
            first = max(0, len(self.history) - self.renderer.settings.history)
            wishes = {
                place - first: " ".join(words)
                for place, words in self._wishes.items()
                if place > first
            }
            return self._answerer.purchases.prompt(self.history[first:], wishes, user=user)
        task = "sequential" if self.history else "straightforward"
        template = self.renderer.templates(task)[0]
        history = self.renderer.history(self.history) if self.history else ()
        asked = self.renderer.fill(template, {"user": user}, history)
        critiques = self.critiques[self._answered if self.turns.kept else 0 :]
        if not critiques:
            return asked
        wanted = Segment(0, WANTED.format(", ".join(critiques)))
        return Rendered((wanted, *asked.segments), tuple(n + 1 for n in asked.elements))


def _sentence(words: str) -> str:
    """With a full stop, as the critiques of a corpus end, unless it ends with a sign."""
    words = words.strip()
    return f"{words}." if words[-1:].isalnum() else words
