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
"""

import itertools
from collections.abc import Sequence

from ilm_jax.data.examples.prompts import SLOT_MARKS, PromptRenderer, Rendered, Segment
from ilm_jax.data.tokenizers import Tokenizer
from ilm_jax.data.tokenizers.protocol import Span


class PromptTokenizer:
    """Encodes prompts and answers of one tokenizer; remembers the runs of prompts.

    Attributes:
      tokenizer: as given.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Starts with an empty memo: it is bounded by templates and items."""
        self.tokenizer = tokenizer
        self._memo: dict[tuple[str, bool], list[int]] = {}

    def prompt(self, rendered: Rendered) -> tuple[list[int], list[int], list[int]]:
        """Tokens of a prompt.

        Returns:
          inputs: tokens with one sentinel (ITEM_SLOT or USER_SLOT) for each slot.
          slots: local row of each sentinel, in order.
          history_bounds: element k of the history is inputs[bounds[k]:bounds[k + 1]]; empty
            without.
        """
        inputs: list[int] = []
        slots: list[int] = []
        offsets = []
        for number, segment in enumerate(self._with_moved_spaces(rendered.segments)):
            offsets.append(len(inputs))
            if segment.kind == 0:
                inputs.extend(self._run(segment.text, number > 0))
            else:
                inputs.append(segment.kind)
                slots.append(segment.row)
        offsets.append(len(inputs))
        return inputs, slots, [offsets[number] for number in rendered.elements]

    def answer(self, text: str, *, behind_prompt: bool = True) -> tuple[list[int], list[Span]]:
        """Tokens of an answer, and the characters of `text` that each stands for.

        Args:
          text: the answer.
          behind_prompt: False for a text that opens its row.
        """
        lead = " " if behind_prompt and self.tokenizer.space_leads else ""
        ids, spans = self.tokenizer.encode_with_spans(lead + text, continues=behind_prompt)
        shift = len(lead)
        return ids, [(max(0, start - shift), max(0, end - shift)) for start, end in spans]

    def decode_prompt(self, inputs: Sequence[int]) -> str:
        """The prompt's text, slots as private-use characters: the inverse of `prompt`.

        To the letter for tokenizers that lose nothing, but for the last space where spaces lead.
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
        return text

    def _run(self, text: str, continues: bool) -> list[int]:
        ids = self._memo.get((text, continues))
        if ids is None:
            ids = self.tokenizer.encode(text, continues=continues)
            self._memo[text, continues] = ids
        return ids

    def _with_moved_spaces(self, segments: Sequence[Segment]) -> Sequence[Segment]:
        if not self.tokenizer.space_leads or not segments:
            return segments
        moved, spaces = [], ""
        # The last text is followed by the answer, which brings the space with it.
        for segment, after in itertools.pairwise([*segments, Segment(0)]):
            text = spaces + segment.text
            spaces = ""
            if segment.kind == after.kind == 0:
                kept = text.rstrip(" ")
                text, spaces = kept, text[len(kept) :]
            moved.append(segment._replace(text=text))
        return moved


def target_tokens(renderer: PromptRenderer, tokenizer: Tokenizer) -> list[list[int]]:
    """Tokens of every item as an answer, eos last: what a ranking searches among.

    Two items can share their tokens where the setting answers by title.
    """
    prompts = PromptTokenizer(tokenizer)
    rows = range(renderer.catalogue.num_items)
    return [[*prompts.answer(renderer.target(row))[0], tokenizer.eos_id] for row in rows]
