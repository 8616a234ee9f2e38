"""Where a step's time goes, how much of the batch is not padding, and a trace of some steps."""

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import jax

from ilm_jax.errors import UserError

T = TypeVar("T")
# Records of metrics.jsonl that differ between two runs of the same bits.
TIMED = ("examples_per_second", "tokens_per_second", "mfu")
TIMED_PREFIX = "time/"


class StepClock:
    """Seconds since the last log, by what they went to."""

    def __init__(self) -> None:
        """Starts at nothing."""
        self._reset()

    def _reset(self) -> None:
        self._start, self._steps = time.monotonic(), 0
        self._spent: dict[str, float] = {}

    @contextlib.contextmanager
    def of(self, name: str) -> Iterator[None]:
        """Counts the block as `name`: "data_wait", "checkpoint", "evaluation"."""
        start = time.monotonic()
        try:
            yield
        finally:
            self._spent[name] = self._spent.get(name, 0.0) + time.monotonic() - start

    def batches(self, batches: Iterable[T]) -> Iterator[T]:
        """The same batches, waiting for them counted and steps numbered."""
        source = iter(batches)
        while True:
            with self.of("data_wait"):
                try:
                    batch = next(source)
                except StopIteration:
                    return
            self._steps += 1
            yield batch

    def read(self, tokens: float, flops: float, peak: float) -> dict[str, float]:
        """Seconds per step since the last reading, and what they were used for; starts anew.

        Steps run while the host goes on, so a step's time is what nothing else was waited for.

        Args:
          tokens: that were not padding; 0 where batches have none.
          flops: that all steps needed, padding left out; 0 where unknown.
          peak: of all devices together per second; 0 where unknown.
        """
        total = max(time.monotonic() - self._start, 1e-9)
        steps = max(1, self._steps)
        known = {name: self._spent.get(name, 0.0) for name in ("data_wait", "checkpoint")}
        rest = max(0.0, total - sum(self._spent.values()))
        found = {f"{TIMED_PREFIX}{name}": spent / steps for name, spent in known.items()}
        found[f"{TIMED_PREFIX}step"] = rest / steps
        if tokens:
            found["tokens_per_second"] = tokens / total
        if flops and peak:
            found["mfu"] = flops / total / peak
        self._reset()
        return found


def peak_flops() -> float:
    """Operations per second of all devices; 0 where they are not TPUs that we know."""
    from ilm_jax.training.chips import of_kind

    chip = of_kind(jax.devices()[0].device_kind)
    return chip.flops * jax.device_count() if chip else 0.0


class Profile:
    """Traces the steps from `first` up to `last` (not included) into MODEL_DIR/profile."""

    def __init__(self, steps: str, folder: str) -> None:
        """`steps` is "10:15", or "" for none.

        Raises:
          UserError: for anything else.
        """
        self._folder, self._running = f"{folder}/profile", False
        self._first = self._last = -1
        if steps:
            first, _, last = steps.partition(":")
            if not (first.isdigit() and last.isdigit() and int(first) < int(last)):
                raise UserError(f"--profile_steps={steps}: write it as 10:15 (steps 10 to 14)")
            self._first, self._last = int(first), int(last)

    def before(self, step: int) -> None:
        """Called before each step; starts the trace at the first one."""
        if step == self._first:
            jax.profiler.start_trace(self._folder)
            self._running = True

    def after(self, step: int, wait_for: Callable[[], object]) -> None:
        """Called with the number of steps done; ends the trace when those to trace are."""
        if self._running and step >= self._last:
            wait_for()
            self.stop()

    def stop(self) -> None:
        """Ends a trace that is under way."""
        if self._running:
            jax.profiler.stop_trace()
            self._running = False
