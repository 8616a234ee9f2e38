"""One stage of training: from parameters to the last step; resumes where it was."""

import contextlib
import dataclasses
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import jax
import numpy as np
import optax
from jaxtyping import Array, PyTree

from ilm_jax import __version__
from ilm_jax.checkpoints import record
from ilm_jax.checkpoints.checkpoints import CheckpointConfig, Checkpoints, InitFrom
from ilm_jax.checkpoints.fingerprints import fingerprint
from ilm_jax.checkpoints.identity import identity
from ilm_jax.checkpoints.in_memory import InMemory
from ilm_jax.checkpoints.layout import disk_names
from ilm_jax.checkpoints.loading import load_sources
from ilm_jax.checkpoints.published.sources import describe, describe_objective
from ilm_jax.checks import Count, Number, Seed, check
from ilm_jax.data.streams.schedule import Positions, Schedule
from ilm_jax.errors import UserError
from ilm_jax.files import atomic_write, folder_path, is_full
from ilm_jax.objectives.objective import Objective
from ilm_jax.sharding.freezing import split_by_patterns, trainable_table
from ilm_jax.sharding.partitioning import Partitioner
from ilm_jax.sharding.state import (
    TrainState,
    describe_variables,
    make_state,
    model_info,
    nested,
)
from ilm_jax.training import finished, fitting, resuming
from ilm_jax.training.data_start import DataStart
from ilm_jax.training.feeding import ExampleSource
from ilm_jax.training.loop import Loop
from ilm_jax.training.optimizers import OptimizerConfig
from ilm_jax.training.patience import Patience
from ilm_jax.training.preconditions import check_trainer
from ilm_jax.training.stopping import STOPPED, StopRequest


@dataclasses.dataclass(frozen=True)
class TrainerConfig:
    """Settings of a stage of training: length, intervals, initial parameters.

    Attributes:
      total_steps, batch_size: updates, and global rows of each.
      microbatches: rows are processed in so many parts, gradients summed.
      trainable: path patterns of what trains; the rest is frozen.
      adapters: patterns of what is added to a model, such as low-rank updates and item heads: they
        train and may start fresh, whatever else does.
      init: checkpoints to take parameters from.
      allow_fresh: patterns that may start fresh although `init` names sources.
      log_every, eval_every: steps; eval_every 0: only at the end.
      eval_batches: at most so many validation batches per kind.
      patience: validations in a row without a lower `loss` after which the run ends; 0: never.
      seed: of parameters, dropout and drawn negatives.
      readers: processes on every host that make batches; 0: a thread of the trainer does.
      metric_writers: where metrics go beside metrics.jsonl, with settings (training/writers.py).
    """

    total_steps: Count
    batch_size: Count
    microbatches: Count = 1
    trainable: tuple[str, ...] = (".*",)
    adapters: tuple[str, ...] = ()
    init: tuple[InitFrom, ...] = ()
    allow_fresh: tuple[str, ...] = ()
    log_every: Count = 50
    eval_every: Number = 0
    eval_batches: Count = 16
    patience: Number = 0
    seed: Seed = 0
    readers: Number = 0
    metric_writers: Mapping[str, Mapping[str, Any]] = dataclasses.field(
        default_factory=lambda: {"tensorboard": {}}
    )

    def __post_init__(self) -> None:
        check(self)

    @property
    def trains(self) -> tuple[str, ...]:
        """Patterns of everything that trains."""
        return (*self.trainable, *self.adapters)


class Inference(Protocol):
    """Metrics of the model's answers, such as `evaluation.infer_eval.InferEval`."""

    every: int

    def __call__(self, params: PyTree[Array], step: int) -> dict[str, float]:
        """Measures nested parameters; every process takes part."""


