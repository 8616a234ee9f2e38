"""What steps report between two logs."""

from typing import Any

import jax
import numpy as np

from ilm_jax.objectives.objective import Sums


class Window:
    """Device-side sums since the last log; read once per log."""

    def __init__(self) -> None:
        """Starts empty."""
        self.steps = 0
        self._kinds: list[str] = []
        self._reports: list[dict[str, Any]] = []

    def add(self, kind: str, report: dict[str, Any]) -> None:
        """One step of a kind of batch."""
        self.steps += 1
        self._kinds.append(kind)
        self._reports.append(report)

    def full_steps(self) -> list[tuple[str, float]]:
        """(kind, share of its positions that are not padding) of each step."""
        shares = [float(report["real"]) for report in jax.device_get(self._reports)]
        return list(zip(self._kinds, shares, strict=True))

    def metrics(self) -> dict[str, float]:
        """Means over the steps, in one transfer from the devices."""
        reports = jax.device_get(self._reports)
        sums: dict[str, list[Sums]] = {}
        for report in reports:
            for name, value in report["sums"].items():
                sums.setdefault(name, []).append(value)
        return {
            **{name: mean(values) for name, values in sums.items()},
            "grad_norm": float(np.mean([report["grad_norm"] for report in reports])),
            "finite": float(min(report["finite"] for report in reports)),
            "tokens": float(sum(report["tokens"] for report in reports)),
        }


def mean(values: list[Sums]) -> float:
    """Total over total, so that batches of different weight count as they should."""
    total, weight = (float(np.sum([np.asarray(v[i], np.float64) for v in values])) for i in (0, 1))
    return total / max(weight, 1e-8)
