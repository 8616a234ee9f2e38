"""Checkpoints of a run without a MODEL_DIR: its best and its last weights, in memory alone."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ilm_jax.checkpoints.keeping import loss_of
from ilm_jax.data.streams.schedule import Positions
from ilm_jax.errors import UserError
from ilm_jax.sharding.state import FlatParams, TrainState


class InMemory:
    """As `Checkpoints`, of a run that starts anew each time and leaves no file."""

    latest_step: int | None = None
    latest_meta: dict[str, Any] | None = None
    drawn: Sequence[str] = ()

    def __init__(self) -> None:
        """Holds nothing yet."""
        self._saved: dict[int, FlatParams] = {}
        self._loss = loss_of(None)
        self._best: int | None = None
        self._last: int | None = None

    def save(
        self,
        state: TrainState,
        positions: Positions,
        meta: Mapping[str, Any],
        metrics: Mapping[str, float] | None,
    ) -> None:
        """Keeps a copy of what trains, if it is the best so far or the last."""
        step, loss = int(state.step), loss_of(metrics)
        if self._best is None or loss <= self._loss:
            self._best, self._loss = step, loss
        self._last = step
        self._saved[step] = jax.tree.map(jnp.copy, state.trainable)
        self._saved = {at: x for at, x in self._saved.items() if at in (self._best, step)}

    def resolve(self, step: int | str) -> int:
        """Turns "best" or "last" into a step.

        Raises:
          UserError: if there is no such checkpoint.
        """
        at = {"best": self._best, "last": self._last}.get(str(step), step)
        if not isinstance(at, int) or at not in self._saved:
            raise UserError(f"no checkpoint {step!r} in memory; there are: {[*self._saved]}")
        return at

    def best_step(self) -> int | None:
        """The step of the lowest loss."""
        return self._best

    def trained(self, step: int, like: FlatParams) -> FlatParams:
        """The trainable parameters as they were at a step."""
        return {path: self._saved[step][path] for path in like}

    def resume(self, state: TrainState) -> tuple[TrainState, Positions, dict[str, Any]]:
        """There is never anything to go on from.

        Raises:
          UserError: always.
        """
        raise UserError("a run without a MODEL_DIR cannot be gone on with: give it one")

    def last_good_step(self) -> int | None:
        """None: nothing outlives the run."""
        return None

    def check_good(self) -> None:
        """Nothing was marked."""

    def wait(self) -> None:
        """Nothing is written."""

    def close(self) -> None:
        """Nothing is open."""
