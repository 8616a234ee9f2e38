"""Two evaluations metric by metric, on the same units: paired differences with their p-values."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ilm_jax.errors import UserError
from ilm_jax.evaluation.reports.results import Stored
from ilm_jax.metrics.intervals import Comparison, Interval, compare, corpus_difference
from ilm_jax.metrics.values import MetricValues


@dataclasses.dataclass(frozen=True)
class Paired:
    """One metric of two models on the same units.

    Attributes:
      name, unit: of the metric.
      units: how many were paired.
      first, second: the models' metrics.
      difference: first - second with its interval.
      p_value: two-sided; paired t-test, for a corpus metric (BLEU) the bootstrap's.
      higher_is_better: None where neither end is.
      adjusted: p-value after Holm's correction for all metrics compared together.
    """

    name: str
    unit: str
    units: int
    first: float
    second: float
    difference: Interval
    p_value: float
    higher_is_better: bool | None = True
    adjusted: float = math.nan

    def verdict(self, first: str, second: str) -> str:
        """In words: "tie within noise" where the interval holds 0."""
        if self.difference.low <= 0 <= self.difference.high:
            return "tie within noise"
        higher, lower = (first, second) if self.difference.mean > 0 else (second, first)
        if self.higher_is_better is None:
            return f"{higher} higher"
        return f"{higher} better" if self.higher_is_better else f"{lower} better"


def pair(first: MetricValues, second: MetricValues, **settings: Any) -> Paired:
    """Compares one metric of two models.

    Raises:
      UserError: if they were not measured on the same units.
    """
    if first.unit != second.unit or not np.array_equal(first.index, second.index):
        raise UserError(
            f"{first.name} was measured on {len(first.index)} {first.unit} of the one run and on "
            f"other {second.unit} ({len(second.index)}) of the other: they cannot be paired"
        )
    if np.ndim(first.values) == 2:
        difference, p_value = corpus_difference(
            first.values, second.values, first.of_counts, **settings
        )
    else:
        if (first.weights is None) != (second.weights is None) or not np.array_equal(
            np.ones(1) if first.weights is None else first.weights,
            np.ones(1) if second.weights is None else second.weights,
        ):
            raise UserError(
                f"{first.name} counts other tokens in the two runs: compare runs of one tokenizer"
            )
        tested = compare("a", first.values, "b", second.values, first.weights, **settings)
        difference, p_value = tested.difference, tested.p_value
    return Paired(
        first.name,
        first.unit,
        len(first.index),
        first.mean,
        second.mean,
        difference,
        p_value,
        first.higher_is_better,
    )


def pair_all(
    first: Mapping[str, MetricValues],
    second: Mapping[str, MetricValues],
    on_metric: Callable[[int], None] | None = None,
    unpaired: dict[str, str] | None = None,
    **settings: Any,
) -> list[Paired]:
    """Every metric that both have, with Holm's p-values (Holm 1979).

    Args:
      first, second: metrics of two models by name.
      on_metric: hears of every metric.
      unpaired: takes what cannot be paired, by name, with the reason; None: that is an error.
      **settings: of `pair`.

    Raises:
      UserError: if they share no metric, or as `pair`: without `unpaired` or if nothing is left.
    """
    names = [name for name in first if name in second]
    if not names:
        raise UserError("the two runs share no metric")
    pairs = []
    for name in names:
        try:
            pairs.append(pair(first[name], second[name], **settings))
        except UserError as error:
            if unpaired is None:
                raise
            unpaired[name] = str(error)
        if on_metric is not None:
            on_metric(1)
    if not pairs and unpaired:
        raise UserError(next(iter(unpaired.values())))
    adjusted = holm([paired.p_value for paired in pairs])
    return [
        dataclasses.replace(paired, adjusted=p) for paired, p in zip(pairs, adjusted, strict=True)
    ]


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values: at a level, the chance of rejecting any true null is at most that."""
    order = np.argsort(p_values)
    scaled = np.asarray(p_values)[order] * np.arange(len(order), 0, -1)
    adjusted = np.empty(len(order))
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return adjusted.tolist()


def compare_content(first: str, a: list[Stored], second: str, b: list[Stored]) -> Comparison:
    """Paired test of nll_content (nats per content token) on the same held-out items.

    Args:
      first, second: names of the models.
      a, b: their evaluations, pair by pair on the same items; several pairs are pooled.

    Raises:
      UserError: if two of a pair were not measured on the same items.
    """
    ours, theirs = _content(first, a), _content(second, b)
    ids = [[s.record["protocol"].get("nll", {}).get("ids") for s in side] for side in (a, b)]
    for x, y, one, two in zip(ours, theirs, *ids, strict=True):
        if not np.array_equal(x.index, y.index) or one != two:
            raise UserError(f"{first} and {second} were measured on different items")
    return compare(
        first,
        np.concatenate([metric.values for metric in ours]),
        second,
        np.concatenate([metric.values for metric in theirs]),
        np.concatenate([np.asarray(metric.weights) for metric in ours]),
    )


def _content(model: str, evaluations: list[Stored]) -> list[MetricValues]:
    for stored in evaluations:
        if "nll_content" not in stored.metrics:
            why = stored.record["not_available"].get("nll_content", "not measured")
            raise UserError(f"{model} has no nll_content to compare: {why}")
    return [stored.metrics["nll_content"] for stored in evaluations]
