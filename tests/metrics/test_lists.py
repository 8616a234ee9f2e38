"""Coverage and popularity of lists by plain loops; lists that make no sense are refused."""

import numpy as np
import pytest

from ilm_jax.metrics import lists
from tests.metrics.test_ranking import ITEMS, random_rankings

COUNTS = np.random.Generator(np.random.Philox(3)).integers(0, 50, ITEMS)


@pytest.mark.parametrize("k", [1, 10])
def test_coverage_and_popularity_equal_plain_loops(k):
    ranked, histories = random_rankings(300)
    shown = [[i for i in row[:k] if i != -1] for row in ranked.tolist()]
    assert lists.coverage(ranked, ITEMS, k) == len(set().union(*shown)) / ITEMS
    popularity = [np.mean([COUNTS[i] for i in row]) if row else np.nan for row in shown]
    np.testing.assert_allclose(lists.popularity(ranked, COUNTS, k), popularity)
    lift = [p / np.mean(COUNTS[h]) - 1 for p, h in zip(popularity, histories, strict=True)]
    np.testing.assert_allclose(lists.popularity_bias(ranked, histories, COUNTS, k), lift)
    assert np.isnan(popularity).any()


def test_lists_as_popular_as_the_history_have_no_bias():
    histories = [np.array([3, 4]), np.array([5])]
    bias = lists.popularity_bias(np.array([[4, 3], [5, -1]]), histories, COUNTS, 2)
    np.testing.assert_allclose(bias, 0, atol=1e-12)
    none = lists.popularity_bias(np.array([[4, 3]]), [np.array([], int)], COUNTS, 2)
    assert np.isnan(none).all()


def test_a_repeat_wins_nothing_and_keeps_its_place():
    ranked = np.array([[7, 7, 2, -1], [1, 2, 1, 2]])
    assert lists.repeats(ranked).tolist() == [[0, 1, 0, 0], [0, 0, 1, 1]]
    ranks = lists.ranks_of(ranked, [np.array([7, 2, 7]), np.array([9])])
    np.testing.assert_array_equal(ranks, [[1, 3], [np.inf, np.nan]])


@pytest.mark.parametrize(
    "ranked, relevant, message",
    [
        ([[1, -1, 2]], [[1]], "only its end"),
        ([[1, -2]], [[1]], "where they are too short"),
        ([[1.0, 2.0]], [[1]], "integers"),
        ([1, 2], [[1]], "integers"),
        ([[1, 2]], [[1], [2]], "1 lists and relevant items of 2"),
        ([[1, 2]], [[]], "no relevant item"),
    ],
)
def test_lists_that_make_no_sense_are_refused(ranked, relevant, message):
    with pytest.raises(ValueError, match=message):
        lists.ranks_of(np.array(ranked), [np.array(items, int) for items in relevant])
