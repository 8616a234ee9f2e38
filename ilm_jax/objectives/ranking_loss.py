"""A ranking loss by name, with its settings."""

import dataclasses

from jaxtyping import Array, Float32

from ilm_jax.checks import Count, Positive, Weight, check
from ilm_jax.errors import UserError
from ilm_jax.objectives import ranking

NAMES = ("bpr", "bce", "softmax", "warp", "lambdarank")
RANKS = ("sampled", "corrected", "shrunk")


@dataclasses.dataclass(frozen=True)
class RankingLoss:
    """One of the losses of `ilm_jax.objectives.ranking`.

    Attributes:
      name: "bpr", "bce", "softmax", "warp" or "lambdarank".
      rank: estimate for the latter two: "sampled" (uncorrected), "corrected" or "shrunk"
        (to a prior fitted to the batch).
      cutoff: K of LambdaRank's NDCG@K; None counts all ranks.
      margin: WARP's.
      negatives: BCE's k.

    Raises:
      UserError: for unknown names, or numbers that mean nothing.
    """

    name: str = "softmax"
    rank: str = "corrected"
    cutoff: Count | None = None
    margin: Weight = 1.0
    negatives: Positive = 1.0

    def __post_init__(self) -> None:
        check(self)
        if self.name not in NAMES:
            raise UserError(f"loss={self.name!r}: the losses are {', '.join(NAMES)}")
        if self.rank not in RANKS:
            raise UserError(f"rank={self.rank!r}; choose 'sampled', 'corrected' or 'shrunk'")

    @property
    def estimates_ranks(self) -> bool:
        """Whether it needs uniform candidates, from which ranks in the catalogue are estimated."""
        return self.name in ("warp", "lambdarank") and self.rank != "sampled"

    @property
    def fits_prior(self) -> bool:
        """Whether it reads a prior that is fitted to the whole batch."""
        return self.estimates_ranks and self.rank == "shrunk"

    @property
    def violation_margin(self) -> float | None:
        """The margin by which negatives are counted as violators; see `ranking.violates`."""
        return self.margin if self.name == "warp" else None

    def __call__(
        self,
        scored: ranking.Scored,
        log_expected: Float32[Array, " drawn"],
        prior: ranking.Pair | None = None,
    ) -> Float32[Array, " batch"]:
        """The loss of each row; see `ranking.warp` for the prior."""
        if self.name == "bpr":
            return ranking.bpr(scored)
        if self.name == "bce":
            return ranking.bce(scored, self.negatives)
        if self.name == "softmax":
            return ranking.sampled_softmax(scored, log_expected)
        if self.name == "warp":
            return ranking.warp(scored, self.rank, self.margin, prior)
        return ranking.lambdarank(scored, self.rank, self.cutoff, prior)
