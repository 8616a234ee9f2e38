"""Layers in memory (stacked for a scan) and on disk (one entry each), in both directions.

A scan over periods of p layers holds `…/layers/sub_j/<leaf>` with a leading dimension L/p, where
sub_j of repetition i is layer i * p + j. On disk it is `…/layer_07/<leaf>`, so that a checkpoint
does not depend on how it was scanned. Both functions work on flat {"a/b/c": array} dicts of
anything that is laid out like the parameters (gradients, optimizer slots), whatever comes before
`layers` in the path.
"""

import re
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ilm_jax.errors import UserError

STACKED = re.compile(r"^(?P<prefix>(?:.*/)?)layers/sub_(?P<sub>\d+)/(?P<leaf>.+)$")
SINGLE = re.compile(r"^(?P<prefix>(?:.*/)?)layer_(?P<index>\d{2,})/(?P<leaf>.+)$")


def layer_name(index: int) -> str:
    """The name of a layer on disk and in an unscanned model: layer_07."""
    return f"layer_{index:02d}"


def unstack_layers(
    params: Mapping[str, Any], period: int | Mapping[str, int] | None = None
) -> dict[str, Any]:
    """{path: array} with stacked layers split into `layer_XX` entries; the rest as it is.

    Args:
      params: {path: array}: NumPy or JAX arrays (also traced), or ShapeDtypeStructs.
      period: as in `stack_layers`. If None, the number of `sub_j` that are present: right for
        whole trees, wrong for a part of one that has leaves in some of the `sub_j` only.

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


def stack_layers(params: Mapping[str, Any], period: int | Mapping[str, int]) -> dict[str, Any]:
    """The inverse of `unstack_layers`.

    Args:
      params: {path: array} with `layer_XX` entries.
      period: layers per repetition of the scan: one number, or {name: number} where the name is a
        component of the path before the layer ("qformer": 2, "lm": 1).

    Raises:
      UserError: if a layer lacks a leaf that its siblings have, or a path has no period.
    """
    flat: dict[str, Any] = {}
    groups: dict[tuple[str, int, str], dict[int, Any]] = defaultdict(dict)
    for path, array in params.items():
        match = SINGLE.match(path)
        if match is None:
            flat[path] = array
            continue
        prefix, index = match["prefix"], int(match["index"])
        repetition, sub = divmod(index, _period(prefix, period))
        groups[prefix, sub, match["leaf"]][repetition] = array
    counts: dict[str, int] = defaultdict(int)
    for (prefix, _, _), rows in groups.items():
        counts[prefix] = max(counts[prefix], max(rows) + 1)
    for (prefix, sub, leaf), rows in groups.items():
        missing = sorted(set(range(counts[prefix])) - set(rows))
        if missing:
            where = f"{prefix}{layer_name(missing[0] * _period(prefix, period) + sub)}/{leaf}"
            raise UserError(f"{where} is missing beside the same leaf of other layers")
        flat[f"{prefix}layers/sub_{sub}/{leaf}"] = _join([rows[i] for i in range(len(rows))])
    return flat


def _period(prefix: str, period: int | Mapping[str, int]) -> int:
    if isinstance(period, int):
        return period
    for part in reversed(prefix.split("/")):
        if part in period:
            return period[part]
    raise UserError(f"no period is given for the layers under {prefix!r}: known {dict(period)}")


def _row(array: Any, i: int) -> Any:
    if isinstance(array, jax.ShapeDtypeStruct):
        return jax.ShapeDtypeStruct(array.shape[1:], array.dtype)
    return array[i]


def _join(rows: list[Any]) -> Any:
    first = rows[0]
    if isinstance(first, jax.ShapeDtypeStruct):
        return jax.ShapeDtypeStruct((len(rows), *first.shape), first.dtype)
    if all(isinstance(row, np.ndarray | np.generic) for row in rows):
        return np.stack(rows)
    return jnp.stack(rows)
