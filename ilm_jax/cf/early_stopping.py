"""Stops a fit when validation no longer improves, and keeps its best vectors."""

import dataclasses
from collections.abc import Callable

import numpy as np
from jaxtyping import Array, Float, Float32

Vectors = Float32[np.ndarray, "rows dim"] | Float32[Array, "rows dim"]


@dataclasses.dataclass
class EarlyStopping:
    """An `on_epoch` for `ials.fit` and `sampled.fit`: returns True once fitting should stop.

    Attributes:
      measure: of user and item vectors; higher is better.
      patience: measurements without improvement that are borne.
      every: epochs from one measurement to the next.
      history: (epoch, value) of every measurement.
      epoch, value, user, item: of the best so far (None before the first).
    """

    measure: Callable[[Vectors, Vectors], float]
    patience: int = 2
    every: int = 1
    history: list[tuple[int, float]] = dataclasses.field(default_factory=list)
    epoch: int = 0
    value: float = -np.inf
    user: Float[np.ndarray, "users dim"] | None = None
    item: Float[np.ndarray, "items dim"] | None = None

    def __call__(self, epoch: int, user: Vectors, item: Vectors) -> bool:
        """Measures if it is time to; True if `patience` measurements in a row were no better."""
        if epoch % self.every:
            return False
        value = float(self.measure(user, item))
        self.history.append((epoch, value))
        if not np.isfinite(value):
            return True
        if value > self.value:
            self.epoch, self.value = epoch, value
            self.user, self.item = np.array(user), np.array(item)
            return False
        return (epoch - self.epoch) // self.every >= self.patience
