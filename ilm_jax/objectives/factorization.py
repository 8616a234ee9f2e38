"""Matrix factorization with a ranking loss on sampled negatives that a batch shares.

A scorer of (user, item) pairs, <user vector, item vector>, is trained on observed pairs against
candidates that are drawn anew in every step and are the same for all rows of the batch.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Int, Int32, PyTree, Shaped, UInt32

from ilm_jax.cf.negatives import Sampler, met
from ilm_jax.cf.parts import joined, split
from ilm_jax.cf.ranks import fit_prior
from ilm_jax.checks import Count, Positive, Weight, check
from ilm_jax.errors import UserError
from ilm_jax.models.two_tower import TwoTower
from ilm_jax.objectives import ranking
from ilm_jax.objectives.objective import Objective, Sums
from ilm_jax.objectives.ranking_loss import RankingLoss

SCORES = 1 << 18
"""Bound on the scores that exist at once on one device (1 MiB)."""
TOP = "two_tower"
Vectors = tuple[Float[Array, "batch dim"], Float[Array, "batch dim"], Float[Array, "drawn dim"]]


@dataclasses.dataclass(frozen=True)
class Factorization(Objective):
    """Ranking loss of a two-tower scorer. Parameters: `two_tower`.

    Batches hold "users" and "items", row by row a pair, and for the history tower "histories". The
    table that a step reads holds the histories of all users, a bit for each item
    (`cf.negatives.history_bitmap`); with `exclude="target"` nothing reads it.

    Attributes:
      num_users, num_items: sizes of the catalogue.
      sampler: how candidates are drawn.
      ranking_loss: of a row's pair against the candidates.
      exclude: which candidates are no negatives of a row: its user's "history" or its "target".
      dim, user_tower, hidden, init_stddev: see `TwoTower`.
      l2: times half the mean squared norm of the vectors in a batch.

    Raises:
      UserError: for unknown names, numbers that mean nothing, or a rank correction of candidates
        that are not uniform.
    """

    num_users: Count
    num_items: Count
    sampler: Sampler
    ranking_loss: RankingLoss = RankingLoss()
    exclude: str = "history"
    dim: Count = 32
    user_tower: str = "id"
    hidden: tuple[Count, ...] = ()
    init_stddev: Positive = 0.1
    l2: Weight = 0.0

    def __post_init__(self) -> None:
        check(self)
        if self.exclude not in ("history", "target"):
            raise UserError(f"exclude={self.exclude!r}; choose 'history' or 'target'")
        if self.user_tower not in ("id", "history"):
            raise UserError(f"user_tower={self.user_tower!r}; choose 'id' or 'history'")
        if self.ranking_loss.estimates_ranks and not self.sampler.config.is_uniform:
            raise UserError(
                f"{self.ranking_loss.rank} ranks need uniform candidates, not "
                f"{self.sampler.config.kind!r}: set rank='sampled', or sampler.kind='uniform'"
            )

    kinds = ("pair",)
    splits_batches = False  # each part of a batch would draw candidates of its own

    @property
    def model(self) -> TwoTower:
        """The scorer."""
        return TwoTower(
            self.num_users,
            self.num_items,
            self.dim,
            self.user_tower,
            self.hidden,
            self.init_stddev,
        )

    def init(self, key: jax.Array) -> PyTree[Array]:
        """Both tables, and the MLPs if there are any, boxed with their logical axes."""
        histories = jnp.zeros((1, 1), jnp.int32) if self.user_tower == "history" else None
        one = jnp.zeros(1, jnp.int32)
        return {TOP: self.model.init(key, one, one, histories)["params"]}

    def loss(
        self,
        params: PyTree[Array],
        kind: str,
        batch: dict[str, jax.Array],
        table: UInt32[Array, "users words"],
        key: jax.Array | None,
    ) -> dict[str, Sums]:
        """Sum of `loss` over the pairs; without a key the candidates are those of key 0."""
        users, items = batch["users"], batch["items"]
        key = jax.random.key(0) if key is None else key
        candidates, log_expected = self.sampler.draw(key, items)
        vectors = (
            self.user_vectors(params, users, batch.get("histories")),
            self.item_vectors(params, items),
            self.item_vectors(params, candidates),
        )
        total = _summed(self, vectors, (users, items, candidates, log_expected, table))
        count = jnp.float32(len(users))
        square = sum(jnp.sum(x**2) for x in vectors) / sum(map(len, vectors))
        return {"loss": Sums(total + 0.5 * self.l2 * count * square, count)}

    def user_vectors(
        self,
        params: PyTree[Array],
        users: Int[Array, " batch"],
        histories: Int[Array, "batch length"] | None = None,
    ) -> Float32[Array, "batch dim"]:
        """Vectors of users; the history tower reads `histories`, padded with num_items, alone."""
        found = self.model.apply({"params": params[TOP]}, users, histories, method="users")
        return jnp.asarray(found)

    def item_vectors(
        self, params: PyTree[Array], items: Int[Array, " batch"]
    ) -> Float32[Array, "batch dim"]:
        """Vectors of items."""
        return jnp.asarray(self.model.apply({"params": params[TOP]}, items, method="items"))

    def scored(
        self,
        vectors: Vectors,
        pairs: tuple[Int32[Array, " batch"], Int32[Array, " batch"]],
        candidates: Int32[Array, " drawn"],
        table: UInt32[Array, "users words"],
    ) -> ranking.Scored:
        """Scores of (user, item) pairs and of the candidates.

        Args:
          vectors: of the users, of their items, and of the candidates.
          pairs: user and item rows.
          candidates: item rows.
          table: histories.
        """
        (user, positive, negative), (users, items) = vectors, pairs
        valid = candidates[None, :] != items[:, None]
        negatives: Any = self.num_items - 1.0
        if self.exclude == "history":
            every = self.sampler.config.kind == "all"
            known = met(table, users, None if every else candidates)
            valid &= ~known[:, : len(candidates)]
            lengths = jax.lax.population_count(table[users]).sum(1)
            negatives = self.num_items - lengths.astype(jnp.float32)
        return ranking.Scored(jnp.sum(user * positive, -1), user @ negative.T, valid, negatives)


Read = tuple[Array, Array, Array, Array, Array]
"""Users, items, candidates, log of their expected number, and histories."""


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _summed(objective: Factorization, vectors: Vectors, read: Read) -> Float32[Array, ""]:
    """Sum of the rows' losses.

    A large batch of scores is worked off in parts that stay in a CPU's caches. The gradient of a
    part is taken with its loss: no score outlives its part.
    """
    return _value_and_gradient(objective, vectors, read)[0]


def _value_and_gradient(
    objective: Factorization, vectors: Vectors, read: Read
) -> tuple[Float32[Array, ""], Vectors]:
    (user, positive, negative), (users, items, candidates, log_expected, table) = vectors, read
    parts = number_of_parts(len(users), len(candidates))
    rows, real = split((user, positive, users, items), parts)

    def score(rows: tuple[Array, ...], negative: Array) -> ranking.Scored:
        """Scores of one part's targets and negatives."""
        own, target, *pairs = rows
        return objective.scored((own, target, negative), (pairs[0], pairs[1]), candidates, table)

    prior = None
    if objective.ranking_loss.fits_prior:
        prior = _prior(objective, lambda rows: score(rows, negative), rows, real)

    def loss(own: tuple[Array, Array], negative: Array, rest: tuple[Array, ...]) -> Array:
        """Summed loss of one part's real rows."""
        *pairs, real = rest
        each = objective.ranking_loss(score((*own, *pairs), negative), log_expected, prior)
        return jnp.where(real, each, 0.0).sum()

    def part(total: Array, rows: tuple[Array, ...]) -> tuple[Array, tuple[Array, ...]]:
        """A part's value and gradients; those of the shared negatives are added up."""
        value, (own, shared) = jax.value_and_grad(loss, (0, 1))(rows[:2], negative, rows[2:])
        return total + shared, (value, *own)

    shared, (values, *own) = jax.lax.scan(part, jnp.zeros_like(negative), (*rows, real))
    mine, theirs = (joined(x, len(users)) for x in own)
    return values.sum(), (mine, theirs, shared)


