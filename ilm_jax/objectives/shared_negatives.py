"""Ranking losses of queries against candidates that a batch shares, in parts that caches hold.

A row is a query with its positive; its score of an item is <query, item vector>. What is trained on
is a weighted total, so the gradient of a part of the rows is taken with its loss, and no score
outlives its part. Sampled softmax with logQ, and every other loss of `RankingLoss`, over a
catalogue: matrix factorization and sequential models are trained so.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32, PyTree, Shaped

from ilm_jax.cf.parts import joined, split
from ilm_jax.cf.ranks import fit_prior
from ilm_jax.objectives import ranking
from ilm_jax.objectives.ranking_loss import RankingLoss

SCORES = 1 << 18
"""Bound on the scores that exist at once on one device (1 MiB)."""


class Vectors(NamedTuple):
    """What is scored: of every row its query and its positive, and the candidates."""

    query: Float[Array, "rows dim"]
    positive: Float[Array, "rows dim"]
    candidates: Float[Array, "drawn dim"]


class Known(NamedTuple):
    """What is known beside the vectors; no gradient flows into it.

    Attributes:
      rows: a tree of arrays [rows, …] that `rule` reads, a part of the rows at a time.
      shared: a tree of arrays that it reads whole.
      log_expected: log of the number of times that each candidate is expected.
      weights: of the rows' losses in the total.
    """

    rows: PyTree[Array]
    shared: PyTree[Array]
    log_expected: Float[Array, " drawn"]
    weights: Float[Array, " rows"]


Rule = Callable[
    [PyTree[Array], PyTree[Array]],
    tuple[Bool[Array, "rows drawn"], Float[Array, "..."] | float],
]
"""(known.rows of a part, known.shared) to which candidates are negatives of each row, and of how
many negatives in the catalogue they are a sample: see `ranking.Scored`."""


class _How(NamedTuple):
    """What is known when a program is traced."""

    loss: RankingLoss
    rule: Rule


def total(loss: RankingLoss, rule: Rule, vectors: Vectors, known: Known) -> Float32[Array, ""]:
    """Weighted sum of the rows' losses, with the gradient of the vectors."""
    return _total(_How(loss, rule), vectors, known)


def scored(rule: Rule, vectors: Vectors, rows: PyTree[Array], shared: PyTree) -> ranking.Scored:
    """Scores of rows, all at once."""
    valid, negatives = rule(rows, shared)
    positive = jnp.sum(vectors.query * vectors.positive, -1)
    with jax.default_matmul_precision("highest"):
        scores = vectors.query @ vectors.candidates.T
    return ranking.Scored(positive, scores, valid, negatives)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _total(how: _How, vectors: Vectors, known: Known) -> Float32[Array, ""]:
    return _value_and_gradient(how, vectors, known)[0]


def _value_and_gradient(
    how: _How, vectors: Vectors, known: Known
) -> tuple[Float32[Array, ""], Vectors]:
    count = len(vectors.query)
    parts = number_of_parts(count, len(vectors.candidates))
    mine = vectors.query, vectors.positive
    (*mine, rows, weights), real = split((*mine, known.rows, known.weights), parts)

    def score(mine: tuple[Array, Array], rows: PyTree[Array], candidates: Array) -> ranking.Scored:
        """Scores of one part's positives and candidates."""
        return scored(how.rule, Vectors(*mine, candidates), rows, known.shared)

    prior = None
    if how.loss.fits_prior:
        prior = _prior(how.loss, score, (tuple(mine), rows), vectors.candidates, real)

    def loss(mine: tuple[Array, Array], candidates: Array, rest: PyTree[Array]) -> Array:
        """Weighted loss of one part's real rows."""
        rows, weights, real = rest
        each = how.loss(score(mine, rows, candidates), known.log_expected, prior)
        return jnp.where(real & (weights != 0), weights * each, 0.0).sum()

    def part(shared: Array, xs: PyTree[Array]) -> tuple[Array, tuple[Array, ...]]:
        """A part's value and gradients; those of the candidates are added up."""
        mine, *rest = xs
        value, (own, more) = jax.value_and_grad(loss, (0, 1))(mine, vectors.candidates, rest)
        return shared + more, (value, *own)

    start = jnp.zeros_like(vectors.candidates)
    theirs, (values, *own) = jax.lax.scan(part, start, (tuple(mine), rows, weights, real))
    query, positive = (joined(x, count) for x in own)
    return values.sum(), Vectors(query, positive, theirs)


def _backward(how: _How, gradient: Vectors, cotangent: Float32[Array, ""]) -> tuple[Vectors, None]:
    return Vectors(*(cotangent * x for x in gradient)), None


_total.defvjp(_value_and_gradient, _backward)


def _prior(
    loss: RankingLoss,
    score: Callable[..., ranking.Scored],
    parts: PyTree[Array],
    candidates: Array,
    real: Shaped[Array, "..."],
) -> ranking.Pair:
    """Of shrunk ranks, fitted to the whole batch: to its parts it would depend on their number.

    Takes a pass over the scores of its own; the parts are scored again for the loss.
    """

    def counts(part: PyTree[Array]) -> tuple[Array, Array]:
        """Violators and negatives drawn, of each row of a part."""
        found = score(*part, candidates)
        return ranking.violates(found, loss.violation_margin).sum(1), found.drawn

    violators, drawn = jax.lax.map(counts, parts)
    return jax.lax.stop_gradient(fit_prior(violators, jnp.where(real, drawn, 0.0)))


def number_of_parts(rows: int, drawn: int) -> int:
    """In how many equal parts a batch is worked off; the last may be filled up.

    One where several devices share the batch.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if not mesh.empty and mesh.size > 1:
        return 1
    return -(-rows // max(1, SCORES // drawn))
