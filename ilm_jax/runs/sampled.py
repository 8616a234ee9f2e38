"""Matrix factorization on sampled negatives, from settings and pairs to the one trainer and back.

    factors = SampledFit(train, SampledConfig(loss="warp"), model_dir="runs/warp").fit()

Steps, negatives and order are pure functions of the seed and the step, as in every run: with a
`model_dir` a fit that was killed goes on from its last epoch, and gives the same bits.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Array, Float32, Int, PyTree

from ilm_jax.cf.ials import Factors
from ilm_jax.cf.interactions import Interactions, train_interactions
from ilm_jax.cf.negatives import Sampler, SamplerConfig, history_table
from ilm_jax.cf.pairs import Pairs, draw_histories, mixed, pad_histories
from ilm_jax.checks import Count, Positive, Seed, Weight, check
from ilm_jax.data.catalogue.splits import Splits
from ilm_jax.errors import UserError
from ilm_jax.objectives.factorization import Factorization
from ilm_jax.objectives.ranking_loss import RankingLoss
from ilm_jax.runs.vector_fit import TrainedMethod, VectorFit
from ilm_jax.sharding.partitioning import Partitioner
from ilm_jax.training.optimizers import OptimizerConfig

_AFTER_TRAINING = np.uint64(2**32 - 1)  # in an epoch's place among the keys of draws


@dataclasses.dataclass(frozen=True)
class SampledConfig(TrainedMethod):
    """Sampled matrix factorization: its loss, its candidates and its training.

    Attributes:
      loss, rank, cutoff, margin: see `RankingLoss`.
      sampler: how candidates are drawn.
      exclude, dim, user_tower, hidden, init_stddev, l2: see `Factorization`.
      history: of the history tower: that many items, drawn anew each epoch without the target.
      learning_rate: of Adam.
      schedule: "constant", or "linear": the rate falls to 0 over the epochs.
      batch_size: pairs; the last of an epoch is filled from its start.
      epochs: passes over the pairs.
      seed: of parameters, order and candidates.

    Raises:
      UserError: for unknown names, numbers that mean nothing, or a rank correction of candidates
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
        if self.schedule not in ("constant", "linear"):
            raise UserError(f"schedule={self.schedule!r}; choose 'constant' or 'linear'")
        self.objective(1, np.ones(1, np.int64))  # refuses what it cannot be

    def objective(self, num_users: int, counts: Int[np.ndarray, " items"]) -> Factorization:
        """What is minimised, of a catalogue with these numbers of training pairs by item."""
        return Factorization(
            num_users=num_users,
            num_items=len(counts),
            sampler=Sampler.make(self.sampler, counts),
            ranking_loss=RankingLoss(self.loss, self.rank, self.cutoff, self.margin),
            exclude=self.exclude,
            dim=self.dim,
            user_tower=self.user_tower,
            hidden=tuple(self.hidden),
            init_stddev=self.init_stddev,
            l2=self.l2,
        )

    @property
    def name(self) -> str:
        """Of the method."""
        return "sampled"

    def fit_of(self, splits: Splits, **settings: Any) -> "SampledFit":
        """The fit to a split's training pairs."""
        return SampledFit(train_interactions(splits), self, **settings)

    @property
    def optimizer_config(self) -> OptimizerConfig:
        """Adam, without weight decay or clipping."""
        return OptimizerConfig(
            learning_rate=self.learning_rate,
            schedule=self.schedule,
            end_fraction=0.0,
            b2=0.999,
            weight_decay=0.0,
            clip_norm=0.0,
        )


@dataclasses.dataclass(frozen=True, eq=False)
class SampledFit(VectorFit[Interactions, SampledConfig]):
    """One fit to pairs; see `VectorFit`."""

    config: SampledConfig = SampledConfig()

    @functools.cached_property
    def objective(self) -> Factorization:
        """The objective of the fit."""
        return self.config.objective(self.train.num_users, self.train.item_counts())

    @functools.cached_property
    def examples(self) -> Pairs:
        """The pairs."""
        history = self.config.history if self.config.user_tower == "history" else None
        return Pairs(self.train, self.config.batch_size, self.config.seed, history)

    @functools.cached_property
    def table(self) -> np.ndarray:
        """Histories, where they exclude candidates."""
        excludes = self.config.exclude == "history"
        if not excludes:
            return np.zeros((1, 1), np.uint32)
        return history_table(self.train, every=self.config.sampler.kind == "all")

    def user_vectors(
        self, histories: Sequence[Int[np.ndarray, " length"]]
    ) -> Float32[np.ndarray, "users dim"]:
        """Vectors of users whom training need not have seen, by the history tower, after `fit`.

        Args:
          histories: item rows of each user, all of which are read; none give a zero vector.

        Raises:
          UserError: for the tower "id".
          ValueError: for an item outside the catalogue.
        """
        if self.config.user_tower != "history":
            raise UserError(
                "user_tower='id' has vectors for training's users alone; train with "
                "user_tower='history'"
            )
        padded = pad_histories(histories, self.train.num_items)
        users = np.arange(len(histories))
        found = self.whole(self.objective.user_vectors)(self.trainer.params(), users, padded)
        found[[len(items) == 0 for items in histories]] = 0.0
        return found

    def factors(self, params: PyTree[Array]) -> Factors:
        """Vectors of all users and items; rows without training pairs are zero."""
        train, histories = self.train, None
        users = np.arange(train.num_users, dtype=np.int32)
        items = np.arange(train.num_items, dtype=np.int32)
        if self.config.user_tower == "history":
            keys = mixed(np.uint64(self.config.seed), _AFTER_TRAINING, users.astype(np.uint64))
            nothing = np.full(len(users), -1)
            histories = draw_histories(train, users, nothing, self.config.history, keys)
        user = self.whole(self.objective.user_vectors)(params, users, histories)
        item = self.whole(self.objective.item_vectors)(params, items)
        user[train.lengths == 0] = 0.0
        item[train.item_counts() == 0] = 0.0
        return Factors(user, item)


def fit(
    train: Interactions,
    config: SampledConfig | None = None,
    partitioner: Partitioner | None = None,
) -> Factors:
    """Trains on observed pairs; the same config, mesh and machine give the same bits.

    Raises:
      UserError: if training diverges.
    """
    return SampledFit(train, config or SampledConfig(), partitioner or Partitioner()).fit()
