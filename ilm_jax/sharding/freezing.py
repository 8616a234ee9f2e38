"""Which parameters train: path patterns split one flat dictionary into two.

Frozen is structural: gradients are taken of the trainable dictionary only, so frozen leaves have
no optimizer slot and no weight-gradient product.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Protocol, TypeVar

import numpy as np
from jax.typing import DTypeLike

from ilm_jax.errors import UserError

L = TypeVar("L")


class Leaf(Protocol):
    """An array, or what is known of one."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its dimensions."""

    @property
    def dtype(self) -> DTypeLike:
        """Of its entries."""


def matches(path: str, patterns: Sequence[str]) -> bool:
    """Whether any regular expression is found in the path."""
    return any(re.search(pattern, path) for pattern in patterns)


def split_by_patterns(
    params: Mapping[str, L], trainable: Sequence[str]
) -> tuple[dict[str, L], dict[str, L]]:
    """Splits {path: leaf} into (trainable, frozen).

    Raises:
      UserError: if a pattern matches no parameter, or none trains at all.
    """
    for pattern in trainable:
        if not any(re.search(pattern, path) for path in params):
            tops = ", ".join(sorted({path.split("/")[0] for path in params}))
            raise UserError(
                f"trainable pattern {pattern!r} matches no parameter (top-level names: {tops}): "
                "correct TrainerConfig.trainable; model-info.txt lists all paths"
            )
    chosen = {path: leaf for path, leaf in params.items() if matches(path, trainable)}
    if not chosen:
        raise UserError("nothing would train: TrainerConfig.trainable is empty")
    return chosen, {path: leaf for path, leaf in params.items() if path not in chosen}


def count(params: Mapping[str, Leaf]) -> int:
    """Number of scalars in a flat dictionary of arrays or shapes."""
    return sum(math.prod(leaf.shape) for leaf in params.values())


def bytes_each(params: Mapping[str, Leaf]) -> float:
    """Bytes per parameter; about 1 where weights are int8 (their scales count)."""
    held = sum(math.prod(leaf.shape) * np.dtype(leaf.dtype).itemsize for leaf in params.values())
    return held / max(1, count(params))


def trainable_table(trainable: Mapping[str, Leaf], frozen: Mapping[str, Leaf]) -> str:
    """A table by top-level name: parameters that train and that are frozen, and their size."""
    tops = sorted({path.split("/")[0] for path in (*trainable, *frozen)})
    rows: list[tuple[str, ...]] = [("", "trains", "frozen")]
    for top in [*tops, "total"]:
        numbers = (
            count({p: x for p, x in tree.items() if top in ("total", p.split("/")[0])})
            for tree in (trainable, frozen)
        )
        rows.append((top, *(f"{number:,}" for number in numbers)))
    rows.append(("bytes each", *(f"{bytes_each(tree):.2f}" for tree in (trainable, frozen))))
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    return "\n".join(
        f"  {row[0]:<{widths[0]}}  {row[1]:>{widths[1]}}  {row[2]:>{widths[2]}}" for row in rows
    )
