"""Metrics with the values that they are made of, so that interval and pairing are one thing.

Most metrics are means over units (users, items, texts), or ratios of sums over them: nll per token
has sums of nll as values and tokens as weights. A metric of a whole corpus (BLEU) has as values the
counts that each text adds to it, and RMSE or AUC are statistics of rows that are no means at all.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Float64, Int64, Shaped

from ilm_jax.errors import UserError
from ilm_jax.metrics.intervals import Interval, corpus_interval, interval_over_users, mean_interval

V = TypeVar("V")

SAMPLES = 1000
# From the sums of a corpus metric's counts to the metric.
Total = Callable[[Shaped[np.ndarray, " counts"]], float]


@dataclasses.dataclass(frozen=True, eq=False)
class MetricValues:
    """One metric of one model.

    Attributes:
      name: such as "ndcg@10", or of one of several tasks "retrieval/ndcg@10".
      unit: what the values are of: "users", "items", …; metrics of one unit may be paired.
      index: number of each unit, ascending.
      values: [units], or [units, counts] of a corpus metric.
      weights: [units] where the metric is a ratio of sums.
      higher_is_better: None where neither end is better, as of popularity.
      total: of a corpus metric.
    """

    name: str
    unit: str
    index: Int64[np.ndarray, " units"]
    values: Shaped[np.ndarray, "units ..."]
    weights: Float64[np.ndarray, " units"] | None = None
    higher_is_better: bool | None = True
    total: Total | None = None

    def interval(self, **settings: Any) -> Interval:
        """The metric with its bootstrap interval over units."""
        if np.ndim(self.values) == 2:
            return corpus_interval(self.values, self.of_counts, **settings)
        return mean_interval(self.values, self.weights, **settings)

    @property
    def mean(self) -> float:
        """The metric itself."""
        if np.ndim(self.values) == 2:
            return self.of_counts(np.sum(self.values, axis=0))
        total = len(self.values) if self.weights is None else self.weights.sum()
        return float(np.sum(self.values) / total)

    def of_counts(self, counts: Shaped[np.ndarray, " counts"]) -> float:
        """The corpus metric of summed counts.

        Raises:
          UserError: if nobody registered what makes a number of them.
        """
        if self.total is None:
            raise UserError(
                f"{self.name} is a metric of counts that is not registered here: import the "
                "module that registers it"
            )
        return self.total(counts)


@dataclasses.dataclass(frozen=True, eq=False)
class Statistic:
    """A metric that is no mean over units, such as AUC; its interval resamples whole users.

    Attributes:
      of: the metric of the rows with these numbers, in any order and with repeats.
      users: of every row.
    """

    of: Callable[[Int64[np.ndarray, " drawn"]], float]
    users: Shaped[np.ndarray, " rows"]

    @property
    def mean(self) -> float:
        """The metric of all rows."""
        return float(self.of(np.arange(len(self.users))))

    def interval(self, on_sample: Callable[[int], None] | None = None) -> Interval:
        """With its interval; `on_sample` hears of each of `SAMPLES` samples."""
        return interval_over_users(self.of, self.users, samples=SAMPLES, on_sample=on_sample)


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Everything measured of a run.

    Attributes:
      metrics: with their values.
      totals: numbers without an interval, such as coverage.
      protocol: the card, by kind of measure.
      missing: metrics that could not be had, and why; none of them is 0.
      statistics: metrics that are no means over units, by name.
      ceiling: the best possible value of some metrics, where the data's generator knows it.
    """

    metrics: Sequence[MetricValues]
    totals: Mapping[str, float] = dataclasses.field(default_factory=dict)
    protocol: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    missing: Mapping[str, str] = dataclasses.field(default_factory=dict)
    statistics: Mapping[str, Statistic] = dataclasses.field(default_factory=dict)
    ceiling: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def __add__(self, other: "Evaluation") -> "Evaluation":
        """Both together."""
        return Evaluation(
            [*self.metrics, *other.metrics],
            {**self.totals, **other.totals},
            {**self.protocol, **other.protocol},
            {**self.missing, **other.missing},
            {**self.statistics, **other.statistics},
            {**self.ceiling, **other.ceiling},
        )

    def under(self, name: str) -> "Evaluation":
        """The same with every name behind "name/", where several tasks are measured."""

        def named(given: Mapping[str, V]) -> dict[str, V]:
            """The same values under prefixed names."""
            return {f"{name}/{key}": value for key, value in given.items()}

        return Evaluation(
            [dataclasses.replace(m, name=f"{name}/{m.name}") for m in self.metrics],
            named(self.totals),
            named(self.protocol),
            named(self.missing),
            named(self.statistics),
            named(self.ceiling),
        )

    @property
    def numbers(self) -> dict[str, float]:
        """Every metric by name, without intervals."""
        means = {metric.name: metric.mean for metric in self.metrics}
        return means | {name: s.mean for name, s in self.statistics.items()} | dict(self.totals)
