"""Metric functions fit seqio's signatures, give the figures, and refuse outputs of another kind."""

import subprocess
import sys

import numpy as np
import pytest

from ilm_jax.data.examples.task_families import task_specs
from ilm_jax.errors import UserError
from ilm_jax.metrics import seqio_metrics as fns


def test_ranking_of_lists_by_hand():
    found = fns.ranking_metrics(["a", "b", "c"], [["a", "x"], ["x", "b"], ["x", "y"]])
    assert found == pytest.approx({"hr@1": 1 / 3, "ndcg@1": 1 / 3, "mrr@1": 1 / 3})
    ten = [[f"i{k}" for k in range(10)]] * 2
    found = fns.ranking_metrics(["i9", "i1"], ten)
    assert found["hr@10"] == 1 and found["hr@5"] == 0.5 and found["mrr@10"] == (0.1 + 0.5) / 2


def test_names_are_the_same_however_their_letters_are_composed():
    found = fns.ranking_metrics(["\u00e9t\u00e9"], [["x", "e\u0301te\u0301", "y", "z", "a"]])
    assert found["hr@5"] == 1 and found["mrr@5"] == 0.5


def test_ratings_are_read_from_texts_and_auc_by_user():
    found = fns.rating_metrics([4, 3.0], ["4.0", " 5"])
    assert found == pytest.approx({"rmse": 2**0.5, "mae": 1.0})
    targets = [{"label": y, "user": u} for y, u in ((1, "a"), (0, "a"), (1, "b"), (0, "b"))]
    found = fns.auc_metrics(targets, [0.9, 0.1, 0.2, 0.3])
    assert found == {"auc": 0.75, "uauc": 0.5}
    assert fns.auc_metrics([1, 0], np.array([2.0, 1.0])) == {"auc": 1.0}
    assert fns.sequence_nll(["x", "y"], [-1.0, -2.0]) == {"sequence_nll": 1.5}
    assert fns.text_metrics(["a b", "c"], ["a b", "d"])["exact_match"] == 0.5


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: fns.ranking_metrics(["a"], ["a"]), "prediction 0 is 'a', not a list of items"),
        (
            lambda: fns.text_metrics(["a"], [["a", "b"]]),
            "prediction 0 is .*, not a text",
        ),
        (lambda: fns.text_metrics(["a"], [0.5]), "not a text"),
        (lambda: fns.rating_metrics([4.0], ["4_5"]), "prediction 0 is '4_5', not a number"),
        (lambda: fns.rating_metrics([4.0], [""]), "prediction 0 is '', not a number"),
        (lambda: fns.rating_metrics([4.0], ["four"]), "prediction 0 is 'four', not a number"),
        (lambda: fns.rating_metrics([4.0], [float("nan")]), "not a number"),
        (lambda: fns.auc_metrics([1, 0], ["yes", "no"]), "score 0 is 'yes', not a number"),
        (lambda: fns.auc_metrics(["good", "bad"], [1.0, 2.0]), "labels 0 and 1"),
        (lambda: fns.auc_metrics([{"label": 1}], [1.0]), "labels 0 and 1"),
        (lambda: fns.auc_metrics([1, 1], [1.0, 2.0]), "all 2 labels are 1"),
        (lambda: fns.sequence_nll(["a"], [0.5]), "not above 0"),
        (lambda: fns.sequence_nll(["a"], []), "1 targets and 0 outputs"),
        (lambda: fns.text_metrics([], []), "0 targets"),
        (lambda: fns.metric_fns(["taste"]), "no metric function gives 'taste'"),
    ],
)
def test_a_metric_asked_of_the_wrong_output_says_so(call, message):
    with pytest.raises(UserError, match=message):
        call()


def test_every_tasks_figures_have_a_function():
    for spec in task_specs().values():
        assert bool(fns.metric_fns(spec.metrics)) == bool(spec.metrics)
    assert fns.metric_fns(["hr@1", "ndcg@5"]) == [fns.ranking_metrics]


IN_SEQIO = """
import seqio
from ilm_jax.metrics import seqio_metrics as fns
task = seqio.Task(
    "t", source=seqio.FunctionDataSource(lambda split, shuffle_files, seed=None: None, ["test"]),
    output_features={}, preprocessors=[],
    metric_fns=fns.metric_fns(["hr@1", "nll", "rmse", "auc", "bleu"]),
)
names = [f.__name__ for f in task.predict_metric_fns], [f.__name__ for f in task.score_metric_fns]
print(names)
"""


@pytest.mark.slow
def test_seqio_takes_them_as_metric_functions():
    """In a process of its own, for seqio imports TensorFlow."""
    found = subprocess.run(
        [sys.executable, "-c", IN_SEQIO], capture_output=True, text=True, check=True
    ).stdout.splitlines()[-1]
    predicts, score = "ranking_metrics rating_metrics text_metrics", "sequence_nll auc_metrics"
    assert found == str((predicts.split(), score.split()))
