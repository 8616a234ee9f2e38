"""Tokens of prompts and answers.

Seams. Every text segment is encoded on its own: pieces never cross a slot, the border of a history
element, or the border between prompt and answer. So that published models read what they read in
training,

- a segment behind another one is encoded without a dummy prefix (`continues`), and
- where a tokenizer makes a space part of the word after it (`space_leads`), the spaces at the end
  of a text move to the text behind it: "… is " and "item_7" become "… is" and " item_7". In front
  of a slot they stay.

With both, the tokens of the segments are those of the whole text wherever the tokenizer never
joins pieces over the space before a word, which holds for all of the kinds in `tokenizers`, and
the borders stand at such spaces. Our own tokenizer keeps every space where it stands.

A tokenizer with a chat format (`Tokenizer.chat`) lays prompts out as turns of a conversation: what
the template writes beside somebody's words is encoded together with them, and special tokens are
read in the former alone. An answer is the assistant's. A row's bos, where the template writes it,
is left to `PromptConverter`.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

from ilm_jax.data.examples.memo import Memo
from ilm_jax.data.examples.prompts import SLOT_MARKS, PromptRenderer, Rendered, Segment
from ilm_jax.data.tokenizers import Tokenizer
from ilm_jax.data.tokenizers.chat import ChatFormat, Piece, Words
from ilm_jax.data.tokenizers.chat_template import Message
from ilm_jax.data.tokenizers.protocol import Span
from ilm_jax.errors import UserError

# (inputs, slots, history_bounds) of a prompt, see `PromptTokenizer.prompt`.
Tokens = tuple[list[int], list[int], list[int]]
# A text or a slot, or the id of a special token.
Part = int | Segment


class Turn(NamedTuple):
    """A turn of a conversation; `role` is "system", "user" or "assistant"."""

    role: str
    said: Rendered


class PromptTokenizer:
    """Encodes prompts and answers of one tokenizer; remembers the runs of prompts.

    Attributes:
      tokenizer: as given.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Starts with an empty memo: items recur, and so do templates."""
        self.tokenizer = tokenizer
        self._chat = tokenizer.chat
        self._memo: Memo[tuple[str, bool], list[int]] = Memo()

    def prompt(self, rendered: Rendered) -> Tokens:
        """Tokens of a prompt; in a chat format it is the user's turn.

        Returns:
          inputs: tokens with one sentinel (ITEM_SLOT or USER_SLOT) for each slot.
          slots: local row of each sentinel, in order.
          history_bounds: element k of the history is inputs[bounds[k]:bounds[k + 1]]; empty
            without.
        """
        if self._chat is None:
            return self._encoded(rendered.segments, rendered.elements, answered=True)
        said = [*map(spoken, [self._chat.system] if self._chat.system else []), rendered]
        return self._laid_out(self._chat.one_turn, said)

    def conversation(self, turns: Sequence[Turn]) -> Tokens:
        """Tokens of a conversation up to the assistant's next answer, as `prompt`.

        The history's bounds are those of the last turn.

        Args:
          turns: the last one is the user's.

        Raises:
          TypeError: if the tokenizer has no chat format.
          UserError: if its template fails, or leaves out or changes what is said.
        """
        if self._chat is None:
            raise TypeError("a conversation in plain text: there is a prompt, and its answer")
        messages = self._chat.messages([Message(role, said.text) for role, said in turns])
        opening = [spoken(m.content) for m in messages[: len(messages) - len(turns)]]
        said = [*opening, *(turn.said for turn in turns)]
        return self._laid_out(self._chat.prompt(messages), said)

    def answer(self, text: str, *, behind_prompt: bool = True) -> tuple[list[int], list[Span]]:
        """Tokens of an answer, and the characters of `text` that each stands for.

        Args:
          text: the answer.
          behind_prompt: False for a text that opens its row.
        """
        lead, closing, continues = "", "", behind_prompt
        if behind_prompt and self._chat is not None:
            lead, closing = self._chat.lead, self._chat.closing
            before = self._chat.one_turn[-1:]
            special = bool(before) and isinstance(before[0], int)
            continues = not (special and not lead and self.tokenizer.prefixes_after_special)
        elif behind_prompt and self.tokenizer.space_leads:
            lead = " "
        whole = lead + text + closing
        ids, spans = self.tokenizer.encode_with_spans(whole, continues=continues)
        if whole == text:
            return ids, spans
        shift, last = len(lead), len(text)

        def within(place: int) -> int:
            """Character of the answer for one of prompt and answer together, clipped to it."""
            return min(max(0, place - shift), last)

        return ids, [(within(start), within(end)) for start, end in spans]

    def decode_prompt(self, inputs: Sequence[int]) -> str:
        """The prompt's text, slots as private-use characters: the inverse of `prompt`.

        Of a chat format it is the user's turn. To the letter for tokenizers that lose nothing, but
        for the last space where spaces lead.
        """
        decode = self.tokenizer.decode
        text = ""
        run: list[int] = []
        for token in [*inputs, None]:
            if token is None or token in SLOT_MARKS:
                text += decode(run, continues=bool(text)) if run else ""
                text += SLOT_MARKS[int(token)] if token is not None else ""
                run = []
            else:
                run.append(int(token))
        return text if self._chat is None else _inside(text, self._chat)

    def _laid_out(self, pieces: Sequence[Piece], said: Sequence[Rendered]) -> Tokens:
        """Tokens of a template's pieces around what is said, the last of it whole."""
        parts: list[Part] = []
        elements: list[int] = []
        for piece in pieces:
            if isinstance(piece, int):
                parts.append(piece)
                continue
            segments: Sequence[Segment] = [Segment(0, piece)] if isinstance(piece, str) else ()
            borders: Sequence[int] = ()
            if isinstance(piece, Words):
                last = piece.turn == len(said) - 1
                segments = _words(said[piece.turn], None if last else piece)
                borders = said[piece.turn].elements if last else ()
            for number in range(len(segments) + 1):
                elements += [len(parts)] * borders.count(number)
                for segment in segments[number : number + 1]:
                    _add(parts, segment, apart=len(parts) in elements)
        return self._encoded(parts, elements, answered=False)

    def _encoded(self, parts: Sequence[Part], elements: Sequence[int], *, answered: bool) -> Tokens:
        """Tokens of segments and special tokens.

        Args:
          parts: in order.
          elements: numbers of the parts at which the history's elements start.
          answered: an answer that takes the last spaces along follows.
        """
        inputs: list[int] = []
        slots: list[int] = []
        offsets: list[int] = []
        known = self._memo
        continues = False  # nothing stands before the first part
        for part in self._with_moved_spaces(parts, answered):
            offsets.append(len(inputs))
            if isinstance(part, int):
                inputs.append(part)
                continues = not self.tokenizer.prefixes_after_special
                continue
            kind, text, row = part
            if kind == 0:
                ids = known.get((text, continues))
                if ids is None:
                    ids = known[text, continues] = self.tokenizer.encode(text, continues=continues)
                inputs.extend(ids)
            else:
                inputs.append(kind)
                slots.append(row)
            continues = True
        offsets.append(len(inputs))
        opening = int(self._chat is not None and self.tokenizer.bos_id is not None)
        return inputs[opening:], slots, [offsets[number] - opening for number in elements]

    def _with_moved_spaces(self, parts: Sequence[Part], answered: bool) -> Sequence[Part]:
        if not self.tokenizer.space_leads or not parts:
            return parts
        moved: list[Part] = []
        spaces = ""
        # The last text is followed by the answer, which brings the space with it.
        end: Part = Segment(0) if answered else 0
        for part, after in itertools.pairwise([*parts, end]):
            if isinstance(part, Segment):
                text, spaces = spaces + part.text, ""
                if part.kind == 0 and isinstance(after, Segment) and after.kind == 0:
                    kept = text.rstrip(" ")
                    text, spaces = kept, text[len(kept) :]
                part = part._replace(text=text)
            moved.append(part)
        return moved


