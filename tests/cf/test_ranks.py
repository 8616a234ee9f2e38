"""Estimated ranks: unbiased where they say so, and weights within their stated bounds."""

import itertools

import numpy as np
import pytest
import scipy.stats

from ilm_jax.cf import rank_weights, ranks
from ilm_jax.cf.rank_weights import phi

ITEMS = 3706
DRAWN = (10, 50, 100, 500, 1000)


def discount(cutoff: float | None):
    def curve(rank: np.ndarray) -> np.ndarray:
        return np.where(rank <= (cutoff or np.inf), 1 / np.log2(1 + rank), 0.0)

    return curve


@pytest.mark.parametrize("drawn", DRAWN)
def test_the_corrected_rank_is_right_on_average_over_samples_of_known_scores(drawn):
    """Mean over samples within 1 % of the true rank; negatives are drawn, not their counts."""
    draw = np.random.default_rng(drawn)
    scores = draw.normal(size=ITEMS)
    by_score = np.argsort(-scores)
    for rank in (100, 400, 1200, 3000):
        positive = by_score[rank - 1]
        above = np.delete(scores, positive) >= scores[positive]
        assert 1 + above.sum() == rank
        deviation = np.sqrt((rank - 1) * (ITEMS - rank) / drawn)
        samples = int(min((4 * deviation / (0.01 * rank)) ** 2, 2e7 / drawn) + 1)
        violators = np.zeros(samples, np.int64)
        for first in range(0, samples, 20_000):
            part = slice(first, min(first + 20_000, samples))
            size = part.stop - part.start
            violators[part] = above[draw.integers(ITEMS - 1, size=(size, drawn))].sum(1)
        mean = np.asarray(ranks.corrected_rank(violators, drawn, ITEMS - 1), np.float64).mean()
        error = 4 * deviation / np.sqrt(samples) / rank
        assert abs(mean / rank - 1) < max(0.01, error)
        raw = np.asarray(ranks.sampled_rank(violators), np.float64).mean()
        assert raw < 0.4 * rank  # what is corrected


def test_means_and_variances_are_those_of_the_derivation():
    prior = ranks.Prior(0.4, 2.5)
    for rank, drawn in itertools.product((1, 2, 11, 300, 3706), DRAWN):
        negatives, p = ITEMS - 1, (rank - 1) / (ITEMS - 1)
        counts = np.arange(drawn + 1)
        chance = scipy.stats.binom.pmf(counts, drawn, p)

        def exact(values, chance=chance):
            values = np.asarray(values, np.float64)
            mean = chance @ values
            return mean, chance @ (values - mean) ** 2

        mean, variance = exact(ranks.sampled_rank(counts))
        assert mean == pytest.approx(1 + drawn * p)
        mean, corrected = exact(ranks.corrected_rank(counts, drawn, negatives))
        assert mean == pytest.approx(rank, rel=1e-5)
        assert corrected == pytest.approx((rank - 1) * (ITEMS - rank) / drawn, rel=1e-4, abs=1e-6)
        mean, shrunk = exact(ranks.shrunk_rank(counts, drawn, negatives, prior))
        total = drawn + prior.a + prior.b
        assert mean == pytest.approx(1 + negatives * (drawn * p + prior.a) / total, rel=1e-5)
        assert shrunk == pytest.approx(corrected * (drawn / total) ** 2, rel=1e-3, abs=1e-6)


def test_shrunk_ranks_have_the_least_squared_error_under_their_prior():
    draw = np.random.default_rng(0)
    p = draw.beta(0.5, 4.0, 60_000)
    rank = 1 + p * (ITEMS - 1)
    for drawn in (10, 100):
        violators = draw.binomial(drawn, p)
        errors = {
            how: np.mean(
                (
                    np.asarray(
                        ranks.estimated_rank(how, violators, np.full(len(p), drawn), ITEMS - 1)
                    )
                    - rank
                )
                ** 2
            )
            for how in ("sampled", "corrected", "shrunk")
        }
        assert errors["shrunk"] < errors["corrected"] < errors["sampled"]
        a, b = ranks.fit_prior(violators, np.full(len(p), drawn))
        assert float(a) == pytest.approx(0.5, rel=0.1) and float(b) == pytest.approx(4.0, rel=0.1)
    with pytest.raises(ValueError, match="no rank estimate"):
        ranks.estimated_rank("best", 1, 2, 3)
    with pytest.raises(ValueError, match="positive"):
        ranks.Prior(0.0, 1.0)


