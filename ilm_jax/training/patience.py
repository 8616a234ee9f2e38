"""Ends a run whose validation loss no longer falls."""

import math
from collections.abc import Mapping
from typing import Any


class Patience:
    """Counts validations in a row without a lower loss; a pure function of the losses so far.

    Its record stands in every checkpoint, so that a resumed run ends where one left alone does.
    """

    def __init__(self, limit: int, before: Mapping[str, Any] | None = None) -> None:
        """Starts where a record ends.

        Args:
          limit: so many validations without a lower loss end the run; 0: none do.
          before: `record` of the checkpoint that the run goes on from.
        """
        self._limit = limit
        self._loss, self._without = math.inf, 0
        if before is not None:
            lowest = before["lowest_loss"]
            self._loss = math.inf if lowest is None else lowest
            self._without = before["validations_without_lower"]

    def add(self, loss: float) -> bool:
        """Whether a validation's loss is the lowest so far; one that is not finite is not."""
        lowest = math.isfinite(loss) and loss < self._loss
        self._loss = loss if lowest else self._loss
        self._without = 0 if lowest else self._without + 1
        return lowest

    @property
    def over(self) -> bool:
        """Whether the run has had its chances."""
        return 0 < self._limit <= self._without

    def record(self) -> dict[str, Any]:
        """The entry of a checkpoint's metadata."""
        lowest = self._loss if math.isfinite(self._loss) else None
        return {"lowest_loss": lowest, "validations_without_lower": self._without}
