"""The embedding table: one safetensors file per catalogue.

File format "ilm_jax.table/1". Tensors: `item` F32[items, dim], `user` F32[users, dim],
`item_cold` BOOL[items], `user_cold` BOOL[users]; a cold row had no training interaction (of a
"combined" table: nothing to go by in any part) and is zero. The metadata of the safetensors header
holds, under the key "ilm_jax", one JSON object:

    format             "ilm_jax.table/1"
    catalogue          dataset name, such as "movielens/latest_small"
    dim                length of the vectors
    item_ids, user_ids raw ids, in the order of the rows; where they are many, tensors (`table_ids`)
    split_fingerprint  of the split whose training interactions were fitted
    settings           how it was fitted
    sha256             of the tensors' bytes, in the order item, user, item_cold, user_cold; a
                       and those of ids; a table without it, which others may write, is not
                       checked for changed bits
"""

import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors
from jaxtyping import Bool, Float32

from ilm_jax.cf import table_file, table_ids
from ilm_jax.cf.row_blocks import row_blocks
from ilm_jax.data.catalogue.made_from import check_made_from
from ilm_jax.data.catalogue.strings import distinct
from ilm_jax.errors import UserError

if TYPE_CHECKING:
    from ilm_jax.data.catalogue.splits import Splits

FORMAT = "ilm_jax.table/1"
_TENSORS = {"item": np.float32, "user": np.float32, "item_cold": np.bool_, "user_cold": np.bool_}
_REFIT = "fit it again with `ilm fit_cf`"


