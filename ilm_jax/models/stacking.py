"""From layers in memory (stacked for a scan) to layers on disk (one entry each).

A scan over periods of p layers holds `…/layers/sub_j/<leaf>` with a leading dimension L/p, where
sub_j of repetition i is layer i * p + j. On disk it is `…/layer_07/<leaf>`, so that a checkpoint
does not depend on how it was scanned; layers that fill no whole period stand behind the scan under
that name in memory too. It works on flat {"a/b/c": array} dicts of anything that is
laid out like the parameters (gradients, optimizer slots), whatever comes before `layers` in the
path. The way back is checkpoints/layout.py's, which knows what the model in memory looks like.
"""

import re
from collections import defaultdict
from collections.abc import Mapping
from typing import TypeVar

import jax
import numpy as np

from ilm_jax.errors import UserError

Leaf = TypeVar("Leaf", jax.Array, np.ndarray, jax.ShapeDtypeStruct)
STACKED = re.compile(r"^(?P<prefix>(?:.*/)?)layers/sub_(?P<sub>\d+)/(?P<leaf>.+)$")


def layer_name(index: int) -> str:
    """The name of a layer on disk and in an unscanned model: layer_07."""
    return f"layer_{index:02d}"


def unstack_layers(
    params: Mapping[str, Leaf], period: int | Mapping[str, int] | None = None
) -> dict[str, Leaf]:
    """{path: array} with stacked layers split into `layer_XX` entries; the rest as it is.

    Args:
      params: {path: array}: NumPy or JAX arrays (also traced), or ShapeDtypeStructs.
      period: layers per repetition of the scan: one number, or {name: number} where the name is a
        component of the path before the layer ("qformer": 2, "lm": 1). If None, the number of
        `sub_j` that are present: right for whole trees, wrong for a part of one that has leaves in
        some of the `sub_j` only.

    Raises:
      UserError: if a path has no period.
    """
    periods: dict[str, int] = defaultdict(int)
    matches = {path: STACKED.match(path) for path in params}
    for match in matches.values():
        if match:
            prefix = match["prefix"]
            seen = max(periods[prefix], int(match["sub"]) + 1)
            periods[prefix] = seen if period is None else _period(prefix, period)
    flat = {}
    for path, array in params.items():
        match = matches[path]
        if match is None:
            flat[path] = array
            continue
        prefix, sub = match["prefix"], int(match["sub"])
        for i in range(array.shape[0]):
            name = layer_name(i * periods[prefix] + sub)
            flat[f"{prefix}{name}/{match['leaf']}"] = _row(array, i)
    return flat


def _period(prefix: str, period: int | Mapping[str, int]) -> int:
    if isinstance(period, int):
        return period
    for part in reversed(prefix.split("/")):
        if part in period:
            return period[part]
    raise UserError(f"no period is given for the layers under {prefix!r}: known {dict(period)}")


def _row(array: Leaf, i: int) -> Leaf:
    if isinstance(array, jax.ShapeDtypeStruct):
        return type(array)(array.shape[1:], array.dtype)
    return array[i]
