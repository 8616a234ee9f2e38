"""Metrics that a module outside the package registers are measured, written and compared."""

import pathlib
import runpy
import sys

import numpy as np
import pytest

from ilm_jax.cli import main as cli
from ilm_jax.evaluation.reports import results
from ilm_jax.metrics import registry
from tests.cli import small_world

EXAMPLE = pathlib.Path(__file__).parents[2] / "examples" / "own_metric.py"


@pytest.fixture(autouse=True)
def _as_before(monkeypatch):
    monkeypatch.setattr(registry.METRICS, "_entries", dict(registry.METRICS._entries))


def test_the_two_metrics_by_hand(monkeypatch):
    own = runpy.run_path(str(EXAMPLE))
    lists = np.array([[1, 2, 3], [2, 4, -1], [5, -1, -1]])
    assert own["alone"](lists, [0, 0, 0]).tolist() == [2 / 3, 1 / 2, 1]
    different, pairs = own["distinct_2"](["a b a b", "a"], ["", ""])
    assert different.tolist() == [2, 0] and pairs.tolist() == [3, 0]


@pytest.mark.slow  # a stage of training and three programs to compile
def test_a_run_is_evaluated_with_metrics_of_ones_own(monkeypatch, tmp_path, capsys):
    small_world.save_world(tmp_path)
    monkeypatch.setattr(sys, "argv", ["own_metric.py", str(tmp_path), "--steps=1"])
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    out = capsys.readouterr().out
    assert "alone " in out and "distinct_2 " in out
    stored = results.read(tmp_path / "evaluation")
    assert stored.metrics["alone"].unit == "users"
    assert stored.metrics["distinct_2"].unit == "generated texts"
    assert stored.record["higher_is_better"]["alone"] is None
    assert 0 <= stored.intervals["alone"].low <= stored.intervals["alone"].mean <= 1
    monkeypatch.setattr(registry.METRICS, "_entries", {})
    assert cli.main(["compare", *[str(tmp_path / "evaluation")] * 2, "--metrics=alone"]) == 0
    assert "tie within noise" in capsys.readouterr().out, "compare needs no module of the user's"
