"""Fits of item and user vectors by the one trainer: what such fits have in common.

Steps, draws and order are pure functions of the seed and the step, as in every run: with a
`model_dir` a fit that was killed goes on from its last checkpoint, and gives the same bits.
"""

import abc
import contextlib
import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, Generic, Protocol, TypeVar

import jax
import numpy as np
from jaxtyping import Array, Float, PyTree

from ilm_jax.cf.ials import Factors
from ilm_jax.checkpoints.checkpoints import CheckpointConfig
from ilm_jax.data.catalogue.splits import Splits
from ilm_jax.data.streams.schedule import Schedule
from ilm_jax.errors import UserError
from ilm_jax.objectives.objective import Objective
from ilm_jax.sharding.partitioning import Partitioner
from ilm_jax.sharding.processes import writing
from ilm_jax.training.optimizers import OptimizerConfig
from ilm_jax.training.trainer import Trainer, TrainerConfig

Measure = Callable[[Float[np.ndarray, "users dim"], Float[np.ndarray, "items dim"]], float]
LOG_EVERY = 100


class Epochs(Protocol):
    """Examples that come epoch after epoch, such as `cf.pairs.Pairs`.

    Attributes:
      batch_size: rows of a batch.
      steps: batches of an epoch.
    """

    batch_size: int
    steps: int

    def rows(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """The batch rows for the examples at these stream indices; a pure function of them."""

    def record(self) -> dict[str, Any]:
        """The examples' part of a run's record."""


@dataclasses.dataclass(frozen=True)
class Shapes:
    """What a method's steps are made of, with no data opened.

    Attributes:
      objective: of a catalogue's size.
      batch_size: rows of a batch.
      row: shapes and types of the arrays of one.
      table: of the table that a step reads.
    """

    objective: Objective
    batch_size: int
    row: Mapping[str, jax.ShapeDtypeStruct]
    table: jax.ShapeDtypeStruct


@dataclasses.dataclass(frozen=True)
class TrainedMethod(abc.ABC):
    """Settings of a method whose vectors are trained step by step; a dataclass."""

    @property
    @abc.abstractmethod
    def epochs(self) -> int:
        """Passes over the examples."""

    @property
    @abc.abstractmethod
    def seed(self) -> int:
        """Of parameters, order and draws."""

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """Of the method, in tables and reports."""

    @property
    @abc.abstractmethod
    def optimizer_config(self) -> OptimizerConfig:
        """How it is trained."""

    @property
    def reads_texts(self) -> bool:
        """Whether items that nobody chose may have vectors all the same."""
        return False

    def shapes(self, num_items: int) -> Shapes:
        """Of a fit to a catalogue of so many items, all alike, for `ilm precompile`.

        Raises:
          UserError: for a method that does not say so.
        """
        raise UserError(f"method {self.name!r} does not say what its steps are without its data")

    @abc.abstractmethod
    def fit_of(self, splits: Splits, **settings: Any) -> "VectorFit":
        """The fit to the training interactions of a split.

        Args:
          splits: of a catalogue.
          **settings: of `VectorFit`, beside its data and its config.

        Raises:
          ValueError: if the data cannot be fitted.
        """


DataT = TypeVar("DataT")
ConfigT = TypeVar("ConfigT", bound=TrainedMethod)


@dataclasses.dataclass(frozen=True, eq=False)
class VectorFit(abc.ABC, Generic[DataT, ConfigT]):
    """One fit: its trainer, and the vectors that it has trained.

    Attributes:
      train: the data.
      config: settings of the method.
      partitioner: the mesh, whose devices share tables by their rows, and batches whose size they
        divide (others every device works off whole).
      model_dir: for checkpoints and metrics; "": nothing is written.
      measure: of user and item vectors on validation; higher is better. The vectors are then those
        of the best measurement. None: those of the last epoch.
      metric: what metrics.jsonl calls it; its negative is the "loss" that checkpoints go by.
      patience: measurements without improvement after which training ends; 0: none.
      every: epochs from one measurement, and checkpoint, to the next.
      made_from: what the run's record says of its data beside the examples.
      config_text: written to config.gin.
    """

    train: DataT
    config: ConfigT
    partitioner: Partitioner = Partitioner()
    model_dir: str = ""
    measure: Measure | None = None
    metric: str = "ndcg@10"
    patience: int = 0
    every: int = 1
    made_from: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    config_text: str = ""

    @property
    @abc.abstractmethod
    def objective(self) -> Objective:
        """The objective, whose first kind of batch the examples are; computed once."""

    @property
    @abc.abstractmethod
    def examples(self) -> Epochs:
        """What it is trained on; computed once."""

    @property
    def table(self) -> np.ndarray:
        """What every step reads beside its batch."""
        return np.zeros((1, 1), np.float32)

    @abc.abstractmethod
    def factors(self, params: PyTree[Array]) -> Factors:
        """Vectors of all users and items; rows without training interactions are zero."""

    @functools.cached_property
    def trainer(self) -> Trainer:
        """The run."""
        config, examples, (kind, *_) = self.config, self.examples, self.objective.kinds
        saves = bool(self.model_dir or self.measure)
        return Trainer(
            model_dir=self.model_dir,
            objective=self.objective,
            table=self.table,
            sources={kind: examples},
            eval_sources={},
            schedule=Schedule({kind: 1}),
            config=TrainerConfig(
                total_steps=config.epochs * examples.steps,
                batch_size=examples.batch_size,
                log_every=min(LOG_EVERY, examples.steps),
                eval_every=self.every * examples.steps if self.measure else 0,
                patience=self.patience,
                seed=config.seed,
            ),
            optimizer=config.optimizer_config,
            # Tables grow from small ones: a norm above the usual is no sign of going astray.
            checkpoint=CheckpointConfig(
                every=self.every * examples.steps if saves else 0, outlier=0.0
            ),
            partitioner=_fitting(self.partitioner, examples.batch_size),
            config_text=self.config_text,
            made_from={"train": {kind: examples.record()}, **self.made_from},
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
        return self.vectors(self.fitted_step)

    @property
    def fitted_step(self) -> str:
        """The step whose vectors `fit` returns; see `Trainer.params`."""
        return "best" if self.measure else "last"

    @property
    def best_epoch(self) -> int:
        """The epoch of the best measurement, after `fit`."""
        return self.trainer.resolve("best") // self.examples.steps

    def vectors(self, step: int | str = "last") -> Factors:
        """Of all users and items, after `fit`; rows without training interactions are zero.

        Args:
          step: see `Trainer.params`.
        """
        return self.factors(self.trainer.params(step))

    def whole(self, function: Callable[..., Array]) -> Callable[..., np.ndarray]:
        """The function compiled, its result whole on every process, as an array of its own."""
        compiled = jax.jit(function, out_shardings=self.partitioner.replicated)
        return lambda *arguments: np.array(compiled(*arguments))

    def _validate(self, params: PyTree[Array], step: int) -> dict[str, float]:
        assert self.measure is not None
        found = self.factors(params)
        value = float(self.measure(found.user, found.item))
        return {"loss": -value, self.metric: value}


def _fitting(partitioner: Partitioner, batch_size: int) -> Partitioner:
    """The partitioner; if its devices do not divide the batch, with whole batches on each."""
    try:
        partitioner.batch_sharding(batch_size)
    except UserError:
        return dataclasses.replace(partitioner, rules=(("batch", None), *partitioner.rules))
    return partitioner
