"""Prompts: a template's places filled with mentions of items and users.

A rendered prompt is a list of segments, each a text or a slot; a slot is where the model will read
soft tokens. Slots are segments of their own kind,
not characters, so no text of a catalogue can forge one.

A prompt always ends in one space, so prompt and target read as one text. How segments become tokens
stands in `prompt_tokens`.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from ilm_jax.data import draws
from ilm_jax.data.catalogue.splits import TRAIN, Splits
from ilm_jax.data.examples import item_index, templates
from ilm_jax.data.examples.memo import Memo
from ilm_jax.data.examples.prompt_settings import PromptSettings
from ilm_jax.data.sources.registry import DATASETS
from ilm_jax.errors import UserError

ITEM_SLOT, USER_SLOT = -1, -2
# How slots look where a prompt is shown as one string: private-use characters.
SLOT_MARKS = {ITEM_SLOT: "\ue000", USER_SLOT: "\ue001"}
_PLACE = re.compile(r"\{(\w+)\}")
_OPTIONAL = re.compile(r"\[([^\]]*)\]")


class Segment(NamedTuple):
    """A text (kind 0), or a slot of kind ITEM_SLOT or USER_SLOT naming a local row."""

    kind: int
    text: str = ""
    row: int = -1


@dataclasses.dataclass(frozen=True)
class Rendered:
    """A prompt in segments.

    Attributes:
      segments: texts and slots in order.
      elements: numbers of the segments at which the history's elements start, and after them the
        number of the segment that follows the last one; empty without a history.
    """

    segments: tuple[Segment, ...]
    elements: tuple[int, ...] = ()

    @property
    def text(self) -> str:
        """The prompt as one string, slots as private-use characters."""
        return "".join(s.text if s.kind == 0 else SLOT_MARKS[s.kind] for s in self.segments)


def without_slots(mention: str, fallback: str) -> str:
    """A mention in words alone: what remains of it without its slot, or else `fallback`."""
    words = [part for part in mention.split("+") if part != "slot"]
    return "+".join(words) or fallback


def rating_words(rating: float) -> str:
    """A rating as prompts and answers have it, such as "4.5"."""
    return f"{rating:g}" if math.isfinite(rating) else "unrated"


class PromptRenderer:
    """Renders the prompts of one catalogue under one setting."""

    def __init__(self, splits: Splits, settings: PromptSettings) -> None:
        self.catalogue = splits.catalogue
        self.settings, self._splits = settings, splits
        self._held_out = splits.item_fold != TRAIN
        self.dataset = dataset_word(self.catalogue.name)
        self._places = {"dataset": (Segment(0, self.dataset),)}
        self._description = settings.mention_description
        self._history, self._user = settings.mention_history, settings.mention_user
        if settings.text_only:
            self._description = without_slots(self._description, "none")
            self._history = without_slots(self._history, "id")
            self._user = without_slots(self._user, "id")
        # Words in the place of slots would run into each other.
        self._bare = settings.bare_history and self._history == "slot"
        self._elements: Memo[tuple[int, bool], list[Segment]] = Memo()

    @functools.cached_property
    def _item_names(self) -> list[str]:
        # Clusters take minutes on large catalogues, and counting examples needs no names.
        return item_index.item_names(self._splits, self.settings)

    @functools.cached_property
    def _user_names(self) -> list[str]:
        return item_index.user_names(self._splits, self.settings)

    @property
    def history_mention(self) -> str:
        """The form of mentions in a history, once slots have fallen back where they must."""
        return self._history

    def held_out(self, row: int) -> bool:
        """Whether the item's words are for evaluation only."""
        return bool(self._held_out[row])

    def item_id(self, row: int) -> str:
        """The item's id string, such as "item_1042"."""
        return self._item_names[row]

    def user_id(self, row: int) -> str:
        """The user's id string, such as "user_7"."""
        return self._user_names[row]

    def target(self, row: int) -> str:
        """The words that stand for the item as an answer; a held-out item's are always its id.

        An id follows the dataset's name, as in OpenP5: "ml1m item_1042".
        """
        if self.settings.target == "id" or self._held_out[row]:
            return f"{self.dataset} {self.item_id(row)}"
        return self.catalogue.titles[row]

    def description(self, row: int, template: int) -> Rendered:
        """The prompt that asks for the item's text, see `described`."""
        return self.described(templates.DESCRIPTION[template], {"item": row})

    def described(self, template: str, rows: Mapping[str, int]) -> Rendered:
        """A prompt about the items in its places, in the form of `mention_description`.

        Where the setting names items by their titles, a held-out item's prompt does so too: such
        a prompt occurs in evaluation only, and its target is the item's words anyway.
        """
        mention = self._description
        named = {
            place: self.mention_item(row, mention, title_allowed=True)
            for place, row in rows.items()
        }
        return self.fill(template, named)

    def described_by_words(self, template: str, rows: Mapping[str, int], variant: int) -> Rendered:
        """A prompt about the items in its places, named by their content words, shuffled.

        For training items' renderings alone: it teaches a language model to read what stands in
        an item's place, as a model that has read the world does.
        """
        return self.fill(
            template, {place: self._words(row, variant) for place, row in rows.items()}
        )

    def _words(self, row: int, variant: int) -> list[Segment]:
        assert not self._held_out[row], "a held-out item is never named by its words"
        text = self.catalogue.texts[row]
        words = [text[start:end] for start, end in self.catalogue.content[row]]
        key = (self.settings.seed, "words", self.catalogue.item_ids[row], variant)
        order = sorted(range(len(words)), key=lambda k: draws.uniform(*key, k))
        return [Segment(0, ", ".join(words[k] for k in order))] if words else []

    def templates(self, task: str, prompts: str = "seen") -> tuple[str, ...]:
        """The templates of "sequential" or "straightforward", "seen" in training or "unseen".

        Raises:
          UserError: for a bare history of words, which would run into each other; see
            `templates.recommendation`.
        """
        if self.settings.bare_history and task == "sequential":
            if self.settings.mention_history != "slot":
                raise UserError(
                    f"TaskSettings.bare_history with mention_history="
                    f'"{self.settings.mention_history}": words would run into each other; '
                    'set mention_history="slot"'
                )
            if self._bare:
                return (templates.BARE,)
        return templates.recommendation(task, prompts, self.settings.prompt_file)

    def sequential(self, user: int, history: Sequence[int], template: int) -> Rendered:
        """The prompt that asks for the item after `history` (local rows, oldest first).

        Held-out items are named by id where the setting says title.
        """
        mentions = {"user": self.mention_user(user)}
        return self.fill(self.templates("sequential")[template], mentions, self.history(history))

    def straightforward(self, user: int, template: int) -> Rendered:
        """The prompt that asks for the user's next item without a history."""
        mentions = {"user": self.mention_user(user)}
        return self.fill(self.templates("straightforward")[template], mentions)

    def history(self, rows: Sequence[int]) -> list[list[Segment]]:
        """The items of a history as elements for `fill`; held-out items are named without words."""
        last = len(rows) - 1
        return [self._element(int(row), k == last) for k, row in enumerate(rows)]

    def _element(self, row: int, last: bool) -> list[Segment]:
        """An item of a history with its separator; remembered, as items recur."""
        element = self._elements.get((row, last))
        if element is None:
            mention = self.mention_item(row, self._history, not self._held_out[row])
            # Titles have commas of their own.
            mark = Segment(0, ";" if "title" in self._history else ",")
            marks = [] if last else [mark]
            parts = mention if self._bare else [Segment(0, " "), *mention, *marks]
            element = self._elements[row, last] = _join(parts)
        return element

    def mention_item(self, row: int, mention: str, title_allowed: bool) -> list[Segment]:
        """An item in the form `mention`; without leave to use its title, by its id instead."""
        title = self.catalogue.titles.__getitem__ if title_allowed else self.item_id
        return _mention(mention, ITEM_SLOT, row, {"id": self.item_id, "title": title})

    def mention_user(self, row: int) -> list[Segment]:
        """A user in the setting's form."""
        return _mention(self._user, USER_SLOT, row, {"id": self.user_id})

    def fill(
        self,
        template: str,
        mentions: Mapping[str, list[Segment]],
        elements: Sequence[list[Segment]] = (),
    ) -> Rendered:
        """A template with its places filled.

        Args:
          template: see `templates`.
          mentions: segments for each place but `{dataset}`; an empty one takes its brackets along.
          elements: of the place `{history}`, with their separators.
        """
        absent = frozenset([name for name, mention in mentions.items() if not mention])
        segments: list[Segment] = []
        starts: list[int] = []
        for text, name in _pieces(template, absent):
            segments.append(text)
            if name != "history":
                segments.extend(mentions.get(name) or self._places.get(name) or ())
                continue
            segments = _join(segments)
            for element in elements:
                starts.append(len(segments))
                segments.extend(element)
            starts.append(len(segments))
        if not starts:
            return Rendered(tuple(_join(segments)))
        return Rendered((*segments[: starts[-1]], *_join(segments[starts[-1] :])), tuple(starts))


