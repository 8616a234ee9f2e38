"""Stops a fit when validation no longer improves, and keeps its best vectors."""

import dataclasses
from collections.abc import Callable

import numpy as np
from jaxtyping import Array, Float, Float32

Vectors = Float32[np.ndarray, "rows dim"] | Float32[Array, "rows dim"]


@dataclasses.dataclass
class EarlyStopping:
    """An `on_epoch` for `ials.fit`: returns True once fitting should stop.

    Attributes:
      measure: of user and item vectors; higher is better.
      patience: measurements in a row without improvement after which it stops, at least 1.
      every: epochs from one measurement to the next, at least 1.
      history: (epoch, value) of every measurement of the latest fit.
      epoch, value, user, item: of its best so far (None before the first).

    Raises:
      ValueError: if `patience` or `every` is below 1.
    """

    measure: Callable[[Vectors, Vectors], float]
    patience: int = 2
    every: int = 1
    history: list[tuple[int, float]] = dataclasses.field(init=False)
    epoch: int = dataclasses.field(init=False)
    value: float = dataclasses.field(init=False)
    user: Float[np.ndarray, "users dim"] | None = dataclasses.field(init=False)
    item: Float[np.ndarray, "items dim"] | None = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        """Refuses numbers that mean nothing."""
        for name, number in (("patience", self.patience), ("every", self.every)):
            if number < 1:
                raise ValueError(f"{name}={number}: give at least 1")
        self._forget()

    def _forget(self) -> None:
        self.history, self.epoch, self.value = [], 0, -np.inf
        self.user = self.item = None

    def __call__(self, epoch: int, user: Vectors, item: Vectors) -> bool:
        """Measures if it is time to; True if `patience` measurements in a row were no better."""
        if epoch == 1:  # another fit begins: the best of the last one is not of its vectors
            self._forget()
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
