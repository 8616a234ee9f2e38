"""What a page shows of a trained run: visitors with their histories, lists that critiques move,
and texts about items whose words no training saw.

A visitor's state is that of a `Conversation`; the model is one for all, and answers them in turn.
"""

import dataclasses
import threading

import numpy as np

from ilm_jax.data.catalogue.splits import TRAIN, Splits
from ilm_jax.data.examples import templates
from ilm_jax.data.examples.mentions import Names
from ilm_jax.data.examples.prompts import SLOT_MARKS
from ilm_jax.decoding.config import DecodingConfig
from ilm_jax.errors import UserError
from ilm_jax.serving.answering import Answerer
from ilm_jax.serving.conversation import Conversation

HITS = 20  # items of a search at most
WORDS = 500  # characters of a critique at most
# How far down a list it is looked up where an item stood before, by the item head or by beams.
DEPTH, DEPTH_OF_BEAMS = 100, 20


@dataclasses.dataclass(frozen=True)
class Hit:
    """An item as people see it.

    Attributes:
      id, title: the catalogue's.
    """

    id: str
    title: str


@dataclasses.dataclass(frozen=True)
class Listed:
    """An item of a list.

    Attributes:
      id, title: the catalogue's.
      score: as `Answerer.items` has it.
      explanation: what the model writes of it; "" of a model that does not write.
      was: its place for what was said before, from 1; None if it stood below `Listing.depth`, or
        nothing was asked before.
    """

    id: str
    title: str
    score: float
    explanation: str
    was: int | None = None


@dataclasses.dataclass(frozen=True)
class Listing:
    """A list of recommendations.

    Attributes:
      items: best first.
      critique: what was wished, if the list answers a critique; else "".
      depth: how many places of the list before were looked at; 0 for a first list.
    """

    items: tuple[Listed, ...]
    critique: str = ""
    depth: int = 0


@dataclasses.dataclass(frozen=True)
class Description:
    """What a model writes about an item, and what is known.

    Attributes:
      item: the item.
      prompt: what the model was asked; ◆ stands for the item's vector.
      text: its answer.
      reference: the catalogue's text.
      held_out: whether no training read that text.
      by_vector: whether the prompt holds the vector, and no name of the item.
    """

    item: Hit
    prompt: str
    text: str
    reference: str
    held_out: bool
    by_vector: bool


class Demo:
    """A run, open to many visitors.

    Attributes:
      catalogue: its items.
      explains: whether the model learnt to write.
      unread: rows of the items whose texts no training read, those with most interactions first.
    """

    def __init__(
        self,
        answerer: Answerer,
        splits: Splits,
        *,
        count: int,
        config: DecodingConfig,
        explains: bool = True,
    ) -> None:
        """Opens.

        Args:
          answerer: of a run with a catalogue.
          splits: of that catalogue.
          count: items of a list.
          config: how texts are written.
          explains: False for a model that learnt to rank alone.

        Raises:
          UserError: as `Conversation`.
        """
        self.catalogue, self.explains = splits.catalogue, explains
        self.unread = unread(splits)
        self._held_out = splits.item_fold != TRAIN
        self._answerer, self._count, self._config = answerer, count, config
        self._asked = self._conversation()
        deep = DEPTH if answerer.shelf is not None else DEPTH_OF_BEAMS
        self.depth = min(max(deep, 2 * count), self.catalogue.num_items)
        self.steers = answerer.purchases is not None
        self.model = threading.Lock()  # held while the model computes

    def visitor(self) -> "Visitor":
        """A new one, who has said nothing."""
        return Visitor(self, self._conversation())

    def search(self, words: str) -> list[Hit]:
        """Items whose titles hold all the words, at most `HITS`; see `Names.search`."""
        return search(self._asked.names, words)

    def search_unread(self, words: str) -> list[Hit]:
        """The same among the items that the model never read about; without words the first."""
        if not words.strip():
            return [self.hit(int(row)) for row in self.unread[:HITS]]
        names = self._asked.names
        rows = names.search(words, self.catalogue.num_items)
        return [self.hit(row) for row in rows if self._held_out[row]][:HITS]

    def hit(self, row: int) -> Hit:
        """The item of a row."""
        return Hit(self.catalogue.item_ids[row], self.catalogue.titles[row])

    def describe(self, name: str) -> Description:
        """The model's text about an item, beside the catalogue's.

        Args:
          name: the item's id or title.

        Raises:
          UserError: for an unknown item, or a model that does not write.
        """
        if not self.explains:
            raise UserError("this model learnt to rank, and writes nothing")
        row, prompts = self._asked.names.item(name), self._asked.renderer
        with self.model:
            (text,) = self._asked.describe([row])
        asked = prompts.description(row, 0)
        vector = prompts.mention_item(row, "slot", title_allowed=True)
        prompt = asked.text
        for mark in SLOT_MARKS.values():
            prompt = prompt.replace(mark, "◆")
        return Description(
            self.hit(row),
            prompt.strip(),
            text,
            self.catalogue.texts[row],
            bool(self._held_out[row]),
            asked == prompts.fill(templates.DESCRIPTION[0], {"item": vector}),
        )

    def _conversation(self) -> Conversation:
        return Conversation(self._answerer, count=self._count, config=self._config)


