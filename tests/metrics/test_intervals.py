"""Intervals cover the truth as often as they say, and verdicts are careful."""

import numpy as np
import pytest
import scipy.stats

from ilm_jax.metrics import scores
from ilm_jax.metrics.intervals import compare, interval_over_users, mean_interval


def plausible(covered, runs, level):
    """Whether so many of `runs` intervals may cover the truth if each does with P(level).

    An honest level fails here once in 10,000 seeds, and the seeds are fixed.
    """
    low, high = scipy.stats.binom.interval(0.9999, runs, level)
    return low <= covered <= high


@pytest.mark.parametrize("level", [0.8, 0.95])
@pytest.mark.parametrize("hits", ["often", "seldom"])
def test_intervals_of_ranking_figures_cover_the_truth_at_their_nominal_rate(level, hits):
    """HR@k and NDCG-like values: zeros with a few gains, of 400 users."""
    draw = np.random.Generator(np.random.Philox(21))
    share, runs, covered = {"often": 0.5, "seldom": 0.1}[hits], 500, 0
    gains = 1 / np.log2(1 + np.arange(1, 11))
    truth = share * gains.mean()
    for run in range(runs):
        values = (draw.random(400) < share) * gains[draw.integers(10, size=400)]
        interval = mean_interval(values, level=level, samples=400, seed=run)
        covered += interval.low <= truth <= interval.high
    assert plausible(covered, runs, level), covered / runs
    assert not plausible(covered, runs, level - 0.1)  # the test would notice


def test_intervals_over_users_cover_where_rows_of_a_user_belong_together():
    """Every user has a bias of its own: resampling rows alone would be far too sure."""
    draw = np.random.Generator(np.random.Philox(22))
    runs, covered, fooled = 150, 0, 0
    users = np.repeat(np.arange(40), 5)
    for run in range(runs):
        errors = np.repeat(draw.normal(size=40), 5) + 0.3 * draw.normal(size=200)

        def figure(rows, errors=errors):
            return float(errors[rows].mean())

        interval = interval_over_users(figure, users, level=0.9, samples=150, seed=run)
        covered += interval.low <= 0 <= interval.high
        blind = interval_over_users(figure, np.arange(200), level=0.9, samples=150, seed=run)
        fooled += blind.low <= 0 <= blind.high
    assert plausible(covered, runs, 0.89), covered / runs  # 40 users: a little narrow
    assert not plausible(fooled, runs, 0.89), fooled / runs


def test_auc_and_rmse_have_intervals_over_users():
    draw = np.random.Generator(np.random.Philox(23))
    labels, users = draw.integers(0, 2, 300), draw.integers(0, 50, 300)
    given = labels + draw.normal(size=300)
    interval = interval_over_users(lambda r: scores.auc(labels[r], given[r]), users, samples=200)
    assert interval.mean == scores.auc(labels, given) and interval.units == len(np.unique(users))
    assert 0.5 < interval.low < interval.mean < interval.high < 1
    root = interval_over_users(lambda r: scores.rmse(given[r], labels[r]), users, samples=200)
    assert root.low < scores.rmse(given, labels) < root.high
    with pytest.raises(ValueError, match="metric of all 2 rows"):
        interval_over_users(lambda r: scores.auc(np.ones(2), np.ones(2)), np.arange(2))
    with pytest.raises(ValueError, match="no row"):
        interval_over_users(lambda r: 0.0, np.array([], int))


@pytest.mark.parametrize("units", [6, 80])
def test_intervals_cover_the_true_ratio_as_often_as_they_say(units):
    """Skewed nll sums with token counts as weights, both below and above the change of method."""
    draw = np.random.default_rng(units)
    covered = 0
    runs = 600
    for _ in range(runs):
        tokens = draw.integers(20, 60, units)
        values = tokens * draw.gamma(8.0, 0.25, units)
        interval = mean_interval(values, tokens, samples=300)
        covered += interval.low <= 2.0 <= interval.high
    # 95 % +- 4 standard errors of 600 runs, and what skew costs below.
    assert 0.90 < covered / runs < 0.985


