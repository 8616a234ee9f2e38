"""Detection of a diverged run: which checkpoints are good."""

import collections
import math
import statistics
from collections.abc import Iterable
from typing import Any

# Logs over whose norms the median is taken.
MEMORY = 100
# Logs that a run which starts at zero needs before its norm has a usual size.
FEW = 10


class Health:
    """Watches the norm of what trains.

    A checkpoint is good unless that norm is above `limit` times its median over the last logs;
    those above it do not count for the median. What starts at zero, such as low-rank updates, grows
    beyond any multiple of that: it is judged from its tenth log on. (A step whose loss, gradient or
    new weights are not finite ends the run unsaved, so what is saved is finite.)
    """

    def __init__(self, limit: float, norms: Iterable[float]) -> None:
        """Starts from the norms of earlier logs; `limit` 0: everything finite is good."""
        self._limit = limit
        given = list(norms)
        self._norms = collections.deque(filter(None, given), MEMORY)
        self._needs = 1 if all(given) else FEW

    def add(self, norm: float) -> None:
        """The norm at a log."""
        if norm and self.record(norm)["good"]:
            self._norms.append(norm)

    def record(self, norm: float) -> dict[str, Any]:
        """The entry of a checkpoint's metadata, of a state with this norm."""
        usual = statistics.median(self._norms) if self._norms else norm
        known = len(self._norms) >= self._needs
        outlier = bool(self._limit and known and norm > self._limit * usual)
        return {
            "good": math.isfinite(norm) and not outlier,
            "weight_norm": norm,
            "usual_weight_norm": usual,
            "weight_norms": list(self._norms),
        }
