"""Ranks in decoded lists: padding, repeats and the user's history are handled once and for all."""

import numpy as np
import pytest

from ilm_jax.evaluation.metrics import MISSED
from ilm_jax.evaluation.ranking import rank_users, ranks_in_lists, sample_examples

RANKED = np.array([[4, 2, 7], [1, 0, 5], [3, 6, 2]])


def test_rank_is_the_position_and_missing_is_infinite():
    assert ranks_in_lists(RANKED, np.array([2, 1, 9])).tolist() == [2, 1, MISSED]


def test_history_is_dropped_before_counting_but_never_the_target():
    history = [np.array([4, 7]), np.array([1]), np.array([3])]
    assert ranks_in_lists(RANKED, np.array([2, 1, 2]), history).tolist() == [1, 1, 2]


def test_rank_users_ignores_padding_and_repeats():
    targets = np.array([7, 5, 3])
    batches = [
        {"example_index": np.array([2, 0])},
        {"example_index": np.array([1, -1])},
        {"example_index": np.array([0, -1])},
    ]
    seen = []
    result = rank_users(
        lambda batch: RANKED[np.maximum(batch["example_index"], 0)],
        batches,
        targets,
        on_batch=seen.append,
    )
    assert result.index.tolist() == [0, 1, 2] and result.ranks.tolist() == [3, 3, 1]
    assert seen == [2, 3, 3]
    assert result.figures()["hr@1"] == pytest.approx(1 / 3)
    assert result.figures()["ndcg@5"] == pytest.approx((1 + 0.5 + 0.5) / 3)
    interval = result.intervals()["hr@1"]
    assert interval.low < 1 / 3 < interval.high
    with pytest.raises(ValueError, match="no example"):
        rank_users(lambda batch: RANKED, [], targets)


def test_the_sample_of_users_is_fixed():
    one, two = sample_examples(100, 10, seed=1), sample_examples(100, 10, seed=1)
    assert one.tolist() == two.tolist() == sorted(set(one.tolist())) and len(one) == 10
    assert sample_examples(100, 10, seed=2).tolist() != one.tolist()
    assert sample_examples(5, None).tolist() == sample_examples(5, 9).tolist() == [0, 1, 2, 3, 4]
