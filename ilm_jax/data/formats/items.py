"""Items as files have them, and many of them in columns."""

import array
import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from jaxtyping import Int64

from ilm_jax.data.catalogue.strings import Lists, Strings
from ilm_jax.data.catalogue.text_builders import ListsBuilder, TextsBuilder

Spans = list[tuple[int, int]]


@dataclasses.dataclass(frozen=True)
class Item:
    """One item as its file has it.

    Attributes:
      title: never empty; the id where the file has no title.
      text: "" where the file has none.
      attributes: (name, value) of further columns, in order.
      line: where it stands.
    """

    title: str
    text: str = ""
    categories: tuple[str, ...] = ()
    attributes: tuple[tuple[str, str], ...] = ()
    line: int = 0

    def described(self) -> tuple[str, Spans]:
        """The item's text, or one composed of what is known; and the spans that carry information.

        An item's own text is all information.
        """
        if self.text:
            return self.text, [(0, len(self.text))]
        pieces: list[tuple[str, bool]] = [("The item ", False), (self.title, True)]
        for number, category in enumerate(self.categories):
            pieces += [(", " if number else " belongs to ", False), (category, True)]
        for number, (name, value) in enumerate(self.attributes):
            lead = f", {name} " if number else f"; its {name} is "
            pieces += [(lead.replace("_", " "), False), (value, True)]
        return joined([*pieces, (".", False)])


def joined(pieces: list[tuple[str, bool]]) -> tuple[str, Spans]:
    """Pieces as one text, and the spans of those that carry information."""
    text, spans = "", []
    for piece, informative in pieces:
        if informative and piece:
            spans.append((len(text), len(text) + len(piece)))
        text += piece
    return text, spans


class ItemTable(Mapping[str, Item]):
    """Items by raw id, in file order; each is an `Item` when it is asked for.

    Attributes:
      ids: raw ids.
    """

    def __init__(
        self,
        ids: Sequence[str],
        texts: Sequence[Strings],
        lists: Sequence[Lists[str]],
        lines: Int64[np.ndarray, " items"],
    ) -> None:
        """See `ItemTableBuilder`; texts and lists are those of an item, in its order."""
        self.ids = ids
        self._titles, self._texts = texts
        self._categories, self._names, self._values = lists
        self._lines = lines

    @classmethod
    def of(cls, items: Mapping[str, Item]) -> "ItemTable":
        """The table of any items."""
        if isinstance(items, cls):
            return items
        builder = ItemTableBuilder()
        for raw, item in items.items():
            builder.add(raw, item)
        return builder.done()

    @classmethod
    def of_ids(cls, ids: Sequence[str]) -> "ItemTable":
        """Items of which no more than their ids is known, which are their titles."""
        bounds = np.zeros(len(ids) + 1, np.int64)
        none = Strings(np.zeros(0, np.uint8), bounds)
        lists: list[Lists[str]] = [Lists(Strings.of([]), bounds)] * 3
        return cls(ids, (Strings.of(ids), none), lists, bounds[:-1])

    @functools.cached_property
    def place(self) -> Mapping[str, int]:
        """Row of each id."""
        return {raw: row for row, raw in enumerate(self.ids)}

    def at(self, row: int) -> Item:
        """The item of a row."""
        return Item(
            self._titles[row],
            self._texts[row],
            tuple(self._categories[row]),
            tuple(zip(self._names[row], self._values[row], strict=True)),
            int(self._lines[row]),
        )

    def __getitem__(self, raw: str) -> Item:
        """The item of an id."""
        return self.at(self.place[raw])

    def __iter__(self) -> Iterator[str]:
        """Raw ids, in file order."""
        return iter(self.ids)

    def __len__(self) -> int:
        """Number of items."""
        return len(self.ids)


class ItemTableBuilder:
    """Takes items one after the other."""

    def __init__(self) -> None:
        """Begins with none."""
        self._place: dict[str, int] = {}
        self._texts = TextsBuilder(), TextsBuilder()
        self._lists = ListsBuilder(), ListsBuilder(), ListsBuilder()
        self._lines = array.array("q")

    def line_of(self, raw: str) -> int | None:
        """Where an id was given; None for a new one."""
        row = self._place.get(raw)
        return None if row is None else self._lines[row]

    def add(self, raw: str, item: Item) -> None:
        """Takes one with a new id."""
        self._place[raw] = len(self._place)
        for texts, text in zip(self._texts, (item.title, item.text), strict=True):
            texts.append(text)
        names, values = [n for n, _ in item.attributes], [v for _, v in item.attributes]
        for lists, each in zip(self._lists, (item.categories, names, values), strict=True):
            lists.append(each)
        self._lines.append(item.line)

    def done(self) -> ItemTable:
        """The table."""
        texts, lists = [t.done() for t in self._texts], [each.done() for each in self._lists]
        ids = Strings.of(self._place)
        found = ItemTable(ids, texts, lists, np.array(self._lines, np.int64))
        found.place = self._place
        return found
