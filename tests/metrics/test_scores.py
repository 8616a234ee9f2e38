"""AUC, UAUC, RMSE, MAE and rank correlation equal scipy's or plain pairs, ties included."""

import math

import numpy as np
import pytest
import scipy.stats

from ilm_jax.metrics import scores


def draw_of(seed):
    return np.random.Generator(np.random.Philox(seed))


def plain_auc(labels, given):
    """Every pair of a positive and a negative; a tie is half a win."""
    wins = [
        1.0 if p > n else 0.5 if p == n else 0.0
        for p in given[labels == 1]
        for n in given[labels == 0]
    ]
    return sum(wins) / len(wins) if wins else math.nan


def test_a_thousand_random_rankings_have_the_auc_of_all_pairs():
    draw = draw_of(0)
    one_sided = 0
    for case in range(1000):
        size = int(draw.integers(1, 25))
        labels = draw.integers(0, 2, size)
        given = draw.integers(0, 5, size) if case % 2 else draw.normal(size=size)
        expected = plain_auc(labels, given)
        one_sided += math.isnan(expected)
        assert scores.auc(labels, given) == pytest.approx(expected, nan_ok=True)
    assert one_sided > 10
    assert scores.auc(np.array([0, 1, 1]), np.zeros(3)) == 0.5


def test_auc_by_user_is_each_users_own_and_leaves_one_sided_users_out():
    draw = draw_of(1)
    users, labels = draw.integers(0, 40, 300), draw.integers(0, 2, 300)
    given = draw.integers(0, 6, 300).astype(float)
    labels[users == 7] = 1
    found = scores.auc_by_user(labels, given, users)
    assert 7 not in found.users and len(found.users) > 30
    for user, value, rows in zip(*found, strict=True):
        own = users == user
        assert value == pytest.approx(plain_auc(labels[own], given[own])) and rows == own.sum()
    assert scores.uauc(labels, given, users) == pytest.approx(found.values.mean())
    assert math.isnan(scores.uauc(np.ones(3, int), np.zeros(3), np.zeros(3, int)))


def test_rank_correlation_equals_scipys_with_ties():
    draw = draw_of(2)
    for size in (2, 3, 10, 100):
        first, second = draw.integers(0, 8, size), draw.integers(0, 8, size)
        first[0], second[0] = 99, 98  # no constant side
        expected = scipy.stats.spearmanr(first, second).statistic
        assert scores.rank_correlation(first, second) == pytest.approx(expected)
    assert math.isnan(scores.rank_correlation(np.zeros(5), np.arange(5)))
    np.testing.assert_allclose(
        scores.behavioural_consistency([np.arange(4), np.ones(3)], [-np.arange(4), np.arange(3)]),
        [-1, np.nan],
    )
    np.testing.assert_allclose(scores.mid_ranks(np.array([5, 1, 5, 9])), [2.5, 1, 2.5, 4])


def test_rmse_and_mae_by_hand():
    predicted, ratings = np.array([1.0, 2.0, 5.0]), np.array([2.0, 2.0, 3.0])
    assert scores.rmse(predicted, ratings) == pytest.approx(math.sqrt(5 / 3))
    assert scores.mae(predicted, ratings) == pytest.approx(1.0)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: scores.auc(np.array([0, 2]), np.zeros(2)), "threshold ratings first"),
        (lambda: scores.auc(np.array([0, 1]), np.array([0, np.nan])), "finite"),
        (lambda: scores.auc(np.array([0, 1]), np.zeros(3)), "one each"),
        (lambda: scores.uauc(np.array([0, 1]), np.zeros(2), np.zeros(3)), "one each"),
        (lambda: scores.rmse(np.zeros(2), np.zeros(3)), "one each"),
        (lambda: scores.behavioural_consistency([np.zeros(2)], []), "one each"),
    ],
)
def test_wrong_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
