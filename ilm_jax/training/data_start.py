"""Parameters that a run begins with: some drawn anew, some from vectors of training items."""

import dataclasses
from collections.abc import Collection, Sequence
from typing import Any

import jax
import numpy as np

from ilm_jax.checkpoints.checkpoints import shorten
from ilm_jax.errors import UserError
from ilm_jax.objectives.objective import Objective
from ilm_jax.sharding.partitioning import Partitioner
from ilm_jax.sharding.state import FlatParams, nested

SAMPLE = 1024
REDRAWN = 0x5EED  # sets the draws of `Objective.redrawn` apart from those of fresh parameters
Scalars = dict[str, jax.Array]


@dataclasses.dataclass
class DataStart:
    """Starts parameters anew or from data, once all are there, drawn or restored (`load_sources`).

    The same on any mesh, to rounding: every process holds the vectors, and the parameters are used
    and replaced where they lie.

    Attributes:
      objective: says what starts from data.
      partitioner: of the parameters.
      table: embedding table [capacity, cf].
      rows: of the training items; None: all rows that are not zero. A fixed sample of them is read.
      seed: of what is drawn anew.
      record: for checkpoints: what was drawn anew; leaves, items, and metrics before and after.
      begins: else the run is gone on with, and all is left as it is.
      fresh: paths of what no source gave, once called.
    """

    objective: Objective
    partitioner: Partitioner
    table: np.ndarray
    rows: np.ndarray | None = None
    seed: int = 0
    record: dict[str, Any] = dataclasses.field(default_factory=dict)
    begins: bool = True
    fresh: tuple[str, ...] = ()

    def __call__(self, params: FlatParams, fresh: Sequence[str]) -> tuple[FlatParams, list[str]]:
        """The parameters with what starts from data, and lines for the report.

        Args:
          params: all.
          fresh: paths of those that were drawn.
        """
        self.fresh = tuple(fresh)
        if not self.begins:
            return params, []
        params, lines = self._redrawn(params)
        params, more = self._from_data(params, fresh)
        return params, lines + more

    def check(self, frozen: Collection[str]) -> None:
        """Raises UserError where what was started does not train: no source has it so."""
        redrawn, started = (
            [path for path in self.record.get(name, []) if path in frozen]
            for name in ("redrawn", "leaves")
        )
        if redrawn:
            raise UserError(
                f"{len(redrawn)} parameters {shorten(redrawn)} are drawn anew, in part or whole, "
                "and do not train, so that no checkpoint would hold them: let them train "
                "(TrainerConfig.trainable), or leave them as they are "
                "(LanguageModelling.redraws = None)"
            )
        if started:
            raise UserError(
                f"{len(started)} parameters {shorten(started)} start from data and do not train, "
                "so that no checkpoint would hold them: let them train (TrainerConfig.trainable), "
                'or leave them as drawn (READER_START = "drawn")'
            )

    def _redrawn(self, params: FlatParams) -> tuple[FlatParams, list[str]]:
        """What the objective draws anew, wherever it came from."""
        key = jax.random.fold_in(jax.random.key(self.seed), REDRAWN)

        def draw(params: FlatParams) -> FlatParams:
            """The leaves, by path."""
            return self.objective.redrawn(nested(params), key)

        found = jax.eval_shape(draw, params)
        if not found:
            return params, []
        self.record["redrawn"] = sorted(found)
        places = {path: params[path].sharding for path in found}
        with self.partitioner.context():
            leaves = jax.jit(draw, out_shardings=places)(params)
        return params | leaves, [f"  drawn anew, in part or whole: {', '.join(sorted(found))}"]

    def _from_data(self, params: FlatParams, fresh: Sequence[str]) -> tuple[FlatParams, list[str]]:
        reads = self.objective.needs_table
        vectors = self._vectors() if reads else np.zeros((0, self.table.shape[1]), np.float32)
        if reads and not len(vectors):
            return params, []
        found: dict[str, jax.ShapeDtypeStruct] = jax.eval_shape(self._leaves, params, vectors)
        if not found and not jax.eval_shape(self._metrics, params, vectors):
            return params, []
        tops = {path.split("/")[0] for path in set(found) - set(fresh)}
        taken = {path: x for path, x in found.items() if path.split("/")[0] not in tops}
        whole = self.partitioner.replicated

        def start(params: FlatParams, vectors: jax.Array) -> tuple[FlatParams, Scalars, Scalars]:
            """The fitted leaves, and what is measured before and after them."""
            leaves = self._leaves(params, vectors) if taken else {}
            leaves = {path: leaf for path, leaf in leaves.items() if path in taken}
            return leaves, self._metrics(params, vectors), self._metrics(params | leaves, vectors)

        places = {path: params[path].sharding for path in taken}
        with self.partitioner.context():
            compute = jax.jit(start, out_shardings=(places, whole, whole))
            leaves, before, after = compute(params, jax.device_put(vectors, whole))
        before, after = ({n: float(x) for n, x in part.items()} for part in (before, after))
        self.record |= {
            "leaves": sorted(leaves),
            "items": len(vectors),
            "before": before,
            "after": after,
        }
        return params | leaves, self._lines()

    def _vectors(self) -> np.ndarray:
        rows = np.flatnonzero(self.table.any(axis=1)) if self.rows is None else self.rows
        chosen = np.linspace(0, len(rows) - 1, min(SAMPLE, len(rows))).astype(int)
        return np.asarray(self.table)[rows[chosen]]

    def _leaves(self, params: FlatParams, vectors: jax.Array) -> FlatParams:
        return self.objective.data_start(nested(params), vectors)

    def _metrics(self, params: FlatParams, vectors: jax.Array) -> Scalars:
        return self.objective.start_metrics(nested(params), vectors)

    def _lines(self) -> list[str]:
        leaves, before, after = (self.record[name] for name in ("leaves", "before", "after"))
        told = [
            f"{name} {before[name]:.3g}" + (f" -> {x:.3g}" if x != before[name] else "")
            for name, x in after.items()
        ]
        what = f"started from data: {', '.join(leaves)}" if leaves else "nothing starts from data"
        items = self.record["items"]
        of = [f" ({items:,} items)"] if items else []
        return [f"  {''.join([what, *of])}: {', '.join(told)}".rstrip(": ")]