def _backward(
    objective: Factorization, gradient: Vectors, cotangent: Float32[Array, ""]
) -> tuple[Vectors, None]:
    mine, theirs, shared = (cotangent * x for x in gradient)
    return (mine, theirs, shared), None


_summed.defvjp(_value_and_gradient, _backward)


def _prior(
    objective: Factorization,
    score: Callable[[tuple[Array, ...]], ranking.Scored],
    rows: tuple[Array, ...],
    real: Shaped[Array, "..."],
) -> ranking.Pair:
    """Of shrunk ranks, fitted to the whole batch: to its parts it would depend on their number.

    Takes a pass over the scores of its own; the parts are scored again for the loss.
    """

    def counts(part: tuple[Array, ...]) -> tuple[Array, Array]:
        """Violators and negatives drawn, of each row of a part."""
        scored = score(part)
        violators = ranking.violates(scored, objective.ranking_loss.violation_margin)
        return violators.sum(1), scored.drawn

    violators, drawn = jax.lax.map(counts, rows)
    return jax.lax.stop_gradient(fit_prior(violators, jnp.where(real, drawn, 0.0)))


def number_of_parts(batch: int, drawn: int) -> int:
    """In how many equal parts a batch is worked off; the last may be filled up.

    One where several devices share the batch.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if not mesh.empty and mesh.size > 1:
        return 1
    return -(-batch // max(1, SCORES // drawn))
