"""Intervals for means over users, and whether two models differ: bootstrap and t-test, paired.

The unit that is resampled is the user (or the example): two models are always compared on the
same users, so only the differences matter. A per-token metric is a ratio of sums; it is given
here as values (sums of nll per example) and weights (tokens per example), and the pairs are
resampled together.
"""

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Float64, Int64, Shaped

_FEW = 30
"""Below this many units the percentile bootstrap is too narrow, and Student's t is used."""
_DRAWS_AT_ONCE = 1 << 22


@dataclasses.dataclass(frozen=True)
class Interval:
    """A mean with its confidence interval.

    Attributes:
      mean: the (weighted) mean.
      low, high: bounds of the interval.
      level: its nominal coverage.
      units: number of users or examples.
      method: "bootstrap" (percentile) or "t".
    """

    mean: float
    low: float
    high: float
    level: float
    units: int
    method: str

    def __str__(self) -> str:
        return f"{self.mean:.4f} [{self.low:.4f}, {self.high:.4f}]"


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Two models on the same units.

    Attributes:
      first, second: their names.
      difference: interval of mean(first) - mean(second).
      p_value: of the two-sided paired t-test.
      verdict: "<first> below <second>", "<second> below <first>" or "undecided".
    """

    first: str
    second: str
    difference: Interval
    p_value: float
    verdict: str

    def __str__(self) -> str:
        level = f"{100 * self.difference.level:g} %"
        return (
            f"{self.verdict}: {self.first} - {self.second} = {self.difference} "
            f"({level}, {self.difference.units} pairs, p = {self.p_value:.2g})"
        )


def mean_interval(
    values: Shaped[np.ndarray, " units"],
    weights: Shaped[np.ndarray, " units"] | None = None,
    *,
    level: float = 0.95,
    samples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Interval of sum(values) / sum(weights), by resampling units.

    Percentile bootstrap (Efron 1979); with fewer than 30 units Student's t on the linearised
    ratio, because the percentile bootstrap is too narrow there. One unit gives infinite bounds.

    Args:
      values: one per user or example.
      weights: what `values` are sums over (tokens per example); ones if None.
      level: nominal coverage.
      samples: bootstrap samples.
      seed: of the resampling; equal inputs give equal bounds.

    Raises:
      ValueError: if there is no unit, a value is not finite, or the weights are not positive in
        sum.
    """
    values, weights = _checked(values, weights)
    mean = float(values.sum() / weights.sum())
    if len(values) < _FEW:
        low, high = _student(values, weights, level)[:2]
        return Interval(mean, low, high, level, len(values), "t")
    ratios = _resampled(values, weights, samples, seed)
    low, high = np.quantile(ratios, [(1 - level) / 2, (1 + level) / 2])
    return Interval(mean, float(low), float(high), level, len(values), "bootstrap")


def interval_over_users(
    metric: Callable[[Int64[np.ndarray, " drawn"]], float],
    users: Shaped[np.ndarray, " rows"],
    *,
    level: float = 0.95,
    samples: int = 1000,
    seed: int = 0,
    on_sample: Callable[[int], None] | None = None,
) -> Interval:
    """Interval of a metric that is no mean (AUC, RMSE) over rows that belong to users.

    Percentile bootstrap of whole users with all their rows, as rows of one user are not
    independent. Samples in which the metric does not exist (NaN: no positive drawn) are left out.

    Args:
      metric: of the rows with these numbers, in any order and with repeats.
      users: of every row; `np.arange(rows)` resamples the rows themselves.
      level, samples, seed: as in `mean_interval`.
      on_sample: hears of every sample.

    Raises:
      ValueError: without rows, or if the metric of all of them does not exist.
    """
    names, inverse, counts = np.unique(users, return_inverse=True, return_counts=True)
    if not len(names):
        raise ValueError("no row to measure")
    mean = float(metric(np.arange(len(inverse))))
    if not np.isfinite(mean):
        raise ValueError(f"the metric of all {len(inverse)} rows is {mean}")
    if len(names) == 1:
        return Interval(mean, -np.inf, np.inf, level, 1, "bootstrap")
    rows = np.split(np.argsort(inverse, kind="stable"), np.cumsum(counts)[:-1])
    draw = np.random.Generator(np.random.Philox(seed))
    drawn = []
    for _ in range(samples):
        chosen = draw.integers(len(names), size=len(names))
        drawn.append(metric(np.concatenate([rows[user] for user in chosen])))
        if on_sample is not None:
            on_sample(1)
    low, high = np.nanquantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Interval(mean, float(low), float(high), level, len(names), "bootstrap")


