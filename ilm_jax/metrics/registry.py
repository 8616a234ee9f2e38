"""The metrics of a model's answers, and the door by which a user adds one.

    def shortness(predictions, targets):             # lists of texts, one each
        return [1 / (1 + len(text)) for text in predictions]

    register_metric(Metric("shortness", "text", shortness))

From then on `ilm evaluate`, the evaluation during training and `ilm compare` have it, with its
interval over texts. The module that registers a metric is imported by the recipe (a gin line
`import my_package.my_metrics`) or by `ilm evaluate --import=my_package.my_metrics`.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from jaxtyping import Int64

from ilm_jax.errors import UserError
from ilm_jax.metrics import lists, loops, ranking, scores, texts
from ilm_jax.metrics.values import Evaluation, MetricValues, Total
from ilm_jax.registry import Registry

# What the values of a metric are of, unless it says otherwise, by kind of answers.
UNITS = {"items": "users", "text": "generated texts", "rating": "ratings"}
CUTOFFS = (1, 5, 10)


class Answers(Protocol):
    """A model's answers to the prompts of a task, in order of the examples' numbers.

    Attributes:
      index: number of the example.
      predictions: of "items" the listed item rows [users, length], best first, -1 where a list is
        short; of "text" the texts; of "rating" the numbers.
      targets: the right answers: item rows, texts, numbers.
    """

    @property
    def index(self) -> Int64[np.ndarray, " units"]:
        """Number of each example."""
        ...

    @property
    def predictions(self) -> Any:
        """The model's answers; their form depends on the kind."""
        ...

    @property
    def targets(self) -> Any:
        """The right answers, in the same form."""
        ...


@dataclasses.dataclass(frozen=True)
class Metric:
    """A metric of answers.

    Attributes:
      name: in evaluation.json and every table.
      answer: the kind of answers that it measures: "items", "text" (of "item_and_text" too) or
        "rating".
      function: (predictions, targets), see `Answers`, to one value per unit, or to (values,
        weights) where the metric is their sums' ratio. NaN: this unit has no value. A text instead
        says why the metric is not available.
      higher_is_better: None where neither end is better.
      unit: what a value is of; "": that of `UNITS`.
      parts: where one function gives several metrics, their names; it returns them by name.
      total: where values are counts [units, counts]: from their sums to the metric.
      tells: the function also takes `on_unit`, which hears how many more units are done.
    """

    name: str
    answer: str
    function: Callable[..., object]
    higher_is_better: bool | None = True
    unit: str = ""
    parts: tuple[str, ...] = ()
    total: Total | None = None
    tells: bool = False


METRICS: Registry[Metric] = Registry("metric")


def register_metric(metric: Metric) -> None:
    """Makes a metric known.

    Raises:
      UserError: for a kind of answers that there is not, a name that keys of evaluation.json cannot
        have, or one that is taken.
    """
    if metric.answer not in UNITS:
        raise UserError(
            f"metric {metric.name!r} is of answers {metric.answer!r}: give {', '.join(UNITS)}"
        )
    for name in metric.parts or (metric.name,):
        if not name or set(name) & set("|/"):
            raise UserError(f"metric {name!r}: give it a name without '/' and '|'")
        known = METRICS[name] if name in METRICS else None
        again = known is not None and _origin(known.function) == _origin(metric.function)
        METRICS.register(name, metric, again=again)


def _origin(function: Callable[..., object]) -> object:
    """What a function shares with itself when its module, or a notebook's cell, runs anew."""
    code = getattr(function, "__code__", None)
    if code is None:
        return function
    here = function.__module__ == "__main__"
    return function.__qualname__, *(() if here else (code.co_filename, code.co_firstlineno))


def metrics_of(answer: str) -> list[Metric]:
    """The metrics of a kind of answers, in the order in which they came."""
    known = [METRICS[name] for name in METRICS]
    return [m for m in dict.fromkeys(known) if m.answer == answer]