@dataclasses.dataclass(frozen=True, eq=False)
class EmbeddingTable:
    """Collaborative vectors of one catalogue; row i of `item` belongs to `item_ids[i]`.

    Attributes:
      catalogue: dataset name.
      item, user: the vectors.
      item_cold, user_cold: True where a row had no training interaction; such a row is zero.
      item_ids, user_ids: raw ids.
      split_fingerprint: `Splits.fingerprint` of the split that was fitted.
      settings: JSON-able; how the table was fitted.

    Raises:
      ValueError: if the parts do not fit together or a vector is not finite.
    """

    catalogue: str
    item: Float32[np.ndarray, "items dim"]
    user: Float32[np.ndarray, "users dim"]
    item_cold: Bool[np.ndarray, " items"]
    user_cold: Bool[np.ndarray, " users"]
    item_ids: Sequence[str]
    user_ids: Sequence[str]
    split_fingerprint: str
    settings: dict

    def __post_init__(self) -> None:
        for name, dtype in _TENSORS.items():
            array = getattr(self, name)
            if array.dtype != dtype or array.ndim != (1 if name.endswith("cold") else 2):
                raise ValueError(f"tensor {name} has type {array.dtype} and shape {array.shape}")
        if self.item.shape[1] != self.user.shape[1] or not self.dim:
            raise ValueError(f"item vectors {self.item.shape}, user vectors {self.user.shape}")
        for kind in ("item", "user"):
            vectors, cold, ids = (getattr(self, kind + end) for end in ("", "_cold", "_ids"))
            if not len(vectors) == len(cold) == len(ids):
                sizes = f"{len(vectors)} vectors, {len(cold)} cold flags, {len(ids)} ids"
                raise ValueError(f"{kind}: {sizes}")
            if not distinct(ids):
                raise ValueError(f"{kind}_ids holds an id twice")
            if not all(np.isfinite(vectors[rows]).all() for rows in row_blocks(vectors)):
                raise ValueError(f"a vector of {kind} is not finite")
            if vectors[cold].any():
                raise ValueError(f"a cold {kind} has a vector other than zero")

    @classmethod
    def of(
        cls,
        splits: "Splits",
        item: Float32[np.ndarray, "items dim"],
        user: Float32[np.ndarray, "users dim"],
        settings: dict,
    ) -> "EmbeddingTable":
        """The table of a catalogue's items and users, where a row of zeros is a cold one's."""
        return cls(
            catalogue=splits.catalogue.name,
            item=item,
            user=user,
            item_cold=np.asarray(~item.any(1)),
            user_cold=np.asarray(~user.any(1)),
            item_ids=splits.catalogue.item_ids,
            user_ids=splits.catalogue.user_ids,
            split_fingerprint=splits.fingerprint,
            settings=settings,
        )

    @property
    def dim(self) -> int:
        """Length of the vectors."""
        return self.item.shape[1]

    def save(self, path: str | os.PathLike) -> None:
        """Writes the file atomically."""
        header = {
            "format": FORMAT,
            "catalogue": self.catalogue,
            "dim": self.dim,
            "split_fingerprint": self.split_fingerprint,
            "settings": self.settings,
        }
        tensors = {name: np.ascontiguousarray(getattr(self, name)) for name in _TENSORS}
        ids = {name: getattr(self, name) for name in table_ids.NAMES}
        many = table_ids.packed(ids)
        tensors |= many
        header |= {} if many else {name: list(each) for name, each in ids.items()}
        header["sha256"] = _digest(tensors)
        table_file.write(path, tensors, {"ilm_jax": json.dumps(header, ensure_ascii=False)})

    @classmethod
    def load(cls, path: str | os.PathLike, splits: "Splits | None" = None) -> "EmbeddingTable":
        """Reads what `save` wrote.

        Args:
          path: the file.
          splits: if given, the table must have been fitted on exactly this split.

        Raises:
          UserError: if the file is absent, truncated, of another format, inconsistent, or fitted
            on another catalogue or split.
        """
        header, tensors = _read(pathlib.Path(path))
        try:
            many = table_ids.unpacked(tensors) if "item_ids" in tensors else {}
            fields: dict[str, Any] = {name: many.get(name, header.get(name)) for name in _FIELDS}
            if absent := [name for name, value in fields.items() if value is None]:
                raise KeyError(absent[0])
            table = cls(**(fields | {name: tensors[name] for name in _TENSORS}))
            if "sha256" in header and header["sha256"] != _digest(tensors):
                raise ValueError("its numbers are not those that were written")
            if header["dim"] != table.dim:
                raise ValueError(f"header says dim {header['dim']}, vectors have {table.dim}")
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path}: damaged table ({error}); {_REFIT}") from error
        if splits is not None:
            table.check(splits, path)
        return table

    def check(self, splits: "Splits", path: str | os.PathLike = "embedding table") -> None:
        """Raises UserError unless the table was fitted on `splits`; `path` is for the message."""
        ids = {"item": self.item_ids, "user": self.user_ids}
        check_made_from(path, self.catalogue, ids, self.split_fingerprint, splits, _REFIT)


def _digest(tensors: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in (*_TENSORS, *table_ids.TENSORS):
        if name in tensors:
            digest.update(np.ascontiguousarray(tensors[name]).data)
    return digest.hexdigest()


_FIELDS = ("catalogue", "item_ids", "user_ids", "split_fingerprint", "settings")


def _read(path: pathlib.Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    if not path.is_file():
        raise UserError(f"{path}: no such embedding table; make it with `ilm fit_cf`")
    try:
        metadata, tensors = table_file.read(path)
        header = json.loads(metadata.get("ilm_jax", "{}"))
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise UserError(f"{path}: truncated or no safetensors file ({error}); {_REFIT}") from error
    found = header.get("format") if isinstance(header, dict) else None
    if found != FORMAT:
        raise UserError(f"{path}: format {found!r} instead of {FORMAT!r}; {_REFIT}")
    if tensors.keys() not in (set(_TENSORS), {*_TENSORS, *table_ids.TENSORS}):
        raise UserError(
            f"{path}: tensors {sorted(tensors)} instead of {sorted(_TENSORS)}; {_REFIT}"
        )
    return header, tensors