@dataclasses.dataclass
class Trainer:
    """One stage of training.

    Attributes:
      model_dir: where checkpoints, metrics and configuration go; "": nothing is written, and what
        trained is had from `params`.
      objective: what is minimised, with its sizes known.
      sources: training examples by batch kind.
      schedule: which kind each step takes.
      table: embedding table [capacity, cf]; an argument of every step, neither trained nor frozen.
      start_rows: rows of it from which parameters start (data_start.py); None: all but zeros.
      eval_sources: (examples, their number) by batch kind.
      config_text: written to config.gin.
      made_from: of the run's record (record.py), what the trainer cannot know: data, table,
        tokenizer, tasks.
      inference: generation metrics, every so many steps and at the end; None for none.
      validate: measures nested parameters at a step, beside the losses of `eval_sources`; what it
        names "loss" is what checkpoints and patience go by. Every process takes part.
      profile_steps: "10:15" traces these steps into MODEL_DIR/profile.
      step_flops: operations that a step of each kind needs, for the MFU.
      stopped: whether `fit` ended before `total_steps`, as it was asked to.
      best_step: of the checkpoints kept, the one with the lowest validation loss.
      was_finished: whether the run had ended before `fit`, which then wrote nothing.
    """

    model_dir: str
    objective: Objective
    sources: Mapping[str, ExampleSource]
    schedule: Schedule
    config: TrainerConfig
    _: dataclasses.KW_ONLY
    table: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((1, 1), np.float32))
    start_rows: np.ndarray | None = None
    eval_sources: Mapping[str, tuple[ExampleSource, int]] = dataclasses.field(default_factory=dict)
    optimizer: OptimizerConfig = OptimizerConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    partitioner: Partitioner = Partitioner()
    config_text: str = ""
    made_from: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    inference: Inference | None = None
    validate: Callable[[PyTree[Array], int], Mapping[str, float]] | None = None
    profile_steps: str = ""
    step_flops: Mapping[str, float] = dataclasses.field(default_factory=dict)
    stopped: bool = False
    best_step: int | None = None
    was_finished: bool = False

    def fit(self) -> dict[str, float]:
        """Trains to `total_steps`, or until patience is over, or SIGTERM asks to stop.

        Returns:
          The last validation metrics (empty without evaluation).

        Raises:
          UserError: for what a person can mend; also where the loss is no longer finite.
        """
        check_trainer(self)
        checkpoints: Checkpoints | InMemory = InMemory()
        if self.model_dir:
            checkpoints = Checkpoints(self.model_dir, self.checkpoint)
        self._checkpoints = checkpoints
        try:
            if self.checkpoint.outlier:
                checkpoints.check_good()
            self._settle(checkpoints)
            optimizer = self.optimizer.build(self.config.total_steps)
            state, positions = self._start(optimizer, checkpoints)
            self._state = state
            if self.was_finished:
                return resuming.validation_at(self.model_dir, int(state.step))
            with self.partitioner.context(), StopRequest(heeds=bool(self.model_dir)) as stop:
                loop = Loop(self, state, optimizer, checkpoints, stop)
                metrics, self._state = loop.run(state, positions)
            self.best_step = checkpoints.best_step()
            self.stopped = self.step < self.config.total_steps and not loop.patience.over
            if self.stopped:
                _say(f"{STOPPED}; saved step {self.step}; the same command resumes there")
            return metrics
        except Exception as error:
            if not is_full(error):
                raise
            raise UserError(
                f"no space left for {self.model_dir}: the last whole checkpoint is of step "
                f"{checkpoints.latest_step or '0 (none)'}; make room (or lower "
                "CheckpointConfig.keep_last), and the same command resumes there"
            ) from error
        finally:
            checkpoints.close()

    @property
    def step(self) -> int:
        """The step at which `fit` ended."""
        return int(self._state.step)

    def params(self, step: int | str = "last") -> PyTree[Array]:
        """Trained and frozen parameters after `fit`, nested and on the mesh.

        Args:
          step: "last"; "best": of the lowest validation loss among the checkpoints kept, else the
            last; or the step of a checkpoint that is kept.

        Raises:
          UserError: if there is no such checkpoint.
        """
        trainable, frozen = self._state.trainable, self._state.frozen
        if step != "last":
            with self._kept() as kept:
                trainable = kept.trained(kept.resolve(step), trainable)
        return nested({**trainable, **frozen})

    def resolve(self, step: int | str) -> int:
        """The step of a checkpoint; see `params`."""
        with self._kept() as kept:
            return kept.resolve(step)

    @contextlib.contextmanager
    def _kept(self) -> Iterator[Checkpoints | InMemory]:
        kept = Checkpoints(self.model_dir) if self.model_dir else self._checkpoints
        try:
            yield kept
        finally:
            kept.close()

    def initial_state(
        self, optimizer: optax.GradientTransformation, *, begins: bool = True
    ) -> tuple[TrainState, str]:
        """The state before the first step, and the report of what was restored from where.

        `begins`: else the run is gone on with, and what would start from data is left as drawn.
        """
        self._data_start = DataStart(
            self.objective, self.partitioner, self.table, self.start_rows, self.config.seed
        )
        self._data_start.begins = begins
        variables = describe_variables(self.objective)
        params, report = load_sources(
            self.objective,
            variables,
            self.config.init,
            (*self.config.allow_fresh, *self.config.adapters),
            self.partitioner,
            jax.random.key(self.config.seed),
            self.made_from,
            self._data_start,
        )
        trainable, frozen = split_by_patterns(params, self.config.trains)
        self._data_start.check(frozen)
        return make_state(trainable, frozen, optimizer), report

    def _settle(self, checkpoints: Checkpoints | InMemory) -> None:
        """What the newest checkpoint decides, before anything large is loaded."""
        before, total = checkpoints.latest_meta, self.config.total_steps
        self.was_finished = resuming.is_finished(self.model_dir, checkpoints.latest_step, total)
        self.was_finished |= Patience(self.config.patience, (before or {}).get("patience")).over
        scheduled = resuming.schedule_of(before)
        self.optimizer = self.optimizer.started(total, scheduled)
        self._record = self._made_from()
        if before is not None:
            lines = record.check_resume(before.get("made_from"), self._record, self.model_dir)
            if scheduled and total > scheduled == self.optimizer.decay_steps:
                lines.append(
                    f"the learning rate stays at its end: its schedule was for {scheduled} steps; "
                    f"OptimizerConfig.decay_steps = {total} would stretch it"
                )
            _say("\n".join(lines))

    def _start(
        self, optimizer: optax.GradientTransformation, checkpoints: Checkpoints | InMemory
    ) -> tuple[TrainState, Positions]:
        begins = checkpoints.latest_step is None
        state, report = self.initial_state(optimizer, begins=begins)
        positions = Positions(dict.fromkeys(self.schedule.kinds, 0))
        self._frozen_fingerprint = fingerprint(state.frozen)
        checkpoints.drawn = [path for path in self._data_start.fresh if path in state.frozen]
        names = disk_names({**state.trainable, **state.frozen})
        self._drawn = sorted(name for path in checkpoints.drawn for name in names[path])
        if not begins:
            state, positions, meta = checkpoints.resume(state)
            self._data_start.record = meta.get("data_start", {})
            report = f"  resumed at step {int(state.step)} from {self.model_dir}"
            for line in resuming.check_bits(self.model_dir, meta, state, self._frozen_fingerprint):
                _say(line)
        _say(f"parameters:\n{report}\n{trainable_table(state.trainable, state.frozen)}")
        _say(fitting.type_note(self.objective))
        if self.model_dir and jax.process_index() == 0 and not self.was_finished:
            self._write_beside(state)
        return state, positions

    def _write_beside(self, state: TrainState) -> None:
        """What MODEL_DIR holds beside checkpoints and metrics."""
        folder = folder_path(self.model_dir)
        variables = describe_variables(self.objective)
        made_from = {**self._record, "frozen": self._frozen_fingerprint}
        texts = {
            "model-info.txt": model_info(variables, list(state.trainable), self.partitioner),
            "config.gin": self.config_text,
            record.FILE: json.dumps(made_from, indent=1) + "\n",
        }
        for name, text in texts.items():
            with atomic_write(folder / name) as stream:
                stream.write(text)
        (folder / finished.FILE).unlink(missing_ok=True)  # it said so of fewer steps

    def _made_from(self) -> dict[str, Any]:
        """The run's record, but for the frozen weights: those are not loaded yet."""
        config = self.config
        init = [
            {**dataclasses.asdict(source), "identity": identity(source.path, source.step)}
            for source in config.init
        ]
        return record.plain(
            {
                **self.made_from,
                "objective": dict([describe(self.objective)]),
                "schedule": dict(self.schedule.shares),
                "optimizer": dataclasses.asdict(self.optimizer),
                "steps": config.total_steps,
                "batch": {"size": config.batch_size, "microbatches": config.microbatches},
                "trains": {"trainable": config.trainable, "adapters": config.adapters},
                "init": init,
                "seed": config.seed,
                "code": record.code_version(),
            }
        )

    def meta(self, state: TrainState) -> dict[str, Any]:
        """Metadata of every checkpoint."""
        return {
            "version": __version__,
            "frozen": self._frozen_fingerprint,
            "drawn": self._drawn,
            "weights": fingerprint(state.trainable),
            "tokenizer": self.made_from.get("tokenizer"),
            "made_from": self._record,
            "configs": describe_objective(self.objective),
            "init": [dataclasses.asdict(source) for source in self.config.init],
            "data_start": self._data_start.record,
            "environment": resuming.environment(),
            "saved_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }


def _say(text: str | None) -> None:
    if text is not None and jax.process_index() == 0:
        print(text, file=sys.stderr, flush=True)