def measure(
    answer: str, answers: Answers, on_unit: Callable[[int], None] | None = None
) -> Evaluation:
    """All metrics of a kind of answers; what is missing says why.

    Raises:
      UserError: where a metric's function gives no value per unit.
    """
    metrics, missing = [], {}
    for metric in metrics_of(answer):
        more = {"on_unit": on_unit} if metric.tells else {}
        result = metric.function(answers.predictions, answers.targets, **more)
        named = result if isinstance(result, Mapping) else {metric.name: result}
        for name, values in named.items():
            if isinstance(values, str):
                missing[name] = values
                continue
            one = _values(metric, name, values, answers.index)
            if one is None:
                missing[name] = f"{texts.NOT_AVAILABLE} (no {_unit(metric)} has a value)"
            else:
                metrics.append(one)
    return Evaluation(metrics, missing=missing)


def _unit(metric: Metric) -> str:
    return metric.unit or UNITS[metric.answer]


def _values(
    metric: Metric, name: str, given: object, index: Int64[np.ndarray, " units"]
) -> MetricValues | None:
    """A function's values where they are known; None if none is."""
    try:
        values, weights = given if isinstance(given, tuple) else (given, None)
        values = np.asarray(values, np.int64 if metric.total else np.float64)
        weights = None if weights is None else np.asarray(weights, np.float64)
    except (TypeError, ValueError) as error:
        raise UserError(f"metric {name!r}: its function gives no numbers ({error})") from error
    for array in (values, values if weights is None else weights):
        if array.shape[:1] != index.shape or array.ndim != (2 if metric.total else 1):
            raise UserError(
                f"metric {name!r}: its function gives {array.shape} values of {len(index)} "
                f"{_unit(metric)}: give one each (NaN where there is none)"
            )
    known = ~np.isnan(values).reshape(len(values), -1).any(axis=1)
    if np.isinf(values).any():
        raise UserError(f"metric {name!r}: its function gives an infinite value")
    if weights is not None and (weights[known] < 0).any():
        raise UserError(f"metric {name!r}: its function gives a weight below 0")
    if not known.any() or (weights is not None and not weights[known].sum()):
        return None
    return MetricValues(
        name,
        _unit(metric),
        index[known],
        values[known],
        None if weights is None else weights[known],
        metric.higher_is_better,
        metric.total,
    )


def _ranking(predictions: lists.Lists, targets: Sequence[int]) -> dict[str, np.ndarray | str]:
    """HR, NDCG and MRR at the cut-offs that a list can fill: a list of 5 says nothing of HR@10."""
    length = predictions.shape[1]
    ranks = lists.ranks_of(predictions, [np.array([row]) for row in targets])[:, 0]
    cutoffs = [k for k in CUTOFFS if k <= length]
    short = f"{texts.NOT_AVAILABLE} (lists hold {length})"
    beyond = (f"{kind}@{k}" for k in CUTOFFS if k > length for kind in ("hr", "ndcg"))
    return {**ranking.per_user(ranks, cutoffs), **dict.fromkeys(beyond, short)}


def _rouge(
    predictions: Sequence[str],
    targets: Sequence[str],
    on_unit: Callable[[int], None] | None = None,
) -> dict[str, np.ndarray | str]:
    rouges = texts.rouge(predictions, targets, on_text=on_unit)
    if rouges is None:
        return dict.fromkeys(texts.ROUGES, f"{texts.NOT_AVAILABLE} ({texts.REMEDY})")
    return {n: v if np.isfinite(v).any() else texts.NO_WORDS for n, v in rouges.items()}


def _bleu(predictions: Sequence[str], targets: Sequence[str]) -> np.ndarray | str:
    counts = texts.bleu_counts(predictions, targets)
    if counts is None:
        return f"{texts.NOT_AVAILABLE} ({texts.REMEDY})"
    return texts.TOO_SHORT if texts.too_short(counts) else counts


def _standard() -> Iterator[Metric]:
    kinds = [f"{kind}@{k}" for k in CUTOFFS for kind in ("hr", "ndcg", "mrr")]
    yield Metric("ranking", "items", _ranking, parts=tuple(kinds))
    yield Metric("exact_match", "text", texts.exact_match)
    yield Metric("rouge", "text", _rouge, parts=texts.ROUGES, tells=True)
    yield Metric("bleu", "text", _bleu, total=texts.bleu_of)
    yield Metric("loops", "text", loops.loops, higher_is_better=False)
    yield Metric("mse", "rating", scores.squared_errors, higher_is_better=False)
    yield Metric("mae", "rating", scores.absolute_errors, higher_is_better=False)


for _metric in _standard():
    register_metric(_metric)
