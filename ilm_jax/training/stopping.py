"""SIGTERM asks for a checkpoint and a clean exit; all processes of a run agree on the step."""

import signal

import jax

# What a run says that was asked to stop; launch/tpu_pod.py looks for it.
STOPPED = "stopped by SIGTERM"


class StopRequest:
    """Within its block a run can be asked to stop.

    One process looks for the signal itself. Of several, any may get it: JAX's coordination service
    tells the others, and names a step that none of them has passed, without a word between them in
    the steps before.
    """

    def __init__(self, heeds: bool = True) -> None:
        """A run that saves nothing does not heed the signal: it ends as any process does."""
        self._heeds = heeds

    def __enter__(self) -> "StopRequest":
        self._asked, self._previous = False, None
        if self._heeds and jax.process_count() == 1:
            try:
                self._previous = signal.signal(signal.SIGTERM, self._ask)
            except ValueError:  # not the main thread (a notebook): no handler, no request
                pass
        return self

    def __exit__(self, *_: object) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGTERM, self._previous)

    def _ask(self, *_: object) -> None:
        self._asked = True

    def requested(self, step: int) -> bool:
        """Whether to stop after `step`; every process asks once in every step."""
        if jax.process_count() == 1:
            return self._asked
        from jax.experimental import multihost_utils

        return bool(multihost_utils.reached_preemption_sync_point(step))
