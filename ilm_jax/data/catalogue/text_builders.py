"""Columns of texts and of lists, made of one entry after the other."""

import array
from collections.abc import Sequence

import numpy as np

from ilm_jax.data.catalogue.strings import Lists, Strings, bounds_of


class TextsBuilder:
    """Takes texts one after the other; only their bytes are kept."""

    def __init__(self) -> None:
        """Begins with none."""
        self._data, self._lengths = bytearray(), array.array("q")

    def append(self, text: str) -> None:
        """Takes one more; ValueError for what UTF-8 cannot write."""
        encoded = text.encode()
        self._data += encoded
        self._lengths.append(len(encoded))

    def __len__(self) -> int:
        """Number of texts so far."""
        return len(self._lengths)

    def done(self) -> Strings:
        """The column."""
        lengths = np.frombuffer(self._lengths, np.int64) if self._lengths else np.zeros(0, np.int64)
        return Strings(np.frombuffer(self._data, np.uint8), bounds_of([lengths]))


class ListsBuilder:
    """Takes lists of texts one after the other."""

    def __init__(self) -> None:
        """Begins with none."""
        self._texts, self._lengths = TextsBuilder(), array.array("q")

    def append(self, texts: Sequence[str]) -> None:
        """Takes one more."""
        for text in texts:
            self._texts.append(text)
        self._lengths.append(len(texts))

    def done(self) -> Lists[str]:
        """The column."""
        lengths = np.frombuffer(self._lengths, np.int64) if self._lengths else np.zeros(0, np.int64)
        return Lists(self._texts.done(), bounds_of([lengths]))
