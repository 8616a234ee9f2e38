"""Reports of the steps between two logs."""

import jax
import numpy as np

from ilm_jax.objectives.objective import Sums
from ilm_jax.training.step import Report


class Window:
    """Device-side sums since the last log; read once per log."""

    def __init__(self) -> None:
        """Starts empty."""
        self.steps = 0
        self._kinds: list[str] = []
        self._reports: list[Report] = []

    def add(self, kind: str, report: Report) -> None:
        """One step of a kind of batch."""
        self.steps += 1
        self._kinds.append(kind)
        self._reports.append(report)

    def full_steps(self) -> list[tuple[str, float]]:
        """(kind, share of its positions that are not padding) of each step."""
        shares = [float(report["real"]) for report in self._read()]
        return list(zip(self._kinds, shares, strict=True))

    def metrics(self) -> dict[str, float]:
        """Means over the steps, in one transfer from the devices."""
        reports = self._read()
        sums: dict[str, list[Sums]] = {}
        for report in reports:
            for name, value in report["sums"].items():
                sums.setdefault(name, []).append(value)
        return {
            **{name: mean(values) for name, values in sums.items()},
            "grad_norm": float(np.mean([report["grad_norm"] for report in reports])),
            "tokens": float(sum(report["tokens"] for report in reports)),
        }

    def first_bad(self) -> tuple[int, dict[str, float]] | None:
        """(place in the window, what was measured there) of the first step that is not finite."""
        for place, report in enumerate(self._read()):
            if report["finite"] < 1:
                return place, {
                    "loss": mean([report["sums"]["loss"]]),
                    "grad_norm": float(report["grad_norm"]),
                    "weight_norm": float(report["weight_norm"]),
                }
        return None

    @property
    def weight_norm(self) -> float:
        """Of what trains, after the last step."""
        return float(self._read()[-1]["weight_norm"])

    def _read(self) -> list[Report]:
        """The reports on the host; those that are there already are not fetched again."""
        self._reports = jax.device_get(self._reports)
        return self._reports


def mean(values: list[Sums]) -> float:
    """Total over total, so that batches of different weight count as they should.

    NaN where nothing weighs anything, for there is nothing to take a mean of.
    """
    total, weight = (float(np.sum([np.asarray(v[i], np.float64) for v in values])) for i in (0, 1))
    return total / weight if weight else float("nan")