def spoken(text: str) -> Rendered:
    """A text that somebody says."""
    return Rendered((Segment(0, text),))


def trimmed(rendered: Rendered) -> Rendered:
    """The same without white space around it; numbers of segments stay."""
    segments = list(rendered.segments)
    if segments and segments[0].kind == 0:
        segments[0] = segments[0]._replace(text=segments[0].text.lstrip())
    if segments and segments[-1].kind == 0:
        segments[-1] = segments[-1]._replace(text=segments[-1].text.rstrip())
    return Rendered(tuple(segments), rendered.elements)


def _words(said: Rendered, part: Words | None) -> Sequence[Segment]:
    """What is said, whole (None) or characters of it, without white space around it."""
    text = said.text
    if part is None or text[part.start : part.end] == text.strip():
        return trimmed(said).segments
    if any(segment.kind for segment in said.segments):
        raise UserError("the chat template cuts a turn that mentions items: say it in words")
    return [Segment(0, text[part.start : part.end])]


def _inside(text: str, chat: ChatFormat) -> str:
    """The user's words of a decoded prompt, without what the template and the system say."""
    last = max(piece.turn for piece in chat.one_turn if isinstance(piece, Words))
    around, behind = ["", ""], 0
    for piece in chat.one_turn:
        if isinstance(piece, Words):
            behind = int(piece.turn == last)
            around[0] += "" if behind else chat.system[piece.start : piece.end]
        elif isinstance(piece, str):
            around[behind] += piece
    return text.removeprefix(around[0]).removesuffix(around[1])


def _add(parts: list[Part], segment: Segment, *, apart: bool) -> None:
    """Appends a segment; neighbouring texts are joined unless a border stands between them."""
    last = parts[-1] if parts else None
    if segment.kind == 0 and isinstance(last, Segment) and last.kind == 0 and not apart:
        parts[-1] = Segment(0, last.text + segment.text)
    elif segment.kind or segment.text:
        parts.append(segment)


def target_tokens(renderer: PromptRenderer, tokenizer: Tokenizer) -> list[list[int]]:
    """Tokens of every item as an answer, eos last: what a ranking searches among.

    Two items can share their tokens where the setting answers by title.
    """
    prompts = PromptTokenizer(tokenizer)
    rows = range(renderer.catalogue.num_items)
    return [[*prompts.answer(renderer.target(row))[0], tokenizer.eos_id] for row in rows]
