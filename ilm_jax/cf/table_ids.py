"""Ids of a table's rows as tensors, where they are too many for a safetensors header (100 MB).

`item_ids` U8[bytes] holds the ids in UTF-8, one behind the other, `item_ids.bounds` I64[items + 1]
where each begins; `user_ids` alike.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from ilm_jax.data.catalogue.strings import Strings

NAMES = ("item_ids", "user_ids")
TENSORS = {end: kind for n in NAMES for end, kind in ((n, np.uint8), (f"{n}.bounds", np.int64))}
IN_HEADER = 1 << 20
"""Ids that stand in the header, items' and users' together."""


def packed(ids: Mapping[str, Sequence[str]]) -> dict[str, np.ndarray]:
    """The tensors; none where the ids are few."""
    if sum(map(len, ids.values())) <= IN_HEADER:
        return {}
    columns = {name: Strings.of(ids[name]) for name in NAMES}
    data = {name: np.ascontiguousarray(column.data) for name, column in columns.items()}
    return data | {f"{n}.bounds": np.array(column.bounds) for n, column in columns.items()}


def unpacked(tensors: Mapping[str, np.ndarray]) -> dict[str, Strings]:
    """The ids.

    Raises:
      ValueError: if the tensors are none of ids.
    """
    for name, kind in TENSORS.items():
        if tensors[name].dtype != kind or tensors[name].ndim != 1:
            raise ValueError(f"tensor {name} has type {tensors[name].dtype}")
    return {name: Strings(tensors[name], tensors[f"{name}.bounds"]) for name in NAMES}
