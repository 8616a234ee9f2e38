"""The loop of a run: step, log, validate, save; at most two steps are under way at once."""

import functools
import math
from collections import Counter
from typing import TYPE_CHECKING

import jax
import optax

from ilm_jax.checkpoints.checkpoints import Checkpoints
from ilm_jax.checkpoints.in_memory import InMemory
from ilm_jax.checkpoints.keeping import loss_of
from ilm_jax.data.streams.schedule import Positions
from ilm_jax.errors import UserError
from ilm_jax.sharding.state import TrainState, nested
from ilm_jax.training import fitting
from ilm_jax.training.feeding import training_batches
from ilm_jax.training.health import Health
from ilm_jax.training.host_memory import HOST_MEMORY
from ilm_jax.training.live_line import LiveLine
from ilm_jax.training.optimizers import global_norm
from ilm_jax.training.pacing import Pacer
from ilm_jax.training.patience import Patience
from ilm_jax.training.step import Batch, Report, StepResult, make_train_step
from ilm_jax.training.stopping import StopRequest
from ilm_jax.training.timing import Profile, StepClock, peak_flops
from ilm_jax.training.validation import Validation
from ilm_jax.training.window import Window
from ilm_jax.training.writers import MetricWriters, WriterRun

if TYPE_CHECKING:
    from ilm_jax.training.trainer import Trainer

VALIDATION, ANSWERS, SAVING = "validation", "answers", "saving"


