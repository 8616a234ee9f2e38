"""Examples of a dataset by number, and the batch rows of them."""

from collections.abc import Mapping
from typing import Protocol

import numpy as np

from ilm_jax.data.examples.example import Example
from ilm_jax.data.streams.converters import Batch
from ilm_jax.data.streams.layouts import Converter
from ilm_jax.data.streams.streams import Source

# What is asked of an example again and again, and takes little to remember.
FACTS = ("key", "user", "target_item")


class Numbered(Source, Protocol):
    """Examples by number, as a `Stream` gives them."""

    @property
    def len_epoch(self) -> int:
        """Examples in one pass."""


class Feed:
    """A stream and its converter: batch rows by the numbers of their examples.

    Attributes:
      stream: the examples.
      converter: to arrays; its `counts` say what was cut.
    """

    def __init__(self, stream: Numbered, converter: Converter, *, wrap: bool = False) -> None:
        """Joins both.

        Args:
          wrap: past the end of a finite stream start over (contrastive losses need whole
            batches; rows of one item share soft targets); else rows of padding follow.
        """
        self.stream, self.converter, self._wrap = stream, converter, wrap
        self._facts: dict[int, Example] = {}

    @property
    def len_epoch(self) -> int:
        """Examples in one pass."""
        return self.stream.len_epoch

    @property
    def counts(self) -> Mapping[str, int]:
        """Examples that were cut to fit their rows so far, by what of them was cut."""
        return getattr(self.converter, "counts", {})

    def facts(self, number: int) -> Example:
        """Whose an example is and what it asks for: `FACTS`; it is made once for all who ask."""
        found = self._facts.get(number)
        if found is None:
            example = self.stream[number]
            found = {name: example[name] for name in FACTS if name in example}
            self._facts[number] = found
        return found

    def examples(self, indices: np.ndarray) -> list[Example | None]:
        """The examples of these numbers; None past the end of a finite stream."""
        total = len(self.stream)
        numbers = [int(i) % total if self._wrap else int(i) for i in indices]
        return [self.stream[i] if i < total else None for i in numbers]

    def rows(self, indices: np.ndarray) -> Batch:
        """The batch rows of these examples; a pure function of the numbers."""
        return self.converter(self.examples(indices), np.asarray(indices))  # type: ignore[arg-type]
