"""Intervals cover the truth as often as they say, and verdicts are careful."""

import numpy as np
import pytest

from ilm_jax.evaluation.intervals import compare, mean_interval


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
