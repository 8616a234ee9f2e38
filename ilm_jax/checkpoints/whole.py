"""Parameters read whole, on the host: for models that are small beside its memory."""

from collections.abc import Mapping

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import PyTree

from ilm_jax.checkpoints.layout import disk_names, is_stacked
from ilm_jax.checkpoints.published.entries import Entry
from ilm_jax.errors import UserError


def read_params(
    entries: Mapping[str, Entry], shapes: PyTree[jax.ShapeDtypeStruct], where: str = ""
) -> PyTree[np.ndarray]:
    """Nested NumPy parameters in the shapes and dtypes of `shapes`.

    Args:
      entries: {name on disk: Entry}.
      shapes: nested ShapeDtypeStructs of the model in memory.
      where: the folder, for messages.

    Raises:
      UserError: if an entry is missing, or has another shape.
    """
    wanted = flatten_dict(shapes, sep="/")
    names = disk_names(wanted)
    params = {}
    for path, like in wanted.items():
        missing = [name for name in names[path] if name not in entries]
        if missing:
            raise UserError(f"{where} lacks {missing[0]}: is it the folder of a whole model?")
        rows = [entries[name].read(dtype=like.dtype) for name in names[path]]
        value = np.stack(rows) if is_stacked(path, names) else rows[0]
        if value.shape != like.shape:
            raise UserError(
                f"{where}: {names[path][0]} has shape {rows[0].shape}, which its config.json does "
                "not say"
            )
        params[path] = value
    return unflatten_dict(params, sep="/")
