"""Prompts as turns of a conversation: a model's template around words that stay words.

The template is rendered with every turn's words between two marks that no text holds, so that what
the template writes can be told from what people say. Special tokens are recognised in the former
alone: "<|im_end|>" in an item's description, or typed by a user, is ten characters.
"""

import dataclasses
import functools
import os
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ilm_jax.data.tokenizers.chat_template import ASSISTANT, SYSTEM, USER, ChatTemplate, Message
from ilm_jax.data.tokenizers.protocol import Special
from ilm_jax.errors import UserError
from ilm_jax.files import sha256_json

# Planes of private characters: the marks of turn k are two of one plane that no text uses.
_PLANES = (0xF0000, 0x100000)
_MOST_TURNS = 0x7FFF


class Words(NamedTuple):
    """Characters [start, end) of what turn `turn` says."""

    turn: int
    start: int
    end: int


# The id of a special token, text of the template, or somebody's words.
Piece = int | str | Words


@dataclasses.dataclass(frozen=True)
class ChatFormat:
    """A model's layout of a conversation.

    Attributes:
      template: of the model's files.
      specials: its special tokens by their spelling.
      system: said before every conversation; "": nothing, and a template may have words of its own.
    """

    template: ChatTemplate
    specials: tuple[tuple[str, Special], ...]
    system: str = ""

    @property
    def fingerprint(self) -> str:
        """Hex SHA-256 of what decides the tokens around words."""
        return sha256_json([self.template.fingerprint, self.system])

    def messages(self, turns: Sequence[Message]) -> list[Message]:
        """The conversation with what is said before it."""
        opening = [Message(SYSTEM, self.system)] if self.system else []
        return [*opening, *turns]

    def prompt(self, messages: Sequence[Message]) -> list[Piece]:
        """All that stands before the assistant's next answer.

        Words neither begin nor end in white space: what a template leaves of it is its text. Spaces
        right before the answer are left out, see `lead`.

        Args:
          messages: the last one is the user's.

        Raises:
          UserError: if the template fails, or leaves out or changes what is said.
        """
        pieces, _ = self._split(messages)
        return pieces

    @functools.cached_property
    def one_turn(self) -> list[Piece]:
        """`prompt` of a single question; its words are those of the last turn, whole."""
        return self.prompt(self.messages([Message(USER, "x")]))

    @functools.cached_property
    def lead(self) -> str:
        """Spaces between the prompt and the answer, which the answer's first token takes along."""
        before, _ = self._rendered(self.messages([Message(USER, "x")]))
        return before[len(before.rstrip(" ")) :]

    @functools.cached_property
    def end_id(self) -> int | None:
        """The special token that the template ends an answer with; None where there is none."""
        return next((piece for piece in self._behind if isinstance(piece, int)), None)

    @functools.cached_property
    def closing(self) -> str:
        """Text that the template puts between an answer and the token that ends it."""
        first = self._behind[:1]
        return first[0] if first and isinstance(first[0], str) and self.end_id is not None else ""

    @functools.cached_property
    def _behind(self) -> list[Piece]:
        """What follows an answer."""
        return self._split(self.messages([Message(USER, "x")]))[1]

    def _split(self, messages: Sequence[Message]) -> tuple[list[Piece], list[Piece]]:
        """(what stands before the answer, what stands behind it)."""
        before, after = self._rendered(messages)
        pieces: list[Piece] = []
        for piece in self._located(before.rstrip(" "), messages):
            pieces += self._spelled(piece) if isinstance(piece, str) else [piece]
        return self._stripped(pieces), self._spelled(after)

    def _rendered(self, messages: Sequence[Message]) -> tuple[str, str]:
        """The template's text with marks, before and behind the assistant's answer.

        Before it stands what the template writes where an answer is to follow; and what it writes
        before an answer that is there, where that is more (a template that opens the assistant's
        turn with its words alone).
        """
        everything = [*messages, Message(ASSISTANT, "")]
        marks, marked = _marks(everything), []
        for (role, text), (start, end) in zip(everything, marks, strict=True):
            first, last = _core(text)
            inside = f"{text[:first]}{start}{text[first:last]}{end}{text[last:]}"
            marked.append(Message(role, inside))
        answered = self.template.text(marked, generation=False)
        opened = self.template.text(marked[:-1], generation=True)
        if any(max(map(text.count, mark)) > 1 for mark in marks for text in (answered, opened)):
            raise UserError(f"{self.template.where}: its chat template says a turn twice")
        start, end = marks[-1]
        if start not in answered or end not in answered:
            raise UserError(
                f"{self.template.where}: its chat template has no place for the assistant's answer"
            )
        before = answered[: answered.index(start)]
        behind = answered[answered.index(end) + 1 :]
        return (before if before.startswith(opened) else opened), behind

    def _located(self, text: str, messages: Sequence[Message]) -> Iterator[str | Words]:
        """The text, cut at what the turns say.

        A template may leave out an earlier turn, or its beginning (what a model thought before it
        answered); the last turn and the system's are said whole.
        """
        places = []
        for turn, (message, mark) in enumerate(zip(messages, _marks(messages), strict=False)):
            place = _place(text, message.content, *mark)
            needed = message.role == SYSTEM or turn == len(messages) - 1
            if place is None and not needed:
                continue
            if place is None or (needed and place[2:] != _core(message.content)):
                raise UserError(
                    f"{self.template.where}: its chat template leaves out or changes what the "
                    f"{message.role} says"
                )
            places.append((*place[:2], Words(turn, *place[2:])))
        end = 0
        for start, stop, words in sorted(places):
            yield text[end:start]
            yield words
            end = stop
        yield text[end:]

    def _spelled(self, text: str) -> list[Piece]:
        """A text of the template with its special tokens as ids."""
        pieces: list[Piece] = []
        for part in self._pattern.split(text) if self.specials else [text]:
            if part in self._ids:
                pieces.append(self._ids[part].id)
            elif part:
                pieces.append(part)
        return pieces

    @functools.cached_property
    def _ids(self) -> dict[str, Special]:
        return dict(self.specials)

    @functools.cached_property
    def _pattern(self) -> re.Pattern[str]:
        # Of two that begin alike the longer one is meant.
        spellings = sorted(self._ids, key=len, reverse=True)
        return re.compile(f"({'|'.join(map(re.escape, spellings))})")

    def _stripped(self, pieces: Sequence[Piece]) -> list[Piece]:
        """Without the white space that special tokens take along."""
        left = {special.id for special in self._ids.values() if special.lstrip}
        right = {special.id for special in self._ids.values() if special.rstrip}
        kept: list[Piece] = []
        for number, piece in enumerate(pieces):
            if isinstance(piece, str):
                if number and pieces[number - 1] in right:
                    piece = piece.lstrip()
                if number + 1 < len(pieces) and pieces[number + 1] in left:
                    piece = piece.rstrip()
            if piece != "":
                kept.append(piece)
        return kept


