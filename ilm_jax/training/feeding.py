"""Batches for the devices: the rows of this process, converted and assembled ahead of time."""

import concurrent.futures
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

import jax
import numpy as np

from ilm_jax.data.streams.readers import Readers
from ilm_jax.data.streams.schedule import Positions, Schedule
from ilm_jax.sharding.partitioning import Partitioner


class ExampleSource(Protocol):
    """One kind of batch: examples by index, and their conversion to arrays."""

    def rows(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """The batch rows for the examples at these stream indices; a pure function of them."""


def global_batch(
    source: ExampleSource, first: int, batch_size: int, partitioner: Partitioner
) -> dict[str, jax.Array]:
    """The global batch of examples [first, first + batch_size); reads this process's rows only."""
    rows = partitioner.local_rows(batch_size)
    return partitioner.global_batch(source.rows(first + rows), batch_size)


def training_batches(
    sources: Mapping[str, ExampleSource],
    schedule: Schedule,
    positions: Positions,
    first_step: int,
    last_step: int,
    batch_size: int,
    partitioner: Partitioner,
    *,
    ahead: int = 2,
    readers: int = 0,
) -> Iterator[tuple[str, dict[str, jax.Array], Positions]]:
    """Yields (kind, batch, positions after it) for the steps in [first_step, last_step).

    A thread prepares `ahead` batches; what it prepares depends on the step alone. With `readers`
    it takes their rows from so many processes, each of which is two batches ahead.

    Raises:
      UserError: as `Readers`.
    """
    local = partitioner.local_rows(batch_size)
    processes = Readers(sources, readers) if readers else None

    def job(kind: str, first: int) -> Callable[[], dict[str, jax.Array]]:
        """What makes the batch of examples [first, first + batch_size)."""
        if processes is None:
            return functools.partial(global_batch, sources[kind], first, batch_size, partitioner)
        rows = processes.submit(kind, first + local)
        return lambda: partitioner.global_batch(rows(), batch_size)

    def jobs() -> Iterator[tuple[str, Callable[[], dict[str, jax.Array]], Positions]]:
        """For each step its kind, what makes its batch, and the positions behind it."""
        at = positions
        for step in range(first_step, last_step):
            kind = schedule.kind_at(step)
            first = at.next_example.get(kind, 0)
            at = at.advance(kind, batch_size)
            yield kind, job(kind, first), at

    pool = concurrent.futures.ThreadPoolExecutor(1)
    waiting: list[tuple[str, concurrent.futures.Future, Positions]] = []
    try:
        for kind, made, after in jobs():
            waiting.append((kind, pool.submit(made), after))
            if len(waiting) > max(ahead, 2 * readers):
                kind, future, after = waiting.pop(0)
                yield kind, future.result(), after
        for kind, future, after in waiting:
            yield kind, future.result(), after
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        if processes is not None:
            processes.close()
