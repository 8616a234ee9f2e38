"""Batches for the devices: the rows of this process, converted and assembled ahead of time."""

import concurrent.futures
import functools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

import jax
import numpy as np

from ilm_jax.data.streams.readers import Readers, cut_of
from ilm_jax.data.streams.schedule import Positions, Schedule
from ilm_jax.sharding.partitioning import Partitioner

# A batch, and what was cut until it was made.
Made = tuple[dict[str, jax.Array], Counter[str]]


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


def _jobs(
    sources: Mapping[str, ExampleSource],
    processes: Readers | None,
    batch_size: int,
    partitioner: Partitioner,
) -> Callable[[str, int], Callable[[], Made]]:
    """From a kind and the first example's number to what makes the batch that begins there."""
    local = partitioner.local_rows(batch_size)

    def job(kind: str, first: int) -> Callable[[], Made]:
        """Made here, or of the rows that a reader is asked for at once."""
        if processes is None:
            make = functools.partial(global_batch, sources[kind], first, batch_size, partitioner)
            return lambda: (make(), cut_of(sources.values()))
        rows = processes.submit(kind, first + local)
        return lambda: (partitioner.global_batch(rows(), batch_size), processes.cut)

    return job


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
    cut: Counter[str] | None = None,
) -> Iterator[tuple[str, dict[str, jax.Array], Positions]]:
    """Yields (kind, batch, positions after it) for the steps in [first_step, last_step).

    A thread prepares `ahead` batches; what it prepares depends on the step alone. With `readers`
    it takes their rows from so many processes, each of which is two batches ahead. `cut` is kept at
    the number of this process' examples that were cut until the batch that is yielded, by what of
    them was cut (`Feed.counts`).

    Raises:
      UserError: as `Readers`.
    """
    processes = Readers(sources, readers) if readers else None
    job = _jobs(sources, processes, batch_size, partitioner)

    def jobs() -> Iterator[tuple[str, Callable[[], Made], Positions]]:
        """For each step its kind, what makes its batch, and the positions behind it."""
        at = positions
        for step in range(first_step, last_step):
            kind = schedule.kind_at(step)
            first = at.next_example.get(kind, 0)
            at = at.advance(kind, batch_size)
            yield kind, job(kind, first), at

    def taken(
        kind: str, future: concurrent.futures.Future[Made], after: Positions
    ) -> tuple[str, dict[str, jax.Array], Positions]:
        """A batch that is waited for."""
        batch, counts = future.result()
        if cut is not None:
            cut.clear()
            cut.update(counts)
        return kind, batch, after

    pool = concurrent.futures.ThreadPoolExecutor(1)
    waiting: list[tuple[str, concurrent.futures.Future[Made], Positions]] = []
    try:
        for kind, made, after in jobs():
            waiting.append((kind, pool.submit(made), after))
            if len(waiting) > max(ahead, 2 * readers):
                yield taken(*waiting.pop(0))
        for one in waiting:
            yield taken(*one)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        if processes is not None:
            processes.close()