def _core(text: str) -> tuple[int, int]:
    """Where a text begins and ends without the white space around it."""
    inner = text.strip()
    first = len(text) - len(text.lstrip()) if inner else len(text)
    return first, first + len(inner)


def _marks(messages: Sequence[Message]) -> list[tuple[str, str]]:
    """Two marks for each message, in no text of any.

    Raises:
      UserError: if texts use all characters that marks are made of.
    """
    used = {ord(c) >> 16 for message in messages for c in message.content if ord(c) >= 0xF0000}
    plane = next((plane for plane in _PLANES if plane >> 16 not in used), None)
    if plane is None or len(messages) > _MOST_TURNS:
        raise UserError("a conversation of private characters, or of thousands of turns")
    return [(chr(plane + 2 * k), chr(plane + 2 * k + 1)) for k in range(len(messages))]


def _place(text: str, said: str, start: str, end: str) -> tuple[int, int, int, int] | None:
    """Where a text stands between or at its marks: (from, to) here, (from, to) in what was said.

    None where neither mark is left, or something else stands between them.
    """
    first, last = _core(said)
    core, opens, closes = said[first:last], text.find(start), text.find(end)
    if opens >= 0 and closes >= 0:
        return (opens, closes + 1, first, last) if text[opens + 1 : closes] == core else None
    if closes >= 0:
        kept = len(os.path.commonprefix([text[:closes][::-1], core[::-1]]))
        return closes - kept, closes + 1, last - kept, last
    if opens >= 0:
        kept = len(os.path.commonprefix([text[opens + 1 :], core]))
        return opens, opens + 1 + kept, first, first + kept
    return None