def test_every_sample_of_all_negatives_gives_the_full_rank():
    counts = np.arange(ITEMS)
    for negatives in (ITEMS - 1, 35, 273, 49_999):
        found = ranks.corrected_rank(counts, negatives, negatives)
        np.testing.assert_array_equal(found, 1 + counts)


@pytest.mark.parametrize("cutoff", [10, 50, 100])
def test_rounding_never_carries_an_estimate_of_the_cutoff_past_it(cutoff):
    """1 + N V / m = K has the discount of K, and the least larger estimate has none."""
    drawn, negatives = np.meshgrid(np.arange(20, 1000), np.arange(20, 4001, 7))
    whole = (cutoff - 1) * drawn % negatives == 0
    drawn, negatives = drawn[whole], negatives[whole]
    for more in (0, 1):
        violators = (cutoff - 1) * drawn // negatives + more
        rank = ranks.corrected_rank(violators, drawn, negatives)
        expected = 0.0 if more else 1 / np.log2(1 + cutoff)
        found = rank_weights.ndcg_discount(rank, cutoff)
        np.testing.assert_allclose(found, np.full(len(drawn), expected), rtol=1e-5)
    assert len(drawn) > 500


def positions(negatives: int) -> np.ndarray:
    shares = np.array([0.005, 0.01, 0.02, 0.05, 0.1, 0.3, 0.6, 0.9, 0.99, 1.0])
    first = np.array([1, 2, 3, 5, 10, 11, 12, 20, 50])
    found = np.unique(np.append(first, 1 + (negatives * shares).astype(int)))
    return found[found <= negatives + 1]


@pytest.mark.parametrize("negatives", [5, 50, 500, 3705, 60_000])
def test_bias_and_variance_of_the_weights_are_within_their_bounds(negatives):
    """More draws than negatives included."""
    checked = 0
    for drawn in DRAWN:

        def estimate(counts, drawn=drawn):
            return 1 + negatives * counts / drawn

        cases = [(lambda r: phi(r - 1), rank_weights.warp_bounds)]
        for cutoff in (None, 5, 10, 100):
            cases.append(
                (
                    discount(cutoff),
                    lambda r, m, n, cutoff=cutoff: rank_weights.ndcg_bounds(r, m, n, cutoff),
                )
            )
        for rank in positions(negatives):
            for curve, bounds in cases:
                found = rank_weights.moments(curve, int(rank), drawn, negatives, estimate)
                bound = bounds(int(rank), drawn, negatives)
                assert bound.bias_low - 1e-9 <= found.bias <= bound.bias_high + 1e-9
                assert found.variance <= bound.variance + 1e-9
                checked += 1
    assert checked > 100


def test_the_bounds_are_of_use_once_the_sample_holds_many_violators():
    """At 50 expected violators Phi is off by under 5 % of itself, and so says the bound."""
    bound = rank_weights.warp_bounds(rank=371, drawn=500, negatives=3705)
    assert -bound.bias_low < 0.05 * phi(370) and bound.variance < 0.12
    bound = rank_weights.ndcg_bounds(rank=2000, drawn=500, negatives=3705)
    assert bound.bias_high < 0.01 and bound.variance < 1e-3


def test_weights_equal_their_definitions():
    k = np.arange(0, 40)
    harmonic = np.concatenate([[0.0], np.cumsum(1 / np.arange(1.0, 40))])
    np.testing.assert_allclose(rank_weights.warp_weight(k.astype(np.float32)), harmonic, atol=1e-5)
    np.testing.assert_allclose(phi(k), harmonic)
    rank = np.arange(1.0, 30)
    np.testing.assert_allclose(rank_weights.ndcg_discount(rank, 10), discount(10)(rank), atol=1e-6)
