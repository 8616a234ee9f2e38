"""Ranking losses over sampled negatives: BPR, BCE, sampled softmax, WARP and LambdaRank.

Every loss takes the score s_i of a row's positive and the scores s_j of candidates S that the
whole batch shares, with the candidates that are no negatives of a row masked out; m counts those
that remain and N the negatives from which they were drawn.

    BPR              mean_j log(1 + exp(s_j - s_i))                          (Rendle et al. 2009)
    BCE              log(1 + exp(-s_i)) + k mean_j log(1 + exp(s_j)), what k negatives drawn for the
                     row alone give in expectation; k = 1 is SASRec's loss
                                                       (Kang and McAuley 2018, arXiv 1808.09781)
    sampled softmax  -log( e^{s_i} / (e^{s_i} + sum_j e^{s_j} / c_j) ), c_j the expected number of
                     times that j is among the candidates: its sum is then an unbiased estimate of
                     the full softmax's ("logQ correction"; Bengio and Senécal 2008)
    WARP             Phi(k) * mean_{j in V} (1 - s_i + s_j), V = {j : s_j > s_i - 1}, and k the
                     number of violators in the catalogue               (Weston et al. 2011)
    LambdaRank       mean_j |D(r_i) - D(r_j)| log(1 + exp(s_j - s_i)), D the discount of NDCG at a
                     cut-off                                            (Burges 2010)

Ranks come from the sample by `ilm_jax.cf.ranks`: "sampled" takes the rank among the sample for the
rank in the catalogue, "corrected" and "shrunk" estimate the latter (Subbiah et al. 2024,
arXiv 2410.06371, give the batch form and the idea of correcting it; the formulas are derived in
`ilm_jax.cf.ranks`). If S holds each negative once, "corrected" is the full rank. For a candidate j
the other m - 1 stand for the other N - 1 negatives, and the positive counts as one more above it:
r_j = 1 + (N - 1)/(m - 1) * #{l in S : s_l > s_j} + [s_i > s_j]. That is unbiased for candidates
drawn without replacement, and exact if they are all. Drawn with replacement the other m - 1 fall
anywhere among the N, so that N/(m - 1) would be unbiased: the count above j is estimated too low
by its N-th part.

The prior of "shrunk" ranks is fitted to the rows that are given, unless it is given too: rows that
are worked off in parts need the prior of all, from their counts (`violates`).

Phi(k), |D(r_i) - D(r_j)|, V and the mean's divisor are constants of the gradient.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32

from ilm_jax.cf.rank_weights import ndcg_discount, warp_weight
from ilm_jax.cf.ranks import estimated_rank

_MINUS = -1e30
Pair = tuple[Float[Array, ""], Float[Array, ""]]


class Scored(NamedTuple):
    """Scores of a batch of positives and of the candidates that it shares.

    Attributes:
      positive: of each row's positive item.
      candidates: of every candidate.
      valid: False where a candidate is no negative of the row (its own positive, or its history).
      negatives: N of each row, or one for all.
    """

    positive: Float[Array, " batch"]
    candidates: Float[Array, "batch drawn"]
    valid: Bool[Array, "batch drawn"]
    negatives: Float[Array, " batch"] | float

    @property
    def drawn(self) -> Float[Array, " batch"]:
        """m of each row."""
        return self.valid.sum(1).astype(jnp.float32)


def bpr(scored: Scored) -> Float32[Array, " batch"]:
    """Per row, as in the module's header; 0 where no candidate is valid."""
    return _mean(_log_loss(scored), scored.valid)


def bce(scored: Scored, negatives: float = 1.0) -> Float32[Array, " batch"]:
    """Per row; `negatives` is k: how many of them stand beside the positive."""
    positive = jax.nn.softplus(-scored.positive.astype(jnp.float32))
    others = jax.nn.softplus(scored.candidates.astype(jnp.float32))
    return positive + negatives * _mean(others, scored.valid)


def sampled_softmax(
    scored: Scored, log_expected: Float[Array, " drawn"]
) -> Float32[Array, " batch"]:
    """Per row; `log_expected` is log c_j, of how often each candidate is expected in the sample."""
    corrected = scored.candidates.astype(jnp.float32) - log_expected
    corrected = jnp.where(scored.valid, corrected, _MINUS)
    positive = scored.positive.astype(jnp.float32)
    everything = jnp.concatenate([positive[:, None], corrected], axis=1)
    return jax.nn.logsumexp(everything, axis=1) - positive


def violates(scored: Scored, margin: float | None) -> Bool[Array, "batch drawn"]:
    """Which negatives score above s_i - margin; for None (LambdaRank's count) at least s_i."""
    positive = scored.positive[:, None]
    if margin is None:
        return scored.valid & (scored.candidates >= positive)
    return scored.valid & (margin - positive + scored.candidates > 0)