def compare(
    first: str,
    first_values: Shaped[np.ndarray, " units"],
    second: str,
    second_values: Shaped[np.ndarray, " units"],
    weights: Shaped[np.ndarray, " units"] | None = None,
    *,
    level: float = 0.95,
    samples: int = 2000,
    seed: int = 0,
) -> Comparison:
    """Compares two models on the same units; "below" speaks of the metric, better or worse.

    The verdict names an order only if the interval of the difference excludes 0 and the paired
    t-test agrees (p < 1 - level).

    Args:
      first, second: names of the models.
      first_values, second_values: per user or example, in the same order.
      weights: as in `mean_interval`, shared by both.

    Raises:
      ValueError: as `mean_interval`, or if the two differ in length.
    """
    if np.shape(first_values) != np.shape(second_values):
        raise ValueError(f"{first} and {second} were not measured on the same units")
    values = np.asarray(first_values, np.float64) - np.asarray(second_values, np.float64)
    interval = mean_interval(values, weights, level=level, samples=samples, seed=seed)
    p_value = _student(*_checked(values, weights), level)[2]
    verdict = "undecided"
    if p_value < 1 - level and interval.high < 0:
        verdict = f"{first} below {second}"
    elif p_value < 1 - level and interval.low > 0:
        verdict = f"{second} below {first}"
    return Comparison(first, second, interval, p_value, verdict)


def corpus_interval(
    counts: Shaped[np.ndarray, "units counts"],
    metric: Callable[[Shaped[np.ndarray, " counts"]], float],
    level: float = 0.95,
    samples: int = 1000,
    seed: int = 0,
) -> Interval:
    """A metric of summed counts, such as corpus BLEU, with its percentile bootstrap over units."""
    units = len(counts)
    mean = metric(counts.sum(axis=0))
    if units == 1:
        return Interval(mean, -np.inf, np.inf, level, units, "bootstrap")
    drawn = [metric(counts[rows].sum(axis=0)) for rows in _draws(units, samples, seed)]
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Interval(mean, float(low), float(high), level, units, "bootstrap")


def corpus_difference(
    first: Shaped[np.ndarray, "units counts"],
    second: Shaped[np.ndarray, "units counts"],
    metric: Callable[[Shaped[np.ndarray, " counts"]], float],
    level: float = 0.95,
    samples: int = 1000,
    seed: int = 0,
) -> tuple[Interval, float]:
    """(metric of the first - of the second with its interval, p): paired bootstrap (Koehn 2004).

    The p-value is twice the share of samples on the rarer side of 0, at least 2 / samples.
    """
    units = len(first)
    mean = metric(first.sum(axis=0)) - metric(second.sum(axis=0))
    if units == 1:
        return Interval(mean, -np.inf, np.inf, level, units, "bootstrap"), 1.0
    pairs = (
        (first[rows].sum(axis=0), second[rows].sum(axis=0)) for rows in _draws(units, samples, seed)
    )
    drawn = np.array([metric(a) - metric(b) for a, b in pairs])
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    tail = max(min((drawn <= 0).mean(), (drawn >= 0).mean()), 1 / samples)
    interval = Interval(mean, float(low), float(high), level, units, "bootstrap")
    return interval, float(min(1.0, 2 * tail))


def _draws(units: int, samples: int, seed: int) -> Iterator[Int64[np.ndarray, " units"]]:
    draw = np.random.Generator(np.random.Philox(seed))
    for _ in range(samples):
        yield draw.integers(units, size=units)


def _checked(
    values: Shaped[np.ndarray, " units"], weights: Shaped[np.ndarray, " units"] | None
) -> tuple[Float64[np.ndarray, " units"], Float64[np.ndarray, " units"]]:
    values = np.asarray(values, np.float64)
    weights = np.ones_like(values) if weights is None else np.asarray(weights, np.float64)
    if values.ndim != 1 or values.shape != weights.shape or not len(values):
        raise ValueError(f"values {values.shape} and weights {weights.shape}: one per unit")
    if not (np.isfinite(values).all() and (weights >= 0).all() and weights.sum() > 0):
        raise ValueError("values must be finite, weights not negative and positive in sum")
    return values, weights


def _student(
    values: Float64[np.ndarray, " units"], weights: Float64[np.ndarray, " units"], level: float
) -> tuple[float, float, float]:
    """(low, high, two-sided p against 0) of the ratio, linearised about its estimate."""
    import scipy.stats

    units = len(values)
    mean = values.sum() / weights.sum()
    if units == 1:
        return -np.inf, np.inf, 1.0
    residuals = (values - mean * weights) / weights.mean()
    error = float(np.std(residuals, ddof=1) / np.sqrt(units))
    if error == 0:
        return mean, mean, float(mean == 0)
    half = scipy.stats.t.ppf((1 + level) / 2, units - 1) * error
    return mean - half, mean + half, float(2 * scipy.stats.t.sf(abs(mean) / error, units - 1))


def _resampled(
    values: Float64[np.ndarray, " units"],
    weights: Float64[np.ndarray, " units"],
    samples: int,
    seed: int,
) -> Float64[np.ndarray, " samples"]:
    units = len(values)
    generator = np.random.Generator(np.random.Philox(seed))
    ratios = []
    for first in range(0, samples, max(1, _DRAWS_AT_ONCE // units)):
        size = min(max(1, _DRAWS_AT_ONCE // units), samples - first)
        drawn = generator.integers(units, size=(size, units))
        totals = weights[drawn].sum(axis=1)
        # A sample of weightless units alone says nothing; it stands at the estimate.
        empty = totals == 0
        totals[empty] = 1.0
        ratio = values[drawn].sum(axis=1) / totals
        ratios.append(np.where(empty, values.sum() / weights.sum(), ratio))
    return np.concatenate(ratios)
