"""Ranking metrics against values worked out by hand."""

import numpy as np
import pytest

from ilm_jax.evaluation.metrics import (
    MISSED,
    hit_rate,
    ndcg,
    per_user,
    rank_of_target,
    reciprocal_rank,
)

RANKS = np.array([1, 3, 10, 11, MISSED])


def test_values_by_hand():
    assert hit_rate(RANKS, 10).tolist() == [1, 1, 1, 0, 0]
    np.testing.assert_allclose(ndcg(RANKS, 10), [1, 0.5, 1 / np.log2(11), 0, 0])
    np.testing.assert_allclose(reciprocal_rank(RANKS), [1, 1 / 3, 0.1, 1 / 11, 0])
    np.testing.assert_allclose(reciprocal_rank(RANKS, 10), [1, 1 / 3, 0.1, 0, 0])


def test_names_of_all_metrics():
    assert list(per_user(RANKS)) == [
        "hr@1", "ndcg@1", "hr@5", "ndcg@5", "hr@10", "ndcg@10", "mrr@10",
    ]  # fmt: skip
    np.testing.assert_array_equal(per_user(RANKS)["hr@1"], per_user(RANKS)["ndcg@1"])


def test_ranks_below_one_are_refused():
    for bad in ([0], [np.nan]):
        with pytest.raises(ValueError, match="start at 1"):
            hit_rate(np.array(bad), 10)


def test_ties_count_against_the_target_and_history_is_no_candidate():
    scores = np.array([2.0, 1.0, 1.0, 3.0], np.float32)
    assert rank_of_target(scores, 1, np.array([], int)) == 4
    assert rank_of_target(scores, 1, np.array([3, 0])) == 2
    assert rank_of_target(scores, 1, np.array([1, 2, 3, 0])) == 1
    assert rank_of_target(np.zeros(100, np.float32), 7, np.array([], int)) == 100