class Loop:
    """From a state to the last step, or to the one at which it is asked to stop."""

    def __init__(
        self,
        trainer: "Trainer",
        state: TrainState,
        optimizer: optax.GradientTransformation,
        checkpoints: Checkpoints | InMemory,
        stop: StopRequest,
    ) -> None:
        """Prepares the programs; they are compiled when first called.

        Args:
          trainer: what is trained, how and on what.
          state: gives first step, shapes and shardings.
          optimizer: over what trains.
          checkpoints: of the run.
          stop: tells whether to stop.
        """
        config, partitioner = trainer.config, trainer.partitioner
        self._trainer, self._checkpoints, self._stop = trainer, checkpoints, stop
        self._first, self._total = int(state.step), config.total_steps
        self._table = jax.device_put(trainer.table, partitioner.replicated)
        self._key = jax.device_put(jax.random.key(config.seed + 1), partitioner.replicated)
        self._steps = {
            kind: make_train_step(
                trainer.objective,
                kind,
                optimizer,
                partitioner,
                state,
                config.batch_size,
                microbatches=config.microbatches,
            )
            for kind in trainer.schedule.kinds
        }
        self._validation = Validation(
            trainer.objective,
            trainer.eval_sources,
            partitioner,
            self._table,
            config.batch_size,
            config.eval_batches,
        )
        self._rate = trainer.optimizer.learning_rate_at(config.total_steps)
        meta = checkpoints.latest_meta or {}
        self.patience = Patience(config.patience, meta.get("patience"))
        norms = meta.get("weight_norms")
        norms = norms or [float(jax.jit(global_norm)(state.trainable))]
        self._health = Health(trainer.checkpoint.outlier, norms)
        self._line = LiveLine(
            self._total, self._first, self._to_come, active=jax.process_index() == 0
        )
        self._window, self._clock, self._pacer = Window(), StepClock(), Pacer()
        self._compiled: set[str] = set()
        self._told = False  # of padding, and of what was cut
        self._cut, self._cut_before = Counter[str](), Counter[str]()

    def run(self, state: TrainState, positions: Positions) -> tuple[dict[str, float], TrainState]:
        """Returns (the last validation metrics, the state in which it ended).

        Raises:
          UserError: where loss, gradient or new weights are not finite.
        """
        trainer, step = self._trainer, self._first
        metrics: dict[str, float] = {}
        writes = jax.process_index() == 0 and bool(trainer.model_dir)
        run = WriterRun(trainer.model_dir, step, trainer.config_text)
        self._writer = MetricWriters(run, trainer.config.metric_writers, active=writes)
        batches = training_batches(
            trainer.sources,
            trainer.schedule,
            positions,
            step,
            self._total,
            trainer.config.batch_size,
            trainer.partitioner,
            readers=trainer.config.readers,
            cut=self._cut,
        )
        profile = Profile(trainer.profile_steps, trainer.model_dir)
        try:
            for kind, batch, positions in self._clock.batches(batches):
                profile.before(step)
                state, report = self._step(kind, state, batch)
                step += 1
                profile.after(step, functools.partial(jax.block_until_ready, state))
                self._window.add(kind, report)
                stops, ends = self._stop.requested(step), step == self._total
                metrics = self._after(step, state, positions, ends, stops) or metrics
                if stops or ends or self.patience.over:
                    break
            profile.stop()
            with self._line.pause(SAVING):
                self._checkpoints.wait()
        finally:
            self._writer.close()
            self._line.close()
        return metrics, state

    def _step(self, kind: str, state: TrainState, batch: Batch) -> StepResult:
        args = (state, batch, self._table, self._key)
        call = functools.partial(self._steps[kind], *args)
        if kind in self._compiled:
            return self._pacer(call, _report)
        self._compiled.add(kind)
        HOST_MEMORY.give_back()
        with self._line.pause(f"compiling {kind}", long=True):
            # The call finds what is compiled here.
            needed = fitting.temporaries(self._steps[kind].lower(*args).compile())
            if lacking := fitting.shortage(needed):
                self._line.note(lacking)
            self._pacer.limit(fitting.steps_in_flight(needed))
            return self._pacer(call, _report)

    def _after(
        self, step: int, state: TrainState, positions: Positions, ends: bool, stops: bool
    ) -> dict[str, float] | None:
        """What is due after a step; returns validation metrics where they are.

        A run that is told to stop logs and saves, and measures only what is due anyway: else it
        would not end where one that is left alone does.
        """
        config, trainer = self._trainer.config, self._trainer
        norm = None
        if ends or stops or self._is_due(step, config.log_every):
            norm = self._log(step)
        found, best = None, False
        if ends or self._is_due(step, config.eval_every):
            with self._clock.of("evaluation"):
                found = self._validate(step, state)
            if found:
                self._writer.write(step, {f"validation/{k}": v for k, v in found.items()})
            if "loss" in found:
                best = self.patience.add(loss_of(found))
            ends = ends or self.patience.over
        if trainer.inference and (ends or self._is_due(step, trainer.inference.every)):
            with self._clock.of("evaluation"), self._line.pause(ANSWERS, long=True):
                answers = trainer.inference(nested({**state.trainable, **state.frozen}), step)
            self._writer.write(step, {f"infer_eval/{k}": v for k, v in answers.items()})
        # What patience waits for must be there when it is over.
        best = best and bool(config.patience)
        if ends or stops or best or self._is_due(step, trainer.checkpoint.every):
            with self._clock.of("checkpoint"), self._line.pause(SAVING):
                self._save(step, state, positions, found, norm)
        if norm is not None:
            self._health.add(norm)
        return found

    def _log(self, step: int) -> float:
        """Writes the window's means; returns the norm of what trains."""
        self._check_finite(step)
        window, self._window = self._window, Window()
        metrics, norm = window.metrics(), window.weight_norm
        examples = window.steps * self._trainer.config.batch_size
        notes = fitting.padding_note(window.full_steps()), fitting.cut_note(self._cut)
        for note in notes:
            if note is not None and not self._told:
                self._line.note(note)
        self._told = True
        since = self._cut - self._cut_before
        self._cut_before = self._cut.copy()
        metrics |= {f"cut_{what}": float(count) for what, count in since.items()}
        spent = self._clock.read(metrics.pop("tokens"), *self._flops(window))
        speed = self._line.show(step, metrics["loss"], examples)
        rate = float(self._rate(step - 1))
        speeds = {"examples_per_second": speed, **spent}
        self._writer.write(step, {**metrics, "learning_rate": rate, **speeds})
        return norm

    def _validate(self, step: int, state: TrainState) -> dict[str, float]:
        HOST_MEMORY.give_back()
        with self._line.pause(VALIDATION) as tell:
            found = self._validation(state, tell)
            if self._trainer.validate:
                params = nested({**state.trainable, **state.frozen})
                found |= self._trainer.validate(params, step)
        odd = [name for name, value in found.items() if not math.isfinite(value)]
        if odd:
            self._line.note(
                f"warning: step {step}: validation's {', '.join(odd)} is not a finite "
                "number; this checkpoint will not count as the best"
            )
        return found

    def _save(
        self,
        step: int,
        state: TrainState,
        positions: Positions,
        metrics: dict[str, float] | None,
        norm: float | None,
    ) -> None:
        if norm is None:  # no log at this step: what came since the last one is not looked at yet
            self._check_finite(step)
            norm = self._window.weight_norm
        record = self._health.record(norm)
        if not record["good"]:
            self._line.note(
                f"warning: step {step}: the norm of what trains is {norm:.3g}, more than "
                f"{self._trainer.checkpoint.outlier:g} times its usual "
                f"{record['usual_weight_norm']:.3g}: its checkpoint is marked as not good"
            )
        meta = {**self._trainer.meta(state), **record, "patience": self.patience.record()}
        self._checkpoints.save(state, positions, meta, metrics)

    def _check_finite(self, step: int) -> None:
        """Ends the run at its first step that was not finite; nothing of it is saved."""
        bad = self._window.first_bad()
        if bad is None:
            return
        place, found = bad
        at = step - self._window.steps + place + 1
        self._checkpoints.wait()
        good = self._checkpoints.last_good_step()
        measured = ", ".join(f"{name} {value:.3g}" for name, value in found.items())
        start, before = "", "no checkpoint was saved"
        if good is not None:
            start = ", started from it (TrainerConfig.init)"
            before = f"the last good checkpoint is of step {good}"
        raise UserError(
            f"loss, gradient or new weights are not finite at step {at} ({measured}): "
            f"{before}; try a lower learning rate or a longer warm-up in a new MODEL_DIR{start}"
            + ("; at the first step look at the weights it starts from" if at == 1 else "")
        )

    def _is_due(self, step: int, every: int) -> bool:
        return bool(every) and step % every == 0

    def _to_come(self, step: int) -> dict[str, int]:
        trainer = self._trainer
        every = {VALIDATION: trainer.config.eval_every, SAVING: trainer.checkpoint.every}
        if trainer.inference:
            every[ANSWERS] = trainer.inference.every
        last = self._total - 1
        return {name: 1 + (last // n - step // n if n else 0) for name, n in every.items()}

    def _flops(self, window: Window) -> tuple[float, float]:
        """(operations that the window's steps needed, padding left out; the devices' peak)."""
        peak, flops = peak_flops(), self._trainer.step_flops
        if not peak:
            return 0.0, 0.0
        return sum(flops.get(kind, 0.0) * n for kind, n in window.full_steps()), peak


def _report(result: StepResult) -> Report:
    return result[1]
