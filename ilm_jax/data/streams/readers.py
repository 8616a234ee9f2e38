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
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
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
        self._cut: list[Mapping[str, int]] = [{}] * count
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
        number = next(self._asked) % len(self._readers)
        _, reader = self._readers[number]
        _send(reader, (kind, indices))

        def taken() -> Batch:
            """The rows, once they are there."""
            found, self._cut[number] = _taken(reader)
            return found

        return taken

    @property
    def cut(self) -> Counter[str]:
        """Examples that were cut so far, by what of them was cut; of rows that were taken."""
        return added(self._cut)

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


def cut_of(sources: Iterable[object]) -> Counter[str]:
    """Examples that sources have cut so far; those that count nothing have cut nothing."""
    return added(getattr(source, "counts", {}) for source in sources)


def added(counts: Iterable[Mapping[str, int]]) -> Counter[str]:
    """The sum of counts."""
    total: Counter[str] = Counter()
    for some in counts:
        total.update(dict(some))
    return total


def _taken(reader: Connection) -> tuple[Batch, Mapping[str, int]]:
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
            trainer.send(_rows(sources, kind, indices))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return


def _rows(
    sources: Mapping[str, RowSource], kind: str, indices: np.ndarray
) -> tuple[Batch, Mapping[str, int]] | UserError | str:
    """(the rows, what was cut so far), or what is wrong: for the user, or for whoever mends it."""
    try:
        return sources[kind].rows(indices), cut_of(sources.values())
    except UserError as error:
        return error
    except Exception:
        return traceback.format_exc()
