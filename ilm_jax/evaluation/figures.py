"""A figure with the values that it is made of, so that its interval and its pairing are one thing.

A figure is a mean over units (users, items, texts), or a ratio of sums over them: nll per token
has sums of nll as values and tokens as weights. Corpus BLEU alone is neither: its values are the
counts that each text adds to it.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64, Shaped

from ilm_jax.errors import UserError
from ilm_jax.metrics import texts
from ilm_jax.metrics.intervals import Interval, compare, mean_interval

# What is better lower; of what is in neither list neither end is better (popularity).
LOWER = ("nll", "mse", "rmse", "mae")
HIGHER = (
    "hr@", "recall@", "ndcg@", "mrr", "auc", "uauc", "semantic", "behavioural",
    "exact_match", "rouge", "bleu", "valid", "rater",
)  # fmt: skip


@dataclasses.dataclass(frozen=True, eq=False)
class Figure:
    """One figure of one model.

    Attributes:
      name: such as "ndcg@10", or of one of several tasks "retrieval/ndcg@10".
      unit: what the values are of: "users", "items", …; figures of one unit may be paired.
      index: number of each unit, ascending.
      values: [units], or [units, counts] for BLEU.
      weights: [units] where the figure is a ratio of sums.
    """

    name: str
    unit: str
    index: Int64[np.ndarray, " units"]
    values: Shaped[np.ndarray, "units ..."]
    weights: Float64[np.ndarray, " units"] | None = None

    def interval(self, **settings: Any) -> Interval:
        """The figure with its bootstrap interval over units."""
        if np.ndim(self.values) == 2:
            return texts.bleu_interval(self.values, **settings)
        return mean_interval(self.values, self.weights, **settings)

    @property
    def mean(self) -> float:
        """The figure itself."""
        if np.ndim(self.values) == 2:
            return texts.bleu_of(np.sum(self.values, axis=0))
        total = len(self.values) if self.weights is None else self.weights.sum()
        return float(np.sum(self.values) / total)


@dataclasses.dataclass(frozen=True)
class Paired:
    """One figure of two models on the same units.

    Attributes:
      name, unit: of the figure.
      units: how many were paired.
      first, second: the models' figures.
      difference: first - second with its interval.
      p_value: two-sided; paired t-test, for BLEU the bootstrap's.
      adjusted: p-value after Holm's correction for all figures compared together.
    """

    name: str
    unit: str
    units: int
    first: float
    second: float
    difference: Interval
    p_value: float
    adjusted: float = math.nan

    def verdict(self, first: str, second: str) -> str:
        """In words: "tie within noise" where the interval holds 0."""
        if self.difference.low <= 0 <= self.difference.high:
            return "tie within noise"
        higher, lower = (first, second) if self.difference.mean > 0 else (second, first)
        kind = self.name.rpartition("/")[2]
        if kind.startswith(LOWER):
            return f"{lower} better"
        return f"{higher} better" if kind.startswith(HIGHER) else f"{higher} higher"


def pair(first: Figure, second: Figure, **settings: Any) -> Paired:
    """Compares one figure of two models.

    Raises:
      UserError: if they were not measured on the same units.
    """
    if first.unit != second.unit or not np.array_equal(first.index, second.index):
        raise UserError(
            f"{first.name} was measured on {len(first.index)} {first.unit} of the one run and on "
            f"other {second.unit} ({len(second.index)}) of the other: they cannot be paired"
        )
    if np.ndim(first.values) == 2:
        difference, p_value = texts.bleu_difference(first.values, second.values, **settings)
    else:
        if (first.weights is None) != (second.weights is None) or not np.array_equal(
            np.ones(1) if first.weights is None else first.weights,
            np.ones(1) if second.weights is None else second.weights,
        ):
            raise UserError(
                f"{first.name} counts other tokens in the two runs: compare runs of one tokenizer"
            )
        found = compare("a", first.values, "b", second.values, first.weights, **settings)
        difference, p_value = found.difference, found.p_value
    return Paired(
        first.name, first.unit, len(first.index), first.mean, second.mean, difference, p_value
    )


def pair_all(
    first: Mapping[str, Figure],
    second: Mapping[str, Figure],
    on_figure: Callable[[int], None] | None = None,
    **settings: Any,
) -> list[Paired]:
    """Every figure that both have, with Holm's p-values (Holm 1979); errors as `pair`.

    `on_figure` hears of every figure.

    Raises:
      UserError: if they share no figure.
    """
    names = [name for name in first if name in second]
    if not names:
        raise UserError("the two runs share no figure")
    found = []
    for name in names:
        found.append(pair(first[name], second[name], **settings))
        if on_figure is not None:
            on_figure(1)
    adjusted = holm([paired.p_value for paired in found])
    return [
        dataclasses.replace(paired, adjusted=p) for paired, p in zip(found, adjusted, strict=True)
    ]


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values: at a level, the chance of rejecting any true null is at most that."""
    order = np.argsort(p_values)
    scaled = np.asarray(p_values)[order] * np.arange(len(order), 0, -1)
    adjusted = np.empty(len(order))
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return adjusted.tolist()
