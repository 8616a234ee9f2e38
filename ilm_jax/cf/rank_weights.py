"""Curves through which losses use ranks, and what an estimated rank does to them.

WARP weighs a positive by Phi(k), k = r - 1 the number of its violators (Weston, Bengio and Usunier
2011): the harmonic number, for real k  Phi(k) = psi(k + 1) + gamma, concave and rising from 0.
LambdaRank weighs by the discount of NDCG at a cut-off K, D(r) = [r <= K] / log2(1 + r) (Burges
2010). Neither is linear, so an unbiased rank gives a biased weight. With N negatives, m draws,
p = (r - 1) / N, V ~ Binomial(m, p), k^ = N V / m, r^ = 1 + k^, c = N / m (m > N is allowed):

**Phi, bias.**  E Phi(k^) - Phi(k) lies between
  -( (1-p)^m Phi(k) + 2(1-p)/(mp) * (1 + (1-p)/((m+1)p)) ) and 0.
  The right side is Jensen's inequality. For the left, -Phi''(x) < 1/(x+1/2)^2, so that what the
  tangent at k lies above Phi by is at most the same of log(x + 1/2), which with
  d = (k^ - k)/(k + 1/2) is d - log(1 + d) <= d^2/(1 + d) = (k^ - k)^2 / ((k + 1/2)(k^ + 1/2)).
  For V >= 1, k^ + 1/2 >= c(V + 1)/2; E[(V - mp)^2/(V + 1)] <= (1-p) + (1-p)^2/((m+1)p), because
  E[g(V)/(V + 1)] = E[g(W - 1); W >= 1] / ((m+1)p) with W ~ Binomial(m+1, p). At V = 0, which has
  probability (1-p)^m, the tangent lies above by Phi(k) - k Phi'(k) <= Phi(k). Add, with
  c/(k + 1/2) <= 1/(mp).
**Phi, variance.**  Var Phi(k^) <= mp (1-p)^m Phi(c)^2 + 6(1-p)/((m+1)p).
  Efron and Stein: Var f(V) <= m p (1-p) E[(f(V' + 1) - f(V'))^2], V' ~ Binomial(m-1, p).
  Phi'(x) < 1/(x + 1/2) bounds the step by 1/V' for V' >= 1 (it is Phi(c) at 0);
  1/v^2 <= 6/((v+1)(v+2)), and E[1/((V'+1)(V'+2))] <= 1/(m(m+1)p^2).
**D without cut-off, bias.**  0 <= E D(r^) - D(r) <= e^{-mp/8} + 1/2 D''(1 + k/2) k(N-k)/m.
  D is convex (Jensen). Where k^ >= k/2, Taylor with D'' falling; elsewhere the difference from the
  tangent is below 1, and Chernoff gives P(V <= mp/2) <= e^{-mp/8}.
**D, mean square.**  E (D(r^) - D(r))^2 <= e^{-mp/8} + D'(1 + k/2)^2 k(N-k)/m, by the same split;
  it bounds the variance too.
**The cut-off.**  r^ and r fall on different sides of K with probability at most
  t = exp(-m KL(q, p)), where q = (K-1)/N and KL is that of two coins (Chernoff). For r <= K the
  bias lies in [-t / log2(1 + K), the bound above]; for r > K in [0, t]. The variance gains at most
  t.

All are small once m p, the expected number of violators in the sample, is large, and say nothing
when it is below 1: then no function of V tells ranks apart. `moments` sums the binomial exactly;
the tests hold the bounds against it.

Uncorrected (r~ = 1 + V) the weights are Phi(V) and D(1 + V): the first is near Phi(k) - log(N/m),
the second holds r~ <= K for nearly every positive as soon as m p < K - 1, so that the cut-off does
nothing.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import scipy.special
import scipy.stats
from jax.scipy.special import digamma
from jaxtyping import Array, Float, Float64

Curve = Callable[[Float64[np.ndarray, " n"]], Float64[np.ndarray, " n"]]


def warp_weight(violators: Float[Array, "..."]) -> Float[Array, "..."]:
    """Phi(k) = psi(k + 1) + gamma: 1 + 1/2 + ... + 1/k at whole k."""
    return digamma(violators + 1.0) + np.euler_gamma


def ndcg_discount(rank: Float[Array, "..."], cutoff: float | None = None) -> Float[Array, "..."]:
    """D(r) = [r <= cutoff] / log2(1 + r); all ranks count without a cut-off.

    A rank above the cut-off by no more than a millionth of it counts as the cut-off: so far can
    three roundings of float32 carry an estimate.
    """
    discount = math.log(2.0) / jnp.log1p(rank)
    return discount if cutoff is None else jnp.where(rank <= cutoff * (1 + 1e-6), discount, 0.0)


class Moments(NamedTuple):
    """Of a weight at one rank: `mean` and `variance` over samples, `bias` = mean - exact weight."""

    mean: float
    bias: float
    variance: float


def moments(curve: Curve, rank: int, drawn: int, negatives: int, estimate: Curve) -> Moments:
    """Exact moments of curve(estimate(V)), V ~ Binomial(drawn, (rank - 1) / negatives).

    Args:
      curve: of ranks, such as `ndcg_discount`.
      rank: r, from 1 to negatives + 1.
      drawn: m.
      negatives: N.
      estimate: of the rank from counts V.
    """
    counts = np.arange(drawn + 1.0)
    chance = scipy.stats.binom.pmf(counts, drawn, (rank - 1) / negatives)
    values = np.asarray(curve(estimate(counts)), np.float64)
    mean = float(chance @ values)
    exact = float(np.asarray(curve(np.array([float(rank)])), np.float64)[0])
    return Moments(mean, mean - exact, float(chance @ (values - mean) ** 2))


class Bounds(NamedTuple):
    """Of the bias of a weight, from below and above, and of its variance from above."""

    bias_low: float
    bias_high: float
    variance: float


def phi(k: Float64[np.ndarray, "..."] | float) -> Float64[np.ndarray, "..."]:
    """`warp_weight` in float64 on the host."""
    return scipy.special.digamma(np.asarray(k, np.float64) + 1.0) + np.euler_gamma


def warp_bounds(rank: int, drawn: int, negatives: int) -> Bounds:
    """Of Phi at the corrected rank, as derived in the module's header."""
    p, m = (rank - 1) / negatives, drawn
    if p == 0:
        return Bounds(0.0, 0.0, 0.0)
    none = (1 - p) ** m
    bias = none * phi(rank - 1) + 2 * (1 - p) / (m * p) * (1 + (1 - p) / ((m + 1) * p))
    step = phi(negatives / m)
    variance = m * p * none * step**2 + 6 * (1 - p) / ((m + 1) * p)
    return Bounds(-float(bias), 0.0, float(variance))


