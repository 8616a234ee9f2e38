"""Ranking metrics against values worked out by hand, and against a plain program on random lists.

The plain program below walks each list as the definitions are written; nothing of the library is
in it.
"""

import math

import numpy as np
import pytest

from ilm_jax.metrics import lists
from ilm_jax.metrics.ranking import (
    MISSED,
    hit_rate,
    ndcg,
    per_user,
    rank_of_target,
    recall,
    reciprocal_rank,
)

RANKS = np.array([1, 3, 10, 11, MISSED])
ITEMS = 30


def test_values_by_hand():
    assert hit_rate(RANKS, 10).tolist() == [1, 1, 1, 0, 0]
    np.testing.assert_allclose(ndcg(RANKS, 10), [1, 0.5, 1 / np.log2(11), 0, 0])
    np.testing.assert_allclose(reciprocal_rank(RANKS), [1, 1 / 3, 0.1, 1 / 11, 0])
    np.testing.assert_allclose(reciprocal_rank(RANKS, 10), [1, 1 / 3, 0.1, 0, 0])


def test_names_of_all_metrics():
    assert list(per_user(RANKS)) == [
        "hr@1",
        "ndcg@1",
        "hr@5",
        "ndcg@5",
        "hr@10",
        "ndcg@10",
        "mrr@10",
    ]
    np.testing.assert_array_equal(per_user(RANKS)["hr@1"], per_user(RANKS)["ndcg@1"])
    several = per_user(np.array([[1, 4, MISSED], [2, np.nan, np.nan]]), (2,))
    assert list(several) == ["hr@2", "recall@2", "ndcg@2", "mrr@2"]
    np.testing.assert_allclose(several["recall@2"], [1 / 3, 1])


def test_ranks_below_one_and_users_without_relevant_items_are_refused():
    for bad in ([0], [np.nan], [[1, 0]], [[2, 1], [np.nan, np.nan]]):
        with pytest.raises(ValueError, match="start at 1"):
            hit_rate(np.array(bad), 10)


def test_ties_count_against_the_target_and_history_is_no_candidate():
    scores = np.array([2.0, 1.0, 1.0, 3.0], np.float32)
    assert rank_of_target(scores, 1, np.array([], int)) == 4
    assert rank_of_target(scores, 1, np.array([3, 0])) == 2
    assert rank_of_target(scores, 1, np.array([1, 2, 3, 0])) == 1
    assert rank_of_target(np.zeros(100, np.float32), 7, np.array([], int)) == 100


def random_rankings(number=1000):
    """Lists of 0 to 12 items with repeats in some, and 1 to 5 relevant items of 30."""
    draw = np.random.Generator(np.random.Philox(11))
    ranked = np.full((number, 12), lists.EMPTY)
    relevant = []
    for row in range(number):
        length = draw.integers(0, 13)
        ranked[row, :length] = draw.choice(ITEMS, length, replace=bool(row % 3 == 0))
        relevant.append(draw.choice(ITEMS, draw.integers(1, 6), replace=False))
    return ranked, relevant


def plain(listed, relevant, k):
    """hr, recall, ndcg, reciprocal rank of one user, by the definitions."""
    relevant, gain, found, first, seen = set(relevant.tolist()), 0.0, 0, 0.0, set()
    for place, item in enumerate(listed.tolist(), 1):
        if item == -1:
            break
        if item in relevant and item not in seen:
            if place <= k:
                gain += 1 / math.log2(1 + place)
                found += 1
            first = first or 1 / place
        seen.add(item)
    ideal = sum(1 / math.log2(1 + place) for place in range(1, min(k, len(relevant)) + 1))
    return float(found > 0), found / len(relevant), gain / ideal, first


@pytest.mark.parametrize("k", [1, 3, 10, 20])
def test_a_thousand_random_rankings_equal_a_plain_program(k):
    ranked, relevant = random_rankings()
    ranks = lists.ranks_of(ranked, relevant)
    expected = np.array([plain(*pair, k) for pair in zip(ranked, relevant, strict=True)])
    found = [hit_rate(ranks, k), recall(ranks, k), ndcg(ranks, k), reciprocal_rank(ranks)]
    np.testing.assert_allclose(np.stack(found, 1), expected, rtol=1e-12)
    assert expected.mean(0).min() > 0.01 and (ranked[:, 0] == -1).any()


def test_one_relevant_item_may_be_given_without_a_second_axis():
    ranked, relevant = random_rankings(200)
    ranks = lists.ranks_of(ranked, [items[:1] for items in relevant])
    for one, other in zip(per_user(ranks[:, 0]).values(), _without_recall(ranks), strict=True):
        np.testing.assert_array_equal(one, other)


def _without_recall(ranks):
    return [v for name, v in per_user(ranks).items() if not name.startswith("recall")]


def test_a_thousand_full_rankings_with_ties_equal_a_sort():
    """Scores of few values, hence many ties: the target stands behind all that equal it."""
    draw = np.random.Generator(np.random.Philox(12))
    for _ in range(1000):
        scores = draw.integers(0, 4, ITEMS).astype(np.float32)
        target = int(draw.integers(ITEMS))
        masked = draw.choice(ITEMS, draw.integers(0, 9), replace=False)
        candidates = [i for i in range(ITEMS) if i == target or i not in set(masked.tolist())]
        candidates.sort(key=lambda i: (-scores[i], i == target))
        assert rank_of_target(scores, target, masked) == 1 + candidates.index(target)