def warp(
    scored: Scored, rank: str = "corrected", margin: float = 1.0, prior: Pair | None = None
) -> Float32[Array, " batch"]:
    """Per row; 0 where no candidate violates the margin.

    Args:
      scored: the batch.
      rank: how the number of violators in the catalogue is estimated: see `estimated_rank`.
      margin: a negative violates it that scores above s_i - margin.
      prior: a and b of "shrunk" ranks; fitted to these rows if None.

    Raises:
      ValueError: for an unknown `rank`.
    """
    gap = margin - scored.positive[:, None] + scored.candidates
    above = violates(scored, margin)
    k = estimated_rank(rank, above.sum(1), scored.drawn, scored.negatives, prior) - 1.0
    weight = jax.lax.stop_gradient(warp_weight(k))
    return weight * _mean(gap.astype(jnp.float32), above)


def lambdarank(
    scored: Scored,
    rank: str = "corrected",
    cutoff: int | None = None,
    prior: Pair | None = None,
) -> Float32[Array, " batch"]:
    """Per row; 0 where no candidate is valid.

    Args:
      scored: the batch.
      rank: how ranks are estimated: see `estimated_rank`.
      cutoff: K of NDCG@K; None counts all ranks.
      prior: a and b of "shrunk" ranks; fitted to these rows if None.

    Raises:
      ValueError: for an unknown `rank`.
    """
    weight = lambda_weights(scored, rank, cutoff, prior)
    return _mean(weight * _log_loss(scored), scored.valid)


def lambda_weights(
    scored: Scored,
    rank: str = "corrected",
    cutoff: int | None = None,
    prior: Pair | None = None,
) -> Float32[Array, "batch drawn"]:
    """|D(r_i) - D(r_j)| for every pair; see `lambdarank`."""
    scored = jax.tree.map(jax.lax.stop_gradient, scored)
    positive = scored.positive[:, None]
    candidates = jnp.where(scored.valid, scored.candidates, _MINUS)
    negatives = jnp.broadcast_to(jnp.asarray(scored.negatives, jnp.float32), scored.drawn.shape)
    at_least = violates(scored, None).sum(1)
    own = estimated_rank(rank, at_least, scored.drawn, negatives, prior)[:, None]
    above = _count_above(candidates, cutoff)
    scale = jnp.ones_like(own)
    if rank != "sampled":
        # "shrunk" too: a candidate's own rank has no prior of its own.
        scale = ((negatives - 1) / jnp.maximum(scored.drawn - 1, 1))[:, None]
    theirs = 1.0 + scale * above + (positive > candidates)
    return jnp.abs(ndcg_discount(own, cutoff) - ndcg_discount(theirs, cutoff))


def _count_above(
    scores: Float[Array, "batch drawn"], cutoff: int | None
) -> Float32[Array, "batch drawn"]:
    """How many of its row score above each; with a cut-off, counts beyond it are not exact.

    Beyond the cut-off the discount is 0 whatever the rank, so that the best few scores suffice (if
    no more are drawn than there are negatives: else an estimate lies below its count).
    They are found one by one: on CPU a `top_k` of all took ten times as long as the rest.
    """
    if cutoff is None:
        ordered = jnp.sort(scores, axis=1)
        not_above = jax.vmap(lambda row, x: jnp.searchsorted(row, x, side="right"))(ordered, scores)
        return (scores.shape[1] - not_above).astype(jnp.float32)
    places = min(cutoff, scores.shape[1])
    many = scores.shape[1] > 2 * _GROUP * places
    few = (_best_groups(scores, places) if many else scores).T  # maxima over rows are vectorised

    def next_best(best: Array, _: None) -> tuple[Array, tuple[Array, Array]]:
        """The next lower score of each row, and how many share it."""
        best = jnp.where(few < best, few, -jnp.inf).max(0)
        return best, (best, (few == best).sum(0))

    start = jnp.full(few.shape[1], jnp.inf, few.dtype)
    best, times = jax.lax.scan(next_best, start, None, length=places)[1]
    above = sum(jnp.where(best[i][:, None] > scores, times[i][:, None], 0) for i in range(places))
    return jnp.asarray(above, jnp.float32)


_GROUP = 16


def _best_groups(scores: Float[Array, "batch drawn"], places: int) -> Float[Array, "batch few"]:
    """Per row some of the scores, the best `places` among them.

    Those lie in the groups whose maxima are the best `places` of all groups' maxima.
    """
    short = -scores.shape[1] % _GROUP
    padded = jnp.pad(scores, ((0, 0), (0, short)), constant_values=-jnp.inf)
    groups = padded.reshape(len(scores), _GROUP, -1)
    chosen = jax.lax.top_k(groups.max(1), places)[1]
    return jnp.take_along_axis(groups, chosen[:, None], axis=2).reshape(len(scores), -1)


def _log_loss(scored: Scored) -> Float32[Array, "batch drawn"]:
    return jax.nn.softplus((scored.candidates - scored.positive[:, None]).astype(jnp.float32))


def _mean(
    values: Float32[Array, "batch drawn"], chosen: Bool[Array, "batch drawn"]
) -> Float32[Array, " batch"]:
    return jnp.where(chosen, values, 0.0).sum(1) / jnp.maximum(chosen.sum(1), 1)
