"""The study of auxiliary tasks pairs users over seeds, and its two rows differ in one binding."""

import dataclasses
import pathlib

import numpy as np
import pytest

from ilm_jax.data.catalogue.splits import SplitConfig, make_splits
from ilm_jax.errors import UserError
from ilm_jax.evaluation.reports.results import Stored
from ilm_jax.metrics.values import MetricValues
from tests.data.small_catalogue import small_catalogue

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def study(script):
    return script("knowledge")


def test_the_rows_differ_in_the_auxiliary_tasks_alone(study, tmp_path):
    made = study.KnowledgeStudy("toy", 0, tmp_path, bindings={"TRAIN_STEPS": 3})
    steps = {name: words for name, words, _ in made.steps([0, 5])}
    assert set(steps) == {
        f"{e}{r}-{s}" for e in ("", "evaluate ") for r in study.ROWS for s in "05"
    }
    for seed in "05":
        one, two = set(steps[f"with-{seed}"]), set(steps[f"without-{seed}"])
        assert {word for word in two - one if "MODEL_DIR" not in word} == {"--gin.AUXILIARY=0.0"}
        assert {word for word in one - two if "MODEL_DIR" not in word} == set()
        assert {f"--gin.SEED={seed}", "--gin.TRAIN_STEPS=3"} <= one


def test_users_values_are_averaged_over_seeds_and_other_users_refused(study):
    draw = np.random.default_rng(0)
    metrics = [MetricValues("hr@10", "users", np.arange(4), draw.random(4)) for _ in range(3)]
    found = study.seeded.over_seeds([Stored({}, {"hr@10": metric}) for metric in metrics])["hr@10"]
    assert found.values == pytest.approx(sum(metric.values for metric in metrics) / 3)
    other = dataclasses.replace(metrics[1], index=np.arange(1, 5))
    with pytest.raises(UserError, match="other users"):
        study.seeded.over_seeds([Stored({}, {"hr@10": metric}) for metric in (metrics[0], other)])


def test_popularity_lists_the_items_that_training_chose_most(study):
    splits = make_splits(small_catalogue(items=12, users=40), SplitConfig(0.0))
    counts = splits.train_counts()
    order = sorted(range(12), key=lambda row: (-counts[row], row))
    pairs = [splits.test_target(user) for user in range(40)]
    places = [order.index(pair[1]) for pair in pairs if pair]
    gains = [1 / np.log2(place + 2) if place < 10 else 0 for place in places]
    found = study.by_popularity(splits)
    assert found["hr@10"] == pytest.approx(np.mean([place < 10 for place in places]))
    assert found["ndcg@10"] == pytest.approx(np.mean(gains))
