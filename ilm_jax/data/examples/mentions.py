"""Prompts that people write: `{item:ID}` and `{user:ID}` in the middle of words.

    Somebody liked {item:1042} and {item:Blue Hill (1999)}. What next?

An ID is the catalogue's, or else an item's title. `{{` and `}}` are braces of the text itself.
"""

import collections
import difflib
import functools
import re
import unicodedata
from collections.abc import Iterable, Mapping

import numpy as np

from ilm_jax.data.catalogue.catalogue import Catalogue
from ilm_jax.data.examples.example import Example
from ilm_jax.data.examples.prompt_tokens import PromptTokenizer, Tokens
from ilm_jax.data.examples.prompts import ITEM_SLOT, PromptRenderer, Rendered, Segment
from ilm_jax.errors import UserError

_PLACES = re.compile(r"\{\{|\}\}|\{(\w+):([^{}]*)\}")
_BRACES = {"{{": "{", "}}": "}"}


class Names:
    """Rows of items and users by what people call them."""

    def __init__(self, catalogue: Catalogue) -> None:
        """Of one catalogue."""
        self.catalogue = catalogue

    def item(self, name: str) -> int:
        """Row of the item with this id, or else this title (case and form of Unicode aside).

        Raises:
          UserError: if there is none, or several have the title.
        """
        catalogue, name = self.catalogue, name.strip()
        if not catalogue.num_items:
            raise UserError(f"item {name!r}: the catalogue {catalogue.name} is empty")
        if name in catalogue.item_row:
            return catalogue.item_row[name]
        rows = self._titles.get(_folded(name), [])
        if len(rows) > 1:
            ids = ", ".join(catalogue.item_ids[row] for row in rows[:5])
            raise UserError(f"{len(rows)} items are called {name!r}: name one by id, {ids}")
        if not rows:
            close = _close(name, [*catalogue.item_ids, *catalogue.titles])
            raise UserError(f"no item {name!r} in {catalogue.name}, by id or by title{close}")
        return rows[0]

    def user(self, name: str) -> int:
        """Row of the user with this id.

        Raises:
          UserError: if there is none.
        """
        name = name.strip()
        if name not in self.catalogue.user_row:
            close = _close(name, self.catalogue.user_ids)
            raise UserError(f"no user {name!r} in {self.catalogue.name}{close}")
        return self.catalogue.user_row[name]

    def search(self, words: str, limit: int = 10) -> list[int]:
        """Rows of the items whose titles hold all these words, short titles first."""
        wanted = _folded(words).split()
        titles = enumerate(map(_folded, self.catalogue.titles))
        found = [(len(t), row) for row, t in titles if all(w in t for w in wanted)]
        return [row for _, row in sorted(found)[:limit]]

    @functools.cached_property
    def _titles(self) -> Mapping[str, list[int]]:
        found = collections.defaultdict(list)
        for row, title in enumerate(self.catalogue.titles):
            found[_folded(title)].append(row)
        return found


def render(
    prompt: str, renderer: PromptRenderer, names: Names, mention: str | None = None
) -> tuple[Rendered, list[int]]:
    """(a written prompt in segments, rows of the items that it mentions).

    Args:
      prompt: see above; it will end in one space, as all prompts do.
      renderer: mentions users in its settings' form.
      names: of the renderer's catalogue.
      mention: form of items, see `TaskSettings`; the form of histories if None.

    Raises:
      UserError: for an unknown item, user or kind of mention, or a prompt without words.
    """
    segments: list[Segment] = []
    items: list[int] = []
    text, end = "", 0
    for match in _PLACES.finditer(prompt):
        text += prompt[end : match.start()]
        end = match.end()
        if match[0] in _BRACES:
            text += _BRACES[match[0]]
            continue
        if match[1] == "item":
            items.append(names.item(match[2]))
            form = renderer.history_mention if mention is None else mention
            mentioned = renderer.mention_item(items[-1], form, title_allowed=True)
        elif match[1] == "user":
            mentioned = renderer.mention_user(names.user(match[2]))
        else:
            raise UserError(
                f"mention {match[0]!r}: there are {{item:ID}} and {{user:ID}}; a brace of the text "
                "itself is written twice"
            )
        for segment in mentioned:
            if segment.kind == 0:
                text += segment.text
            else:
                segments += [Segment(0, text), segment]
                text = ""
    text = (text + prompt[end:]).rstrip()
    if not text and not segments:
        raise UserError("an empty prompt: write at least one word")
    segments.append(Segment(0, text + " "))
    return Rendered(tuple(s for s in segments if s.kind or s.text)), items


def as_example(words: PromptTokenizer, rendered: Rendered, catalogue: str, key: str) -> Example:
    """A prompt without an answer, as `PromptConverter.prompts` takes it.

    Args:
      words: of the model's tokenizer.
      rendered: the prompt.
      catalogue: name of the catalogue that its rows are of.
      key: how messages call it.
    """
    return example_of(words.prompt(rendered), catalogue, key)


def example_of(tokens: Tokens, catalogue: str, key: str) -> Example:
    """The same of a prompt's tokens."""
    inputs, slots, bounds = tokens
    return {
        "key": key,
        "task": "prompt",
        "catalogue": catalogue,
        "inputs": np.array(inputs, np.int32),
        "slots": np.array(slots, np.int32),
        "history_bounds": np.array(bounds, np.int32),
    }


def with_item(example: Example, row: int) -> Example:
    """The example with an item's soft tokens behind its prompt, for what is said of the item."""
    inputs, slots = np.asarray(example["inputs"]), np.asarray(example["slots"])
    return {
        **example,
        "inputs": np.append(inputs, ITEM_SLOT).astype(np.int32),
        "slots": np.append(slots, row).astype(np.int32),
    }


def items_in_slots(example: Example) -> list[int]:
    """Rows of the items that stand in an example's slots."""
    kinds = np.asarray(example["inputs"])
    kinds = kinds[kinds < 0]
    return [
        int(row) for row, kind in zip(example["slots"], kinds, strict=True) if kind == ITEM_SLOT
    ]


def _folded(text: str) -> str:
    """Without case, in NFC: "é" is one thing however it was typed."""
    normal = unicodedata.normalize
    return normal("NFC", normal("NFC", text.strip()).casefold())


def _close(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