def ndcg_bounds(rank: int, drawn: int, negatives: int, cutoff: float | None = None) -> Bounds:
    """Of D at the corrected rank, as derived in the module's header."""
    p, m = (rank - 1) / negatives, drawn
    if p == 0:
        return Bounds(0.0, 0.0, 0.0)
    rare = math.exp(-m * p / 8)
    spread = (rank - 1) * (negatives + 1 - rank) / m
    at = 1 + (rank - 1) / 2
    log = math.log1p(at)
    slope = math.log(2) / ((1 + at) * log**2)
    curvature = math.log(2) / (1 + at) ** 2 * (1 / log**2 + 2 / log**3)
    bias, square = min(1.0, rare + curvature * spread / 2), min(1.0, rare + slope**2 * spread)
    if cutoff is None:
        return Bounds(0.0, bias, square)
    other_side = math.exp(-m * _divergence(min(1.0, (cutoff - 1) / negatives), p))
    if rank > cutoff:
        return Bounds(0.0, other_side, other_side)
    return Bounds(-other_side / math.log2(1 + cutoff), bias, min(1.0, square + other_side))


def _divergence(q: float, p: float) -> float:
    """KL(q, p) of two coins, in nats."""
    return float(scipy.special.rel_entr(q, p) + scipy.special.rel_entr(1 - q, 1 - p))
