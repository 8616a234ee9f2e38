"""Interactions of record files before repeats are left out."""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float32, Int64

from ilm_jax.data.formats.coded import Coded


@dataclasses.dataclass(frozen=True, eq=False)
class Rows:
    """Interactions in the order of the files.

    Attributes:
      user, item: raw ids; "" is nobody.
      rating: NaN where there is none.
      time: in the form's unit.
      line: of each.
    """

    user: Coded
    item: Coded
    rating: Float32[np.ndarray, " rows"]
    time: Int64[np.ndarray, " rows"]
    line: Int64[np.ndarray, " rows"]

    def kept(self, keep: Bool[np.ndarray, " rows"]) -> "Rows":
        """Some of them; ids are numbered by their first places among these."""
        user, item = self.user.kept(keep), self.item.kept(keep)
        return Rows(user, item, self.rating[keep], self.time[keep], self.line[keep])

    def earliest(self) -> Bool[np.ndarray, " rows"]:
        """Of a user's interactions with an item the earliest, of equally early ones the first."""
        pairs = self.user.codes.astype(np.int64) * len(self.item.values) + self.item.codes
        order = np.lexsort((self.time, pairs))  # stable: ties stay in the files' order
        first = np.append(True, np.diff(pairs[order]) != 0)[: len(order)]
        keep = np.zeros(len(order), bool)
        keep[order[first]] = True
        return keep
