"""Ranks of the targets in ranked lists, as a decoder with beams gives them.

A list holds the best n items of the whole catalogue; a target that is not among them has rank
infinity, which counts 0 in every metric up to k = n.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64, Int, Int64

from ilm_jax.evaluation.intervals import Interval, mean_interval
from ilm_jax.evaluation.metrics import MISSED, per_user


@dataclasses.dataclass(frozen=True, eq=False)
class RankingResult:
    """Rank of the target of every user, in order of the example's index."""

    index: Int64[np.ndarray, " users"]
    ranks: Float64[np.ndarray, " users"]

    def per_user(self, cutoffs: Sequence[int] = (1, 5, 10)) -> dict[str, np.ndarray]:
        """Per-user metrics by name ("hr@10", "ndcg@10", …), for paired comparisons."""
        return per_user(self.ranks, cutoffs)

    def figures(self, cutoffs: Sequence[int] = (1, 5, 10)) -> dict[str, float]:
        """Means over users by name."""
        return {name: float(values.mean()) for name, values in self.per_user(cutoffs).items()}

    def intervals(
        self, cutoffs: Sequence[int] = (1, 5, 10), **settings: Any
    ) -> dict[str, Interval]:
        """Bootstrap intervals over users by name."""
        values = self.per_user(cutoffs)
        return {name: mean_interval(column, **settings) for name, column in values.items()}


def ranks_in_lists(
    ranked: Int[np.ndarray, "batch n"],
    targets: Int[np.ndarray, " batch"],
    exclude: Sequence[Int[np.ndarray, " history"]] | None = None,
) -> Float64[np.ndarray, " batch"]:
    """Position of each target in its list, from 1; infinity where it is missing.

    Args:
      ranked: item rows, best first, without repeats.
      targets: item rows.
      exclude: per user, items that are no candidates (the history): they are dropped from the
        list before counting, except the target itself. For exact metrics up to k the list must
        hold k + len(exclude) items.
    """
    ranked, targets = np.asarray(ranked), np.asarray(targets)
    ranks = np.full(len(targets), MISSED)
    for row, (items, target) in enumerate(zip(ranked, targets, strict=True)):
        if exclude is not None:
            items = items[~np.isin(items, exclude[row]) | (items == target)]
        found = np.flatnonzero(items == target)
        if len(found):
            ranks[row] = found[0] + 1.0
    return ranks


def rank_users(
    ranked_rows: Callable[[Mapping[str, Any]], Int[np.ndarray, "batch n"]],
    batches: Iterable[Mapping[str, Any]],
    targets: Int[np.ndarray, " examples"],
    histories: Sequence[Int[np.ndarray, " history"]] | None = None,
    on_batch: Callable[[int], None] | None = None,
) -> RankingResult:
    """Ranks the target of every example that `batches` bring; one that comes twice counts once.

    Args:
      ranked_rows: the best item rows of each row of a batch, best first.
      batches: dicts with "example_index"[batch]: a number into `targets`, negative where the row
        only fills the batch.
      targets: item row of every example.
      histories: per example, items to leave out of the candidates; None leaves none out.
      on_batch: called with the number of examples ranked so far.

    Raises:
      ValueError: if no example came.
    """
    found: dict[int, float] = {}
    for batch in batches:
        index = np.asarray(batch["example_index"])
        real = np.flatnonzero(index >= 0)
        ranked = np.asarray(ranked_rows(batch))[real]
        exclude = None if histories is None else [histories[i] for i in index[real]]
        ranks = ranks_in_lists(ranked, targets[index[real]], exclude)
        for number, rank in zip(index[real].tolist(), ranks.tolist(), strict=True):
            found.setdefault(number, rank)
        if on_batch is not None:
            on_batch(len(found))
    if not found:
        raise ValueError("no example to rank")
    order = sorted(found)
    return RankingResult(np.array(order, np.int64), np.array([found[i] for i in order]))


def sample_examples(total: int, size: int | None, seed: int = 0) -> Int64[np.ndarray, " sample"]:
    """A fixed sample of example numbers, ascending; all if `size` is None or not below `total`.

    Depends on (total, size, seed) alone, so every model is measured on the same users.
    """
    if size is None or size >= total:
        return np.arange(total, dtype=np.int64)
    generator = np.random.Generator(np.random.Philox(seed))
    return np.sort(generator.choice(total, size=size, replace=False)).astype(np.int64)
