"""Estimates of a full-catalogue rank from a sample of negatives.

An item's full rank among N negatives is r = 1 + #{j : s_j >= s_i} = 1 + N p, where p is the share
of the negatives that score at least as high. Draw m negatives uniformly with replacement and count
V, those among them that score at least as high. Each draw is one of the r - 1 with probability p,
independently, hence

    V | r ~ Binomial(m, p),   p = (r - 1) / N,   E[V] = m p,   Var[V] = m p (1 - p).

Sampled rank        1 + V           has mean 1 + m (r - 1) / N: too small by the factor m / N.
Corrected rank      1 + N V / m     has mean r for every r and m: unbiased, and the only function of
    V that is (the binomial family is complete in p). Its variance is
    N^2 p (1 - p) / m = (r - 1)(N + 1 - r) / m.
Shrunk rank         1 + N (V + a) / (m + a + b)     is the posterior mean when p ~ Beta(a, b), since
    p | V ~ Beta(a + V, b + m - V). Its mean is 1 + N (m p + a) / (m + a + b), so that its bias is
    N (a - p (a + b)) / (m + a + b), and its variance is the corrected rank's times
    (m / (m + a + b))^2 < 1. Averaged over its prior no estimate has a smaller squared error.
    `fit_prior` takes a and b from the counts themselves: with mu = E[p] and q = E[p^2],
    E[V] = m mu and E[V (V - 1)] = m (m - 1) q, and of a Beta a + b = (mu - q) / (q - mu^2).

Drawn without replacement V is hypergeometric: the same means, and variances that are
(N - m) / (N - 1) of these. Uniform draws from the whole catalogue of which the positives are
discarded are uniform over the negatives given how many remain, and m is that number.

The problem and the idea of correcting the rank instead of the sampling are of Subbiah, Rendle and
Aggarwal, "Improved Estimation of Ranks for Learning Item Recommenders with Negative Sampling"
(arXiv 2410.06371). The formulas here are derived above and not taken from there.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

Number = Float[Array, "..."] | Int[Array, "..."] | np.ndarray | float


def sampled_rank(violators: Number) -> Float[Array, "..."]:
    """1 + V: the rank among the sample, which is too small by about m / N."""
    return 1.0 + jnp.asarray(violators, jnp.float32)


def corrected_rank(violators: Number, drawn: Number, negatives: Number) -> Float[Array, "..."]:
    """1 + N V / m, unbiased.

    Args:
      violators: V, drawn negatives that score at least as high.
      drawn: m; where it is 0 the rank is unknown, and 1 is returned.
      negatives: N, from which was drawn.
    """
    # N / m first: V / m rounds, so that N (V / m) can miss V where m = N.
    scale = jnp.asarray(negatives, jnp.float32) / jnp.maximum(drawn, 1)
    return 1.0 + jnp.asarray(violators, jnp.float32) * scale


@dataclasses.dataclass(frozen=True)
class Prior:
    """Beta(a, b) over the share p of the negatives that score at least as high as a positive.

    Attributes:
      a, b: positive; Beta(1, 1) is uniform over ranks, a small `a` expects positives at the top.
    """

    a: float = 1.0
    b: float = 1.0

    def __post_init__(self) -> None:
        if not (self.a > 0 and self.b > 0):
            raise ValueError(f"Beta({self.a}, {self.b}): both must be positive")


def shrunk_rank(
    violators: Number, drawn: Number, negatives: Number, prior: Prior | tuple[Number, Number]
) -> Float[Array, "..."]:
    """1 + N (V + a) / (m + a + b): of lower variance and, under its prior, of least squared error.

    Args:
      violators, drawn, negatives: as in `corrected_rank`.
      prior: a `Prior`, or a and b (of `fit_prior`).
    """
    a, b = (prior.a, prior.b) if isinstance(prior, Prior) else prior
    share = (jnp.asarray(violators, jnp.float32) + a) / (drawn + a + b)
    return 1.0 + jnp.asarray(negatives) * share


def fit_prior(violators: Number, drawn: Number) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """a and b by the method of moments over many positives; see the module's header.

    Where the counts vary no more than binomials of one p would, the prior is narrow: a + b is kept
    in [0.01, 1e4], and the mean in [1e-6, 1 - 1e-6].

    Args:
      violators, drawn: V and m of every positive; those with m < 2 do not count.
    """
    v, m = jnp.asarray(violators, jnp.float32), jnp.asarray(drawn, jnp.float32)
    counts = m >= 2
    total = jnp.maximum(counts.sum(), 1)
    mean = jnp.where(counts, v / jnp.maximum(m, 1), 0).sum() / total
    mean = jnp.clip(mean, 1e-6, 1 - 1e-6)
    square = jnp.where(counts, v * (v - 1) / jnp.maximum(m * (m - 1), 1), 0).sum() / total
    strength = (mean - square) / jnp.maximum(square - mean**2, 1e-9)
    strength = jnp.clip(strength, 0.01, 1e4)
    return mean * strength, (1 - mean) * strength


def estimated_rank(
    how: str,
    violators: Number,
    drawn: Number,
    negatives: Number,
    prior: Prior | tuple[Number, Number] | None = None,
) -> Float[Array, "..."]:
    """One of the three by name.

    Args:
      how: "sampled", "corrected" or "shrunk".
      violators, drawn, negatives: as in `corrected_rank`.
      prior: of "shrunk"; fitted to these counts if None.

    Raises:
      ValueError: for another name.
    """
    if how == "sampled":
        return sampled_rank(violators)
    if how == "corrected":
        return corrected_rank(violators, drawn, negatives)
    if how == "shrunk":
        if prior is None:
            prior = fit_prior(*jnp.broadcast_arrays(violators, drawn))
        return shrunk_rank(violators, drawn, negatives, prior)
    raise ValueError(f"no rank estimate {how!r}; choose 'sampled', 'corrected' or 'shrunk'")
