"""A column of ids as numbers: what it costs to hold is four bytes an entry, and each id once."""

import array
from collections.abc import Iterable, Iterator, Sequence
from typing import overload

import numpy as np
from jaxtyping import Bool, Int32

from ilm_jax.data.catalogue.strings import Strings


class Coded(Sequence[str]):
    """Texts by the numbers of the different ones, which count in the order of their first places.

    Attributes:
      codes: of every entry.
      values: text of every code.
    """

    def __init__(self, codes: Int32[np.ndarray, " rows"], values: Sequence[str]) -> None:
        """See the attributes."""
        self.codes, self.values = codes, values

    @classmethod
    def of(cls, texts: Sequence[str]) -> "Coded":
        """The column of any texts."""
        if isinstance(texts, cls):
            return texts
        coder = Coder()
        coder.extend(texts)
        return coder.done()

    def kept(self, keep: Bool[np.ndarray, " rows"]) -> "Coded":
        """The column of some entries, numbered by first places among them."""
        codes = self.codes[keep]
        first = np.full(len(self.values), len(codes))
        first[codes[::-1]] = np.arange(len(codes))[::-1]
        order = np.argsort(first, kind="stable")[: int(np.sum(first < len(codes)))]
        number = np.zeros(len(self.values), np.int32)
        number[order] = np.arange(len(order))
        values = self.values
        if isinstance(values, Strings):
            return Coded(number[codes], values.take(order))
        return Coded(number[codes], [values[code] for code in order.tolist()])

    def __len__(self) -> int:
        """Number of entries."""
        return len(self.codes)

    @overload
    def __getitem__(self, at: int) -> str: ...
    @overload
    def __getitem__(self, at: slice) -> list[str]: ...
    def __getitem__(self, at: int | slice) -> str | list[str]:
        """An entry, or a list of some."""
        if isinstance(at, slice):
            return [self.values[code] for code in self.codes[at].tolist()]
        return self.values[int(self.codes[at])]

    def __iter__(self) -> Iterator[str]:
        """Every entry."""
        return (self.values[int(code)] for code in self.codes)


class Coder:
    """Takes texts one after the other and keeps their numbers."""

    def __init__(self) -> None:
        """Begins with none."""
        self._place: dict[str, int] = {}
        self._codes = array.array("i")

    def append(self, text: str) -> None:
        """Takes one more."""
        self._codes.append(self._place.setdefault(text, len(self._place)))

    def extend(self, texts: Iterable[str]) -> None:
        """Takes more."""
        place = self._place
        self._codes.extend(place.setdefault(text, len(place)) for text in texts)

    def __len__(self) -> int:
        """Number of texts so far."""
        return len(self._codes)

    def done(self) -> Coded:
        """The column."""
        return Coded(np.frombuffer(self._codes, np.int32), list(self._place))
