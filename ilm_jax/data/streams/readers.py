"""Reader processes: batch rows made beside the trainer, where one Python interpreter is too few.

A batch's rows are a pure function of its examples' numbers, so that whoever makes them makes the
same; the trainer takes them in the order in which it asked.
"""

import multiprocessing
import multiprocessing.connection
import os
import pickle
import signal
import threading
from collections.abc import Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Protocol

import numpy as np

from ilm_jax.data.streams.converters import Batch
from ilm_jax.errors import UserError


class RowSource(Protocol):
    """One kind of batch: its rows by the numbers of their examples."""

    def rows(self, indices: np.ndarray) -> Batch:
        """The rows of these examples; a pure function of the numbers."""


class Readers:
    """Processes that make batch rows; to be closed when no more are wanted."""

    def __init__(self, sources: Mapping[str, RowSource], count: int) -> None:
        """Starts none yet: each starts with the first rows that are asked of it.

        Args:
          sources: by kind; each opens its data again in every process.
          count: how many processes.

        Raises:
          UserError: for a source that cannot be sent to another process.
        """
        try:
            pickle.dumps(dict(sources))
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise UserError(
                f"TrainerConfig.readers = {count}: the examples cannot be read in another process "
                f"({error}); set it to 0"
            ) from error
        # A fork would copy the locks of the threads that JAX has started.
        context = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(count, context, _begin, (dict(sources),))

    def submit(self, kind: str, indices: np.ndarray) -> "Future[Batch]":
        """The rows of these examples, when they are made; `result` says what `taken` reads."""
        return self._pool.submit(_rows, kind, indices)

    def close(self) -> None:
        """Ends the processes; what they have not begun is dropped."""
        self._pool.shutdown(wait=True, cancel_futures=True)


def taken(rows: "Future[Batch]") -> Batch:
    """The rows that were asked for; waits for them.

    Raises:
      UserError: if the process that made them ended; or as the source's `rows`.
    """
    try:
        return rows.result()
    except BrokenProcessPool as error:
        raise UserError(
            "a reader process ended before its rows were made (out of memory?); lower "
            "TrainerConfig.readers; 0 reads in a thread of the trainer"
        ) from error


_sources: dict[str, RowSource] = {}


def _begin(sources: dict[str, RowSource]) -> None:
    """In a reader: takes the sources, and sees to it that it ends when the trainer does."""
    for asked in (signal.SIGINT, signal.SIGTERM):  # they are the trainer's, which ends its step
        signal.signal(asked, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ["JAX_PLATFORMS"] = "cpu"  # grain imports JAX; the devices are the trainer's
    _sources.update(sources)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)


def _rows(kind: str, indices: np.ndarray) -> Batch:
    return _sources[kind].rows(indices)