def test_equal_models_are_rarely_told_apart_and_unequal_ones_are():
    draw = np.random.default_rng(0)
    told = 0
    for _ in range(300):
        user = draw.normal(size=60)
        found = compare(
            "a", user + draw.normal(size=60), "b", user + draw.normal(size=60), samples=300
        )
        told += found.verdict != "undecided"
    assert told / 300 < 0.09
    user = 100 * draw.normal(size=200)
    better = user + draw.normal(size=200) - 1.0
    assert compare("a", better, "b", user).verdict == "a below b"
    assert compare("b", user, "a", better).verdict == "a below b"


def test_same_seed_same_bounds_and_weights_are_tokens():
    values, tokens = np.arange(40.0), np.full(40, 2)
    one, two = mean_interval(values, tokens, seed=1), mean_interval(values, tokens, seed=1)
    assert one == two != mean_interval(values, tokens, seed=2)
    assert one.mean == values.mean() / 2


def test_identical_models_and_a_single_unit_are_undecided():
    values = np.linspace(0, 1, 50)
    same = compare("a", values, "b", values)
    assert same.verdict == "undecided" and same.p_value == 1.0
    single = compare("a", np.array([1.0]), "b", np.array([2.0]))
    assert single.verdict == "undecided" and single.difference.low == -np.inf


def test_a_constant_difference_is_decided():
    values = np.linspace(0, 1, 5)
    assert compare("a", values + 1, "b", values).verdict == "b below a"


def test_units_that_do_not_pair_are_refused():
    with pytest.raises(ValueError, match="same units"):
        compare("a", np.zeros(3), "b", np.zeros(4))
    with pytest.raises(ValueError, match="finite"):
        mean_interval(np.array([0.0, np.nan]))
    with pytest.raises(ValueError, match="positive in sum"):
        mean_interval(np.zeros(3), np.zeros(3))


@pytest.mark.parametrize("units", [2, 5, 29])
def test_with_few_units_the_interval_is_students_own(units):
    values = np.random.Generator(np.random.Philox(units)).normal(1.0, 2.0, units)
    found = mean_interval(values, level=0.9)
    test = scipy.stats.ttest_1samp(values, 0.0)
    want = test.confidence_interval(0.9)
    assert found.method == "t" and found.mean == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx((want.low, want.high))
    zero = np.zeros(units)
    assert compare("a", values, "b", zero).p_value == pytest.approx(test.pvalue)


def test_a_ratio_is_linearised_about_its_estimate():
    """By the delta method: the error is that of (value - ratio * weight) over the mean weight."""
    draw = np.random.Generator(np.random.Philox(8))
    weights = draw.integers(5, 40, 12).astype(float)
    values = weights * (2 + draw.normal(size=12))
    ratio = values.sum() / weights.sum()
    error = np.std(values - ratio * weights, ddof=1) / np.sqrt(12) / weights.mean()
    half = scipy.stats.t.ppf(0.975, 11) * error
    found = mean_interval(values, weights)
    assert (found.mean, found.low, found.high) == pytest.approx((ratio, ratio - half, ratio + half))


@pytest.mark.parametrize("level", [0.8, 0.95])
def test_the_bootstraps_bounds_are_quantiles_of_resampled_ratios(level):
    """Far more samples, drawn here by another generator, have these quantiles."""
    draw = np.random.Generator(np.random.Philox(9))
    weights = draw.integers(1, 30, 60).astype(float)
    values = weights * draw.exponential(size=60)
    found = mean_interval(values, weights, level=level, samples=20_000)
    drawn = np.random.default_rng(1).integers(60, size=(20_000, 60))
    ratios = values[drawn].sum(1) / weights[drawn].sum(1)
    want = np.quantile(ratios, [(1 - level) / 2, (1 + level) / 2])
    np.testing.assert_allclose([found.low, found.high], want, rtol=0.01)
