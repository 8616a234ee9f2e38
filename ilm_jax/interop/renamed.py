"""A source whose tensors go by the names that a family's rules speak of."""

from collections.abc import Callable

import numpy as np

from ilm_jax.errors import UserError
from ilm_jax.interop.entries import Source
from ilm_jax.interop.hugging_face import Index


class Renamed:
    """Another source with each tensor under `rename(name)`.

    Attributes:
      where: the folder, for messages.
    """

    def __init__(self, source: Source, rename: Callable[[str], str]) -> None:
        """Raises UserError if two tensors would take one name."""
        self._source, self.where = source, source.where
        self._names: dict[str, str] = {}
        for name in source.names():
            if rename(name) in self._names:
                other = self._names[rename(name)]
                raise UserError(f"{self.where} holds both {other} and {name}, which are one tensor")
            self._names[rename(name)] = name

    def names(self) -> list[str]:
        """All tensors, by their new names."""
        return list(self._names)

    def shape(self, name: str) -> tuple[int, ...]:
        """Of a tensor."""
        return self._source.shape(self._names[name])

    def dtype(self, name: str) -> np.dtype:
        """As stored."""
        return self._source.dtype(self._names[name])

    def read(self, name: str, index: Index = ()) -> np.ndarray:
        """A part of a tensor; all of it by default."""
        return self._source.read(self._names[name], index)
