"""Ready-made vectors as an embedding table, in the place of a fit."""

import json
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float32

from ilm_jax.errors import UserError
from ilm_jax.files import read_arrays

if TYPE_CHECKING:
    from ilm_jax.cf.table import EmbeddingTable
    from ilm_jax.data.catalogue.splits import Splits


def given_table(splits: "Splits", item_path: str, user_path: str = "") -> "EmbeddingTable":
    """The table of vectors that somebody has made.

    Args:
      splits: of the catalogue; whoever made the vectors answers for what they have seen.
      item_path: `.npy` [items, dim] in the order of the catalogue, which is that of its file of
        items; or `.safetensors` with a tensor `item` (and, if wanted, `user`), whose metadata may
        hold `item_ids` and `user_ids`, one id a line, in the order of their rows. A table of ours,
        such as one of another split, is such a file too.
      user_path: the same for users; "": the tensor `user` of `item_path`, else each user's vector
        is the mean of those of its training items.

    Raises:
      UserError: for a file of another kind or shape, a number that is not finite, an id that is
        missing or unknown.
    """
    from ilm_jax.cf.table import EmbeddingTable

    catalogue = splits.catalogue
    item = _read(item_path, "item", catalogue.item_ids)
    if item is None:
        raise UserError(f"{item_path}: no tensor 'item' in it")
    users, items = splits.train_interactions()
    user = (
        _read(user_path or item_path, "user", catalogue.user_ids)
        if (user_path or item_path.endswith(".safetensors"))
        else None
    )
    if user is None:
        user = np.zeros((catalogue.num_users, item.shape[1]), np.float32)
        np.add.at(user, users, item[items])
        user /= np.maximum(np.bincount(users, minlength=len(user)), 1)[:, None]
    if user.shape[1] != item.shape[1]:
        raise UserError(
            f"{user_path}: vectors of {user.shape[1]} numbers, items have {item.shape[1]}"
        )
    settings = {
        "method": "given",
        "item": pathlib.Path(item_path).name,
        "user": pathlib.Path(user_path).name or "mean of training items",
    }
    return EmbeddingTable.of(splits, item, user, settings)


def _listed(metadata: dict[str, str], name: str) -> list[str] | None:
    """The ids in a file's metadata, of lines or of a table of ours; None if there are none."""
    if "ilm_jax" in metadata:
        return list(map(str, json.loads(metadata["ilm_jax"])[name]))
    return metadata[name].split("\n") if metadata.get(name) else None


def _read(path: str, kind: str, ids: Sequence[str]) -> Float32[np.ndarray, "rows dim"] | None:
    """Vectors in the order of `ids`; None if a safetensors file has no such tensor."""
    import safetensors

    file = pathlib.Path(path).expanduser()
    order: list[str] | None = None
    try:
        if file.suffix == ".npy":
            array = read_arrays(file)[""]
        elif file.suffix == ".safetensors":
            with safetensors.safe_open(file, framework="numpy") as stream:
                if kind not in stream.keys():  # noqa: SIM118 - it is no mapping
                    return None
                array = stream.get_tensor(kind)
                order = _listed(stream.metadata() or {}, f"{kind}_ids")
        else:
            raise UserError(f"{file}: vectors come as .npy or .safetensors")
    except (OSError, KeyError, ValueError, TypeError, safetensors.SafetensorError) as error:
        raise UserError(f"{file}: cannot be read ({error})") from error
    if array.ndim != 2 or not np.issubdtype(array.dtype, np.number) or not array.shape[1]:
        raise UserError(f"{file}: {array.dtype}{list(array.shape)} is no matrix of vectors")
    if len(array) != len(order or ids):
        raise UserError(
            f"{file}: {len(array)} rows for {len(order or ids)} {kind}s; give one per {kind}, in "
            f"the order of the catalogue, or the metadata {kind}_ids"
        )
    if order is not None:
        place = {raw: row for row, raw in enumerate(order)}
        missing = [raw for raw in ids if raw not in place]
        if missing or len(place) < len(order):
            raise UserError(f"{file}: {kind} {(missing or order)[0]!r} is missing or given twice")
        array = array[[place[raw] for raw in ids]]
    bad = np.flatnonzero(~np.isfinite(array.astype(np.float64)).all(1))
    if len(bad):
        raise UserError(f"{file}: row {bad[0]} ({kind} {ids[bad[0]]!r}) is not finite")
    return np.ascontiguousarray(array, np.float32)
