"""The row of a text in a column, without a dictionary of all of them."""

from collections.abc import Iterator, Mapping

import numpy as np
from jaxtyping import Int32

from ilm_jax.data.catalogue.strings import CHUNK, Strings, distinct


class Places(Mapping[str, int]):
    """The row of every text of a column, found by halving; nothing is kept but an order.

    Attributes:
      texts: the column; its texts differ.
      order: their rows by their bytes in UTF-8.
    """

    def __init__(self, texts: Strings, order: Int32[np.ndarray, " entries"]) -> None:
        """See the attributes."""
        self.texts, self.order = texts, order

    def __getitem__(self, text: str) -> int:
        """The row; KeyError for another text."""
        if not isinstance(text, str):
            raise KeyError(text)
        wanted = text.encode("utf-8", "surrogatepass")
        low, high = 0, len(self.order)
        bounds, data = self.texts.bounds, self.texts.data
        while low < high:
            middle = (low + high) // 2
            row = int(self.order[middle])
            found = data[bounds[row] : bounds[row + 1]].tobytes()
            if found == wanted:
                return row
            low, high = (middle + 1, high) if found < wanted else (low, middle)
        raise KeyError(text)

    def __iter__(self) -> Iterator[str]:
        """The texts, by rows."""
        return iter(self.texts)

    def __len__(self) -> int:
        """Number of texts."""
        return len(self.texts)


def sorted_rows(texts: Strings) -> Int32[np.ndarray, " entries"]:
    """Rows by their texts' bytes.

    Raises:
      ValueError: for a text that is there twice.
    """
    if not distinct(texts):
        raise ValueError("a text is there twice")
    if len(texts) <= CHUNK:
        raw = [text.encode() for text in texts]
        return np.array(sorted(range(len(raw)), key=raw.__getitem__), np.int32)
    import pyarrow.compute

    return pyarrow.compute.sort_indices(texts.arrow()).to_numpy().astype(np.int32)