class Visitor:
    """One person's conversation.

    Attributes:
      lists: what was recommended, oldest first.
    """

    def __init__(self, demo: Demo, conversation: Conversation) -> None:
        """Of a demo, with a conversation in which nothing was said."""
        self._demo, self._talk = demo, conversation
        self.lists: list[Listing] = []
        self._mine = threading.RLock()

    @property
    def history(self) -> list[Hit]:
        """What was chosen, oldest first."""
        return [self._demo.hit(row) for row in self._talk.history]

    def add(self, name: str) -> None:
        """Adds an item to the history, unless it is there.

        Raises:
          UserError: for an unknown one.
        """
        with self._mine:
            if self._talk.names.item(name) not in self._talk.history:
                self._talk.add([name])

    def remove(self, name: str) -> None:
        """Takes an item out of the history; what was wished and refused stays.

        Raises:
          UserError: for an unknown item.
        """
        with self._mine:
            row = self._talk.names.item(name)
            if row in self._talk.history:
                self._talk.remove(row)

    def clear(self) -> None:
        """Forgets everything."""
        with self._mine:
            self._talk.clear()
            self.lists = []

    def recommend(self, critique: str = "") -> Listing:
        """A list of items, none of them chosen or refused before; it is kept in `lists`.

        Args:
          critique: what is wished, in words. The items of the last list are then refused. ""
            where nothing is.

        Raises:
          UserError: for words that are too long, or when no item is left; the conversation is then
            as it was.
        """
        with self._mine, self._demo.model:
            talk = self._talk.copy()
            listing = self._recommend(talk, " ".join(critique.split()))
            self._talk = talk
            self.lists.append(listing)
            return listing

    def _recommend(self, talk: Conversation, critique: str) -> Listing:
        demo = self._demo
        if len(critique) > WORDS:
            raise UserError(f"a wish of {len(critique)} characters: say it in {WORDS}")
        if critique and demo.steers and not talk.history:
            raise UserError("this model is steered from an item: choose one first")
        before = talk.standing(demo.depth)
        if critique:
            talk.criticise(critique)
        if len({*talk.history, *talk.refused}) >= demo.catalogue.num_items:
            raise UserError("every item was chosen or refused by now: start anew")
        if demo.explains:
            found = [(r.row, r.score, r.explanation) for r in talk.recommend()]
        else:
            rows = demo.catalogue.item_row
            found = [(rows[item["id"]], item["score"], "") for item in talk.rank()]
        places = {row: place for place, row in enumerate(before, 1)}
        items = []
        for row, score, text in found:
            hit = demo.hit(row)
            items.append(Listed(hit.id, hit.title, score, text, places.get(row)))
        return Listing(tuple(items), critique, len(before))


def search(names: Names, words: str) -> list[Hit]:
    """Items whose titles hold all the words, case aside, short titles first; at most `HITS`."""
    if not words.strip():
        return []
    catalogue = names.catalogue
    rows = names.search(words, HITS)
    return [Hit(catalogue.item_ids[row], catalogue.titles[row]) for row in rows]


def unread(splits: Splits) -> list[int]:
    """Rows of the items whose words no training reads, those with most interactions first."""
    rows = np.flatnonzero(splits.item_fold != TRAIN)
    counts = splits.train_counts()[rows]
    return [int(row) for row in rows[np.argsort(-counts, kind="stable")]]
