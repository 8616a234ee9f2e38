"""A registered metric is measured as the shipped ones are; what it gives is checked."""

import types

import numpy as np
import pytest

from ilm_jax.errors import UserError
from ilm_jax.metrics import registry
from ilm_jax.metrics.registry import Metric, measure, register_metric

TEXTS = types.SimpleNamespace(
    index=np.array([3, 5, 9]), predictions=["a", "", "ccc"], targets=["a", "b", "c"]
)


@pytest.fixture(autouse=True)
def _as_before(monkeypatch):
    monkeypatch.setattr(registry.METRICS, "_entries", dict(registry.METRICS._entries))


def lengths(predictions, targets):
    return [len(text) or float("nan") for text in predictions]


def named(evaluation):
    return {metric.name: metric for metric in evaluation.metrics}


def test_values_have_the_units_that_have_them():
    register_metric(Metric("length", "text", lengths, higher_is_better=False))
    found = named(measure("text", TEXTS))
    assert "exact_match" in found
    own = found["length"]
    assert own.index.tolist() == [3, 9] and own.mean == 2 and own.unit == "generated texts"
    assert own.higher_is_better is False and own.interval().units == 2
    assert "length" not in named(measure("rating", ratings()))


def ratings():
    return types.SimpleNamespace(
        index=np.arange(2), predictions=np.array([1.0, 2.0]), targets=np.array([1.0, 4.0])
    )


def test_ratios_and_counts_are_metrics_too():
    def pieces(predictions, targets):
        return {"share": ([1, 0, 2], [1, 1, 3]), "none": "not available (for a reason)"}

    def counts(predictions, targets):
        return [[len(p), len(t)] for p, t in zip(predictions, targets, strict=True)]

    register_metric(Metric("pieces", "text", pieces, parts=("share", "none")))
    register_metric(Metric("ratio", "text", counts, total=lambda c: float(c[0] / c[1])))
    evaluation = measure("text", TEXTS)
    found = named(evaluation)
    assert found["share"].mean == 3 / 5 and found["ratio"].mean == 4 / 3
    assert found["ratio"].interval().units == 3
    assert evaluation.missing["none"] == "not available (for a reason)"
    register_metric(Metric("nothing", "rating", lambda p, t: [np.nan, np.nan]))
    assert measure("rating", ratings()).missing["nothing"].startswith("not available (no ratings")


def test_a_name_is_one_metrics_and_a_module_may_run_anew():
    for _ in range(2):

        def again(predictions, targets):
            return [1.0] * len(targets)

        register_metric(Metric("again", "text", again))
    with pytest.raises(UserError, match="there is a metric 'again' already"):
        register_metric(Metric("again", "text", lengths))
    with pytest.raises(UserError, match="there is a metric 'rouge1' already"):
        register_metric(Metric("rouge1", "text", lengths))


@pytest.mark.parametrize(
    "bad, said",
    [
        (Metric("x", "texts", lengths), "of answers 'texts': give items, text, rating"),
        (Metric("a/b", "text", lengths), "without '/' and '|'"),
        (
            Metric("x", "text", lambda p, t: [1.0]),
            r"'x': its function gives \(1,\) values of 3 gener",
        ),
        (Metric("x", "text", lambda p, t: ["a", "b", "c"]), "'x': its function gives no numbers"),
        (Metric("x", "text", lambda p, t: [1, 2, np.inf]), "an infinite value"),
        (Metric("x", "text", lambda p, t: ([1, 2, 3], [1, 1, -1])), "a weight below 0"),
    ],
)
def test_what_is_no_metric_is_refused(bad, said):
    with pytest.raises(UserError, match=said):
        register_metric(bad)
        measure("text", TEXTS)
