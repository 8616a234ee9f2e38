"""Losses on held-out examples while a model trains."""

from collections.abc import Callable, Mapping

import jax
import numpy as np

from ilm_jax.objectives.objective import Objective, Sums
from ilm_jax.sharding.partitioning import Partitioner
from ilm_jax.sharding.state import TrainState
from ilm_jax.training.feeding import ExampleSource, global_batch
from ilm_jax.training.pacing import Pacer
from ilm_jax.training.step import make_eval_step
from ilm_jax.training.window import mean


class _Spread:
    """So many of a source's examples, evenly spread: of every task of a mixture its share."""

    def __init__(self, source: ExampleSource, number: int, wanted: int) -> None:
        self._source = source
        self._numbers = np.linspace(0, number - 1, wanted).astype(np.int64)

    def rows(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """See `ExampleSource`."""
        return self._source.rows(self._numbers[indices])


class Validation:
    """Means over at most so many batches of each kind; its programs are compiled once.

    Where there are more examples than that, they are spread over all of them, which stand task by
    task: the first ones alone would be of the first task.
    """

    def __init__(
        self,
        objective: Objective,
        sources: Mapping[str, tuple[ExampleSource, int]],
        partitioner: Partitioner,
        table: jax.Array,
        batch_size: int,
        batches: int,
    ) -> None:
        """Prepares it.

        Args:
          objective: what is measured.
          sources: (examples, their number) by batch kind.
          partitioner: mesh and rules.
          table: of embeddings.
          batch_size: global.
          batches: of each kind at most.
        """
        self._partitioner, self._table, self._size = partitioner, table, batch_size
        most = batches * batch_size
        self._sources = {
            kind: _Spread(source, number, most) if number > most else source
            for kind, (source, number) in sources.items()
        }
        self._steps = {
            kind: make_eval_step(objective, kind, partitioner, batch_size) for kind in sources
        }
        self._work: list[tuple[str, int]] = []
        for kind, (_, number) in sources.items():
            # Whole batches only where the loss is contrastive, for it depends on how many
            # negatives it sees; else a last batch with rows of padding, which weigh nothing.
            whole = max(1, number // batch_size)
            there = -(-number // batch_size) if objective.splits_batches else whole
            self._work += [(kind, b * batch_size) for b in range(min(batches, there))]

    def __call__(self, state: TrainState, on_batch: Callable[[int, int], None]) -> dict[str, float]:
        """The means of a state's parameters; on_batch(batches done, of how many)."""
        sums: dict[str, list[Sums]] = {}
        pacer = Pacer()
        for done, (kind, first) in enumerate(self._work):
            on_batch(done, len(self._work))
            batch = global_batch(self._sources[kind], first, self._size, self._partitioner)
            step = self._steps[kind]
            found = pacer(
                lambda: step(state.trainable, state.frozen, batch, self._table),  # noqa: B023
                lambda found: found,
            )
            for name, value in found.items():
                sums.setdefault(name, []).append(value)
        return {name: mean(values) for name, values in jax.device_get(sums).items()}
