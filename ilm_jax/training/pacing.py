"""The host waits: only so many dispatched programs are under way at once, on any backend.

Each of them holds its temporaries from its dispatch on. Left alone, a loop dispatches all steps up
to the next time that it reads a result, and memory grows by one step's temporaries with each.
"""

import collections
from collections.abc import Callable
from typing import TypeVar

import jax

from ilm_jax.training.host_memory import HOST_MEMORY

IN_FLIGHT = 2
T = TypeVar("T")


class Pacer:
    """Calls compiled functions, and waits for the one before the last."""

    def __init__(self, most: int = IN_FLIGHT) -> None:
        """At most `most` calls are under way at once."""
        self._most = most
        self._under_way: collections.deque[object] = collections.deque()

    def limit(self, most: int) -> None:
        """Lets fewer be under way, if `most` is less than before."""
        self._most = min(self._most, most)

    def __call__(self, call: Callable[[], T], watched: Callable[[T], object]) -> T:
        """Makes room, calls, and returns what the call returns.

        Args:
          call: dispatches one program.
          watched: picks of its results what tells that it is done, and is not donated to a later
            call.
        """
        while len(self._under_way) >= self._most:
            jax.block_until_ready(self._under_way.popleft())
            HOST_MEMORY.settle()
        result = call()
        self._under_way.append(watched(result))
        return result
