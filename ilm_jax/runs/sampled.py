"""Matrix factorization on sampled negatives, from settings and pairs to the one trainer and back.

    factors = SampledFit(train, SampledConfig(loss="warp"), model_dir="runs/warp").fit()

Steps, negatives and order are pure functions of the seed and the step, as in every run: with a
`model_dir` a fit that was killed goes on from its last epoch, and gives the same bits.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, Float32, Int, PyTree

from ilm_jax.cf.ials import Factors
from ilm_jax.cf.interactions import Interactions
from ilm_jax.cf.negatives import Sampler, SamplerConfig, history_bitmap
from ilm_jax.cf.pairs import Pairs, draw_histories, mixed, pad_histories
from ilm_jax.checkpoints.checkpoints import CheckpointConfig
from ilm_jax.checks import Count, Positive, Seed, Weight, check
from ilm_jax.data.streams.schedule import Schedule
from ilm_jax.errors import UserError
from ilm_jax.objectives.factorization import Factorization
from ilm_jax.objectives.ranking_loss import RankingLoss
from ilm_jax.sharding.partitioning import Partitioner
from ilm_jax.sharding.processes import writing
from ilm_jax.training.optimizers import OptimizerConfig
from ilm_jax.training.trainer import Trainer, TrainerConfig

Measure = Callable[[Float[np.ndarray, "users dim"], Float[np.ndarray, "items dim"]], float]
LOG_EVERY = 100
_AFTER_TRAINING = np.uint64(2**32 - 1)  # in an epoch's place among the keys of draws


@dataclasses.dataclass(frozen=True)
class SampledConfig:
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
    def optimizer(self) -> OptimizerConfig:
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
class SampledFit:
    """One fit: its trainer, and the vectors that it has trained.

    Attributes:
      train: the pairs.
      config: see `SampledConfig`.
      partitioner: the mesh, whose devices share tables by their rows, and batches whose size they
        divide (others every device works off whole).
      model_dir: for checkpoints and metrics; "": nothing is written.
      measure: of user and item vectors on validation; higher is better. The vectors are then those
        of the best measurement. None: those of the last epoch.
      metric: what metrics.jsonl calls it; its negative is the "loss" that checkpoints go by.
      patience: measurements without improvement after which training ends; 0: none.
      every: epochs from one measurement, and checkpoint, to the next.
      made_from: what the run's record says of its data beside the pairs.
      config_text: written to config.gin.
    """

    train: Interactions
    config: SampledConfig = SampledConfig()
    partitioner: Partitioner = Partitioner()
    model_dir: str = ""
    measure: Measure | None = None
    metric: str = "ndcg@10"
    patience: int = 0
    every: int = 1
    made_from: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    config_text: str = ""

    @functools.cached_property
    def objective(self) -> Factorization:
        """The objective of the fit."""
        return self.config.objective(self.train.num_users, self.train.item_counts())

    @functools.cached_property
    def pairs(self) -> Pairs:
        """The examples."""
        history = self.config.history if self.config.user_tower == "history" else None
        return Pairs(self.train, self.config.batch_size, self.config.seed, history)

    @functools.cached_property
    def trainer(self) -> Trainer:
        """The run."""
        config, steps = self.config, self.pairs.steps
        excludes = config.exclude == "history"
        saves = bool(self.model_dir or self.measure)
        return Trainer(
            model_dir=self.model_dir,
            objective=self.objective,
            table=history_bitmap(self.train) if excludes else np.zeros((1, 1), np.uint32),
            sources={"pair": self.pairs},
            eval_sources={},
            schedule=Schedule({"pair": 1}),
            config=TrainerConfig(
                total_steps=config.epochs * steps,
                batch_size=self.pairs.batch_size,
                log_every=min(LOG_EVERY, steps),
                eval_every=self.every * steps if self.measure else 0,
                patience=self.patience,
                seed=config.seed,
            ),
            optimizer=config.optimizer,
            # Tables grow from small ones: a norm above the usual is no sign of going astray.
            checkpoint=CheckpointConfig(every=self.every * steps if saves else 0, outlier=0.0),
            partitioner=_fitting(self.partitioner, self.pairs.batch_size),
            config_text=self.config_text,
            made_from={"train": {"pair": self.pairs.record()}, **self.made_from},
            validate=self._validate if self.measure else None,
        )

    def fit(self) -> Factors:
        """Trains, from the newest checkpoint if there is one, and returns the vectors.

        Of a `model_dir` it is the only writer while it trains.

        Raises:
          UserError: if training diverges, or was asked to stop (the same fit goes on from there);
            if another process writes into the `model_dir`, or it was made from something else.
        """
        with writing(self.model_dir, "fit_cf") if self.model_dir else contextlib.nullcontext():
            self.trainer.fit()
        if self.trainer.stopped:
            raise UserError(
                f"stopped at step {self.trainer.step} of {self.trainer.config.total_steps}: the "
                f"same command goes on from {self.model_dir}"
            )
        return self.vectors("best" if self.measure else "last")

    @property
    def best_epoch(self) -> int:
        """The epoch of the best measurement, after `fit`."""
        return self.trainer.resolve("best") // self.pairs.steps

    def vectors(self, step: int | str = "last") -> Factors:
        """Of all users and items, after `fit`; rows without training pairs are zero.

        Args:
          step: see `Trainer.params`.
        """
        return self._vectors(self.trainer.params(step))

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
        found = self._whole(self.objective.user_vectors)(self.trainer.params(), users, padded)
        found[[len(items) == 0 for items in histories]] = 0.0
        return found

    def _validate(self, params: PyTree[Array], step: int) -> dict[str, float]:
        assert self.measure is not None
        found = self._vectors(params)
        value = float(self.measure(found.user, found.item))
        return {"loss": -value, self.metric: value}

    def _vectors(self, params: PyTree[Array]) -> Factors:
        train, histories = self.train, None
        users = np.arange(train.num_users, dtype=np.int32)
        items = np.arange(train.num_items, dtype=np.int32)
        if self.config.user_tower == "history":
            keys = mixed(np.uint64(self.config.seed), _AFTER_TRAINING, users.astype(np.uint64))
            nothing = np.full(len(users), -1)
            histories = draw_histories(train, users, nothing, self.config.history, keys)
        user = self._whole(self.objective.user_vectors)(params, users, histories)
        item = self._whole(self.objective.item_vectors)(params, items)
        user[train.lengths == 0] = 0.0
        item[train.item_counts() == 0] = 0.0
        return Factors(user, item)

    def _whole(self, function: Callable[..., Array]) -> Callable[..., np.ndarray]:
        """The function compiled, its result whole on every process, as an array of its own."""
        compiled = jax.jit(function, out_shardings=self.partitioner.replicated)
        return lambda *arguments: np.array(compiled(*arguments))


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


def _fitting(partitioner: Partitioner, batch_size: int) -> Partitioner:
    """The partitioner; if its devices do not divide the batch, with whole batches on each."""
    try:
        partitioner.batch_sharding(batch_size)
    except UserError:
        return dataclasses.replace(partitioner, rules=(("batch", None), *partitioner.rules))
    return partitioner