def _mention(
    mention: str, slot: int, row: int, words: dict[str, Callable[[int], str]]
) -> list[Segment]:
    """Words and slots of one mention; words are set apart by a space, a slot by nothing."""
    segments: list[Segment] = []
    for part in mention.split("+"):
        if part == "slot":
            segments.append(Segment(slot, "", row))
        elif part != "none":
            space = " " if segments else ""
            segments.append(Segment(0, space + words[part](row)))
    return segments


def _join(segments: Sequence[Segment]) -> list[Segment]:
    """Joins neighbouring texts and drops empty ones."""
    joined: list[Segment] = []
    for segment in segments:
        if segment.kind == 0 and joined and joined[-1].kind == 0:
            joined[-1] = Segment(0, joined[-1].text + segment.text)
        elif segment.kind != 0 or segment.text:
            joined.append(segment)
    return joined


@functools.cache
def _pieces(template: str, absent: frozenset[str]) -> list[tuple[Segment, str]]:
    """(text, place after it or "") in order; a prompt ends in one space, a bare one in its slot."""

    def keep(match: re.Match) -> str:
        """The optional part if all that it names is there, else its alternative."""
        said, _, instead = match[1].partition("|")
        return instead if absent & set(_PLACE.findall(said)) else said

    parts = _PLACE.split(_OPTIONAL.sub(keep, template))
    sentence = parts[0][:1].upper() + parts[0][1:]
    texts, places = [sentence, *parts[2::2]], [*parts[1::2], ""]
    end = "" if template == templates.BARE else " "
    told = [Segment(0, text) for text in (*texts[:-1], texts[-1] + end)]
    return list(zip(told, places, strict=True))


def dataset_word(name: str) -> str:
    """Name of a dataset in prompts and answers: "movielens/1m" is "ml1m", "openp5/beauty" "beauty".

    Prompts name it so that one model may learn several datasets without mixing their catalogues.
    """
    source, _, rest = name.partition("/")
    if source in DATASETS:
        rest = DATASETS[source].short + rest
    return re.sub(r"[^0-9a-z]", "", (rest or source).lower()) or "data"
