"""Instructions with which a language model writes a corpus, around items' facts.

ELM's tasks have instructions of ours (`elm_templates`); a JSON file gives others, or more:

    {"summary": {"instruction": "Sum the item up in one line."},
     "compare": {"instruction": "Compare the two.", "items": 2, "neighbour": true}}
"""

import dataclasses
import json
import pathlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from jaxtyping import Int

from ilm_jax.data import draws
from ilm_jax.data.catalogue.catalogue import Catalogue
from ilm_jax.data.catalogue.neighbours import nearest
from ilm_jax.data.catalogue.splits import TRAIN, Splits
from ilm_jax.data.examples import elm_templates
from ilm_jax.data.formats import raw_lines
from ilm_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Instruction:
    """A task's instruction.

    Attributes:
      task: its name.
      instruction: what is asked, behind the facts.
      items: how many items it is about, 1 or 2.
      neighbour: the second is the nearest to the first; else it is drawn.
    """

    task: str
    instruction: str
    items: int = 1
    neighbour: bool = False

    def prompt(self, facts: Sequence[str]) -> str:
        """The instruction about items of which these are the facts."""
        return elm_templates.around(self.instruction, facts)


def ours() -> dict[str, Instruction]:
    """The instructions of ELM's tasks about items, by task."""
    return {
        name: Instruction(name, task.instruction, task.items, task.neighbour)
        for name, task in elm_templates.TASKS.items()
    }


def read(path: str) -> dict[str, Instruction]:
    """The instructions of a JSON file, by task.

    Raises:
      UserError: if the file is absent, or not of the form above.
    """
    file = pathlib.Path(path).expanduser()
    try:
        given = json.loads(raw_lines.whole_text(file))
    except ValueError as error:
        raise UserError(f"{file}: no JSON to be read ({error})") from error
    if not isinstance(given, dict) or not given:
        raise UserError(f'{file}: give an object {{"task": {{"instruction": "…"}}, …}}')
    return {task: _one(file, task, fields) for task, fields in given.items()}


def _one(file: pathlib.Path, task: str, fields: object) -> Instruction:
    known = ("instruction", "items", "neighbour")
    if not isinstance(fields, Mapping) or not str(fields.get("instruction", "")).strip():
        raise UserError(f'{file}: {task} has no "instruction"')
    unknown = [name for name in fields if name not in known]
    if unknown:
        raise UserError(f"{file}: {task} has {unknown[0]!r}; there are {', '.join(known)}")
    made = Instruction(task, **fields)
    types = (made.instruction, str), (made.items, int), (made.neighbour, bool)
    if not all(type(value) is kind for value, kind in types) or made.items not in (1, 2):
        raise UserError(f"{file}: {task}: items is 1 or 2, neighbour true or false")
    return made


def facts(catalogue: Catalogue, row: int) -> str:
    """An item's facts for an instruction: title, categories and text, on one line."""
    title, text = catalogue.titles[row], catalogue.texts[row]
    kinds = ", ".join(catalogue.categories[row])
    return " ".join(f"{title}{f' ({kinds})' if kinds else ''}. {text}".split())


def subjects(
    instruction: Instruction, splits: Splits, space: str = "cf", seed: int = 0
) -> Iterator[tuple[int, ...]]:
    """Rows of the items of every prompt of a task, in the catalogue's order.

    Second items are items of the training fold, drawn by hash or nearest (see `nearest`); an item
    that has no such partner gets no prompt.

    Args:
      instruction: the task.
      splits: of the catalogue.
      space: where neighbours are near, "cf" or "text".
      seed: of the draws.

    Raises:
      UserError: for a catalogue without items.
    """
    items = splits.catalogue.num_items
    if not items:
        raise UserError(f"the catalogue {splits.catalogue.name} is empty: nothing to write about")
    if instruction.items == 1:
        yield from ((row,) for row in range(items))
        return
    others = nearest(splits, space) if instruction.neighbour else _drawn(splits, seed)
    yield from ((row, int(other)) for row, other in enumerate(others) if other >= 0)


def _drawn(splits: Splits, seed: int) -> Int[np.ndarray, " items"]:
    known = splits.items_in(TRAIN)
    partners = np.full(splits.catalogue.num_items, -1)
    if len(known) > 1:
        for row, raw in enumerate(splits.catalogue.item_ids):
            place = draws.integer(len(known), seed, "instruction", "partner", raw)
            partner = known[place]
            partners[row] = known[(place + 1) % len(known)] if partner == row else partner
    return partners
