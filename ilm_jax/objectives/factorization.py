"""Matrix factorization with a ranking loss on sampled negatives that a batch shares.

A scorer of (user, item) pairs, <user vector, item vector>, is trained on observed pairs against
candidates that are drawn anew in every step and are the same for all rows of the batch.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32, Int, Int32, PyTree, UInt32

from ilm_jax.cf.negatives import Sampler, history_lengths, met
from ilm_jax.checks import Count, Positive, Weight, check
from ilm_jax.errors import UserError
from ilm_jax.models.two_tower import TwoTower
from ilm_jax.objectives import ranking, shared_negatives
from ilm_jax.objectives.objective import Objective, Sums
from ilm_jax.objectives.ranking_loss import RankingLoss
from ilm_jax.objectives.shared_negatives import Known, Vectors

TOP = "two_tower"


@dataclasses.dataclass(frozen=True)
class Factorization(Objective):
    """Ranking loss of a two-tower scorer. Parameters: `two_tower`.

    Batches hold "users" and "items", row by row a pair, and for the history tower "histories". The
    table that a step reads holds the histories of all users (`cf.negatives.history_table`); with
    `exclude="target"` nothing reads it.

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
        vectors = Vectors(
            self.user_vectors(params, users, batch.get("histories")),
            self.item_vectors(params, items),
            self.item_vectors(params, candidates),
        )
        known = Known((users, items), (candidates, table), log_expected, jnp.ones(len(users)))
        total = shared_negatives.total(self.ranking_loss, self.negatives, vectors, known)
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

    def negatives(
        self,
        pairs: tuple[Int32[Array, " batch"], Int32[Array, " batch"]],
        drawn: tuple[Int32[Array, " drawn"], UInt32[Array, "users words"]],
    ) -> tuple[Bool[Array, "batch drawn"], Float[Array, " batch"] | float]:
        """Which candidates are negatives of a row, and the number of all its negatives.

        Args:
          pairs: user and item rows.
          drawn: item rows of the candidates, and histories.
        """
        (users, items), (candidates, table) = pairs, drawn
        valid = candidates[None, :] != items[:, None]
        negatives: Array | float = self.num_items - 1.0
        if self.exclude == "history":
            every = self.sampler.config.kind == "all"
            known = met(table, users, None if every else candidates)
            valid &= ~known[:, : len(candidates)]
            lengths = history_lengths(table, users)
            negatives = self.num_items - lengths.astype(jnp.float32)
        return valid, negatives

    def scored(
        self,
        vectors: Vectors,
        pairs: tuple[Int32[Array, " batch"], Int32[Array, " batch"]],
        candidates: Int32[Array, " drawn"],
        table: UInt32[Array, "users words"],
    ) -> ranking.Scored:
        """Scores of (user, item) pairs and of the candidates; see `negatives`."""
        return shared_negatives.scored(self.negatives, vectors, pairs, (candidates, table))
