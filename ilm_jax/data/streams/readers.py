"""Reader processes: batch rows made beside the trainer, where one Python interpreter is too few.

A batch's rows are a pure function of its examples' numbers, so that whoever makes them makes the
same; the readers take turns, and the trainer takes the rows in the order in which it asked.
"""

import itertools
import multiprocessing
import os
import pickle
import signal
import traceback
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from typing import Protocol

import numpy as np

from ilm_jax.data.streams.converters import Batch
from ilm_jax.errors import UserError

_ENDED = (
    "a reader process ended before its rows were made (out of memory?); lower "
    "TrainerConfig.readers; 0 reads in a thread of the trainer"
)


class RowSource(Protocol):
    """One kind of batch: its rows by the numbers of their examples."""

    def rows(self, indices: np.ndarray) -> Batch:
        """The rows of these examples; a pure function of the numbers."""


class Readers:
    """Processes that make batch rows; to be closed when no more are wanted."""

    def __init__(self, sources: Mapping[str, RowSource], count: int) -> None:
        """Starts the processes.

        Args:
          sources: by kind; each opens its data again in every process.
          count: how many processes.

        Raises:
          UserError: for a source that cannot be sent to another process, or if one ends at once.
        """
        # A fork would copy the locks of the threads that JAX has started.
        context = multiprocessing.get_context("spawn")
        self._readers, self._asked = [], itertools.count()
        for _ in range(count):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs,), daemon=True)
            process.start()
            theirs.close()  # so that its end is seen
            self._readers.append((process, ours))
        try:
            for _, ours in self._readers:
                _send(ours, dict(sources))
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            self.close()
            raise UserError(
                f"TrainerConfig.readers = {count}: the examples cannot be read in another process "
                f"({error}); set it to 0"
            ) from error

    def submit(self, kind: str, indices: np.ndarray) -> Callable[[], Batch]:
        """Asks for the rows of these examples.

        Returns:
          What waits for them; to be called in the order of asking. It raises UserError if the
          process ended, or as the source's `rows`.
        """
        _, reader = self._readers[next(self._asked) % len(self._readers)]
        _send(reader, (kind, indices))
        return lambda: _taken(reader)

    def close(self) -> None:
        """Ends the processes; what they have not made is dropped."""
        for process, ours in self._readers:
            ours.close()
            process.kill()
        for process, _ in self._readers:
            process.join()


def _send(reader: Connection, what: object) -> None:
    try:
        reader.send(what)
    except (BrokenPipeError, ConnectionResetError) as error:
        raise UserError(_ENDED) from error


def _taken(reader: Connection) -> Batch:
    try:
        found = reader.recv()
    except (EOFError, ConnectionResetError) as error:
        raise UserError(_ENDED) from error
    if isinstance(found, UserError):
        raise found
    if isinstance(found, str):
        raise RuntimeError(f"in a reader process:\n{found}")
    return found


def _serve(trainer: Connection) -> None:
    """In a reader: makes rows until the trainer has closed its end, or is no more."""
    for asked in (signal.SIGINT, signal.SIGTERM):  # they are the trainer's, which ends its step
        signal.signal(asked, signal.SIG_IGN)
    os.environ["JAX_PLATFORMS"] = "cpu"  # grain imports JAX; the devices are the trainer's
    try:
        sources: dict[str, RowSource] = trainer.recv()
        while True:
            kind, indices = trainer.recv()
            trainer.send(_rows(sources[kind], indices))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return


def _rows(source: RowSource, indices: np.ndarray) -> Batch | UserError | str:
    """The rows, or what is wrong with them: for the user, or for whoever mends the source."""
    try:
        return source.rows(indices)
    except UserError as error:
        return error
    except Exception:
        return traceback.format_exc()
