"""The distribution of users' full ranks, estimated from their counts of violators.

Of a user's m draws V ~ Binomial(m, p) score at least as high as the target, and the users' p follow
an unknown distribution g over a grid of ranks; the mean of a metric is values . g. Counts are
likely under many g whose means differ, so that no one of them says what is known. The profile
likelihood does: the range of values . g over every g whose log-likelihood is within chi2_1(.95) / 2
= 1.92 of the highest. Both ends are found by Newton steps on the simplex, each a problem of
non-negative least squares (Wang 2007), and a root in values . g.
"""

import numpy as np
import scipy.optimize
import scipy.special
import scipy.stats
from jaxtyping import Float64

_TIE = 1e3
"""Weight of the equations on g beside the rows of the likelihood, in least squares."""


def rank_grid(population: float, points: int = 200) -> Float64[np.ndarray, " ranks"]:
    """Whole ranks from 1 to N + 1: all of the first, then ever wider apart."""
    spaced = np.round(np.geomspace(1, population + 1, points))
    return np.unique(np.concatenate([np.arange(1.0, min(21, population + 2)), spaced]))


def binomial(
    drawn: int, chances: Float64[np.ndarray, " ranks"]
) -> Float64[np.ndarray, "counts ranks"]:
    """Probability of each count from 0 to `drawn`, for each chance p."""
    counts, log = np.arange(drawn + 1)[:, None], scipy.special.gammaln
    ways = log(drawn + 1) - log(counts + 1) - log(drawn - counts + 1)
    met = scipy.special.xlogy(counts, chances)
    return np.exp(ways + met + scipy.special.xlog1py(drawn - counts, -chances))


def smooth_distribution(
    histogram: Float64[np.ndarray, " counts"],
    likely: Float64[np.ndarray, "counts ranks"],
    ranks: Float64[np.ndarray, " ranks"],
    steps: int = 100,
) -> Float64[np.ndarray, " ranks"]:
    """A g under which the counts are nearly likeliest, by expectation-maximisation.

    It starts from g ~ 1 / rank, which targets of a useful model follow roughly, and stops early on
    purpose: the likeliest g is a few spikes, whose NDCG@10 errs two to three times as far (p from
    Beta(.35, 3) and Beta(1, 20), N = 1999, m = 100, 2000 users, 12 seeds).
    """
    share = histogram / histogram.sum()
    found = np.gradient(np.log(ranks))
    found /= found.sum()
    for _ in range(steps):
        found = found * ((share / np.maximum(likely @ found, 1e-300)) @ likely)
        found /= found.sum()
    return found


def likeliest(
    histogram: Float64[np.ndarray, " counts"],
    likely: Float64[np.ndarray, "counts ranks"],
    start: Float64[np.ndarray, " ranks"],
    balance: Float64[np.ndarray, " ranks"],
) -> tuple[Float64[np.ndarray, " ranks"], float]:
    """(g under which the counts are likeliest, its log-likelihood), of those with balance . g = 0.

    Args:
      histogram: users of each count.
      likely: see `binomial`.
      start: a g with balance . g = 0 under which every count met is possible.
      balance: zeros admit every g.
    """
    users, likely = histogram[histogram > 0], likely[histogram > 0]
    root = np.sqrt(users)
    ties = np.stack([np.ones(len(start)), balance / max(np.abs(balance).max(), 1e-300)])
    ties *= _TIE * np.sqrt(users.sum())
    wanted = np.concatenate([2 * root, [ties[0, 0], 0.0]])
    found, expected = start, likely @ start
    height = float(users @ np.log(expected))
    for _ in range(100):
        # The log-likelihood to second order about `found` is -|rows @ g - 2 root|^2 / 2.
        rows = np.concatenate([likely * (root / expected)[:, None], ties])
        target = scipy.optimize.nnls(rows, wanted, maxiter=20 * len(start))[0]
        target /= target.sum()
        change = np.maximum(likely @ target / expected - 1, -1)
        slope, step, gain = float(users @ change), 2.0, -np.inf
        if slope < 1e-5:
            break
        with np.errstate(divide="ignore"):  # where a count met becomes impossible the gain is -inf
            while gain < 0.3 * step * slope and step > 1e-6:
                step /= 2
                gain = float(users @ np.log1p(step * change))
        if gain <= 0:
            break
        found, height = (1 - step) * found + step * target, height + gain
        expected = likely @ found
    return found, height


def mean_range(
    histogram: Float64[np.ndarray, " counts"],
    likely: Float64[np.ndarray, "counts ranks"],
    values: Float64[np.ndarray, " ranks"],
    level: float = 0.95,
) -> tuple[float, float]:
    """(lowest, highest) values . g by the profile likelihood; see the module's header."""
    if np.ptp(values) == 0:
        return float(values[0]), float(values[0])
    flat = np.full(len(values), 1 / len(values))
    best, height = likeliest(histogram, likely, flat, np.zeros(len(values)))
    cut, span = np.sqrt(scipy.stats.chi2.ppf(level, 1)), np.ptp(values)
    possible, middle = 0.99 * best + 0.01 * flat, float(best @ values)

    def excess(mean: float) -> float:
        """Root of twice the log-likelihood that is lost where values . g = mean, less the cut."""
        above = values > mean
        # Scaled on either side, the likeliest g becomes one of that mean.
        high, low = possible * above, possible * ~above
        sums = [[high.sum(), low.sum()], [high @ values, low @ values]]
        up, down = np.linalg.solve(sums, [1.0, mean])
        lost = height - likeliest(histogram, likely, up * high + down * low, values - mean)[1]
        return float(np.sqrt(max(0.0, 2 * lost)) - cut)

    ends = []
    for end in (float(values.min()), float(values.max())):
        inner, near = end + 1e-6 * (middle - end), middle + 1e-6 * (end - middle)
        if abs(end - middle) > 1e-6 * span and excess(inner) > 0:
            end = scipy.optimize.brentq(excess, near, inner, xtol=1e-5 * span, rtol=1e-4)
        ends.append(end)
    return ends[0], ends[1]
