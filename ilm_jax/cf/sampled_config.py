"""Settings of `ilm_jax.cf.sampled.fit`, and the scorer and the loss that they choose."""

import dataclasses

from jaxtyping import Array, Float32

from ilm_jax.cf.negatives import SamplerConfig
from ilm_jax.cf.two_tower import TwoTower
from ilm_jax.checks import Count, Positive, Seed, Weight, check
from ilm_jax.objectives import ranking

LOSSES = ("bpr", "softmax", "warp", "lambdarank")


@dataclasses.dataclass(frozen=True)
class SampledConfig:
    """What is trained, on which candidates, and how.

    Attributes:
      loss: "bpr", "softmax", "warp" or "lambdarank"; see `ilm_jax.objectives.ranking`.
      rank: estimate for the latter two: "sampled" (uncorrected), "corrected" or "shrunk"
        (to a prior fitted to the batch).
      cutoff: K of LambdaRank's NDCG@K; None counts all ranks.
      margin: WARP's.
      sampler: how candidates are drawn.
      exclude: which candidates are no negatives of a row: its user's "history" or its "target".
      dim, user_tower, hidden, init_stddev: see `TwoTower`.
      history: of the history tower: that many items, drawn anew each epoch without the target.
      learning_rate: of Adam.
      schedule: "constant", or "linear": the rate falls to 0 over the epochs.
      l2: times half the mean squared norm of the vectors in a batch.
      batch_size: pairs; the last of an epoch is filled from its start.
      epochs: passes over the pairs.
      seed: of parameters, order and candidates.

    Raises:
      ValueError: for unknown names, numbers that mean nothing, or a rank correction of candidates
        that are not uniform.
    """

    loss: str = "softmax"
    rank: str = "corrected"
    cutoff: Count | None = None
    margin: Weight = 1.0
    sampler: SamplerConfig = SamplerConfig()
    exclude: str = "history"
    dim: Count = 32
    user_tower: str = "id"
    hidden: tuple[Count, ...] = ()
    init_stddev: Positive = 0.1
    history: Count = 50
    learning_rate: Positive = 3e-3
    schedule: str = "constant"
    l2: Weight = 0.0
    batch_size: Count = 4096
    epochs: Count = 10
    seed: Seed = 0

    def __post_init__(self) -> None:
        check(self)
        if self.loss not in LOSSES or self.exclude not in ("history", "target"):
            raise ValueError(f"loss={self.loss!r}, exclude={self.exclude!r}: the losses are "
                             f"{', '.join(LOSSES)}; exclude 'history' or 'target'")  # fmt: skip
        if self.schedule not in ("constant", "linear"):
            raise ValueError(f"schedule={self.schedule!r}; choose 'constant' or 'linear'")
        if self.rank not in ("sampled", "corrected", "shrunk"):
            raise ValueError(f"rank={self.rank!r}; choose 'sampled', 'corrected' or 'shrunk'")
        if self.user_tower not in ("id", "history"):
            raise ValueError(f"user_tower={self.user_tower!r}; choose 'id' or 'history'")
        uses_ranks = self.loss in ("warp", "lambdarank") and self.rank != "sampled"
        if uses_ranks and not self.sampler.is_uniform:
            raise ValueError(
                f"{self.rank} ranks need uniform candidates, not {self.sampler.kind!r}: set "
                "rank='sampled', or sampler.kind='uniform'"
            )

    def model(self, num_users: int, num_items: int, multiple: int = 1) -> TwoTower:
        """The scorer; see `TwoTower` for `multiple`."""
        return TwoTower(
            num_users, num_items, self.dim, self.user_tower, tuple(self.hidden), self.init_stddev,
            multiple,
        )  # fmt: skip

    def losses(
        self,
        scored: ranking.Scored,
        log_expected: Float32[Array, " drawn"],
        prior: ranking.Pair | None = None,
    ) -> Float32[Array, " batch"]:
        """The configured loss of each row; see `ranking.warp` for the prior."""
        if self.loss == "bpr":
            return ranking.bpr(scored)
        if self.loss == "softmax":
            return ranking.sampled_softmax(scored, log_expected)
        if self.loss == "warp":
            return ranking.warp(scored, self.rank, self.margin, prior)
        return ranking.lambdarank(scored, self.rank, self.cutoff, prior)
