"""The embedding table: one safetensors file per catalogue, and several of them as one array.

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
import safetensors.numpy
from jaxtyping import Bool, Float32, Int, Int64

from ilm_jax.cf import table_ids
from ilm_jax.data.catalogue.made_from import check_made_from
from ilm_jax.data.catalogue.strings import distinct
from ilm_jax.errors import UserError
from ilm_jax.files import atomic_write, sha256_json

if TYPE_CHECKING:
    from ilm_jax.data.catalogue.splits import Splits

FORMAT = "ilm_jax.table/1"
BLOCK_MULTIPLE = 512
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
            if not np.isfinite(vectors).all():
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
        metadata = {"ilm_jax": json.dumps(header, ensure_ascii=False)}
        with atomic_write(path, "wb") as stream:
            stream.write(safetensors.numpy.save(tensors, metadata))

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
        with safetensors.safe_open(path, framework="numpy") as stream:
            header = json.loads((stream.metadata() or {}).get("ilm_jax", "{}"))
            names = set(stream.keys())
            found = header.get("format") if isinstance(header, dict) else None
            if found != FORMAT:
                raise UserError(f"{path}: format {found!r} instead of {FORMAT!r}; {_REFIT}")
            if names not in (set(_TENSORS), {*_TENSORS, *table_ids.TENSORS}):
                raise UserError(
                    f"{path}: tensors {sorted(names)} instead of {sorted(_TENSORS)}; {_REFIT}"
                )
            return header, {name: stream.get_tensor(name) for name in sorted(names)}
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise UserError(f"{path}: truncated or no safetensors file ({error}); {_REFIT}") from error


@dataclasses.dataclass(frozen=True)
class Block:
    """Rows [start, start + size) of the array; up to start + capacity are reserved for growth."""

    start: int
    size: int
    capacity: int


class TableSet:
    """Several tables stacked into one array, with named blocks of reserved capacity.

    Blocks are "<catalogue>/item" and "<catalogue>/user", in the order of the tables. Reserved
    rows keep the array's shape, and so the compiled step, when a catalogue grows a little.

    Attributes:
      vectors: Float32[capacity, dim]; cold and reserved rows are zero.
      cold: Bool[capacity]; True for cold and for reserved rows.
      blocks: `Block` of every name.
      fingerprint: hex SHA-256 of the vectors and their layout.
    """

    def __init__(
        self,
        *tables: EmbeddingTable,
        normalise: str = "rms",
        known: Mapping[str, int] | None = None,
    ) -> None:
        """Stacks `tables`.

        Args:
          *tables: of distinct catalogues and one dim.
          normalise: "rms" divides each block by one number, so that the entries of its non-cold
            rows have mean square 1 (relative lengths, which carry popularity, stay); "none" keeps
            the vectors as they are.
          known: rows of each block that a model was trained with, where tables have grown since:
            they alone say what vectors are divided by.

        Raises:
          UserError: if no table is given, one comes twice, or the dims differ.
          ValueError: for another `normalise`.
        """
        if normalise not in ("rms", "none"):
            raise ValueError(f"normalise={normalise!r}; choose 'rms' or 'none'")
        names = [table.catalogue for table in tables]
        if not tables or len(set(names)) != len(names):
            raise UserError(f"embedding tables of {names}: give each catalogue's table once")
        if len({table.dim for table in tables}) > 1:
            dims = ", ".join(f"{table.catalogue} has {table.dim}" for table in tables)
            raise UserError(f"embedding tables differ in dim: {dims}; fit them with one --dim")
        self.normalise = normalise
        self.blocks: dict[str, Block] = {}
        parts = []
        for table in tables:
            for kind in ("item", "user"):
                name = f"{table.catalogue}/{kind}"
                vectors, cold = getattr(table, kind), getattr(table, f"{kind}_cold")
                capacity = max(1, -(-len(vectors) // BLOCK_MULTIPLE)) * BLOCK_MULTIPLE
                start = sum(block.capacity for block in self.blocks.values())
                self.blocks[name] = Block(start, len(vectors), capacity)
                first = (known or {}).get(name, len(vectors))
                scaled = vectors
                if normalise == "rms":
                    scaled = unit_rms(vectors, cold, first)
                parts.append((start, scaled, cold))
        capacity = sum(block.capacity for block in self.blocks.values())
        self.vectors = np.zeros((capacity, tables[0].dim), np.float32)
        self.cold = np.ones(capacity, bool)
        for start, vectors, cold in parts:
            self.vectors[start : start + len(vectors)] = vectors
            self.cold[start : start + len(cold)] = cold
        self.fingerprint = self.fingerprint_of(self.sizes)

    @property
    def sizes(self) -> dict[str, int]:
        """Rows of every block, those that are kept free aside."""
        return {name: block.size for name, block in self.blocks.items()}

    def fingerprint_of(self, sizes: Mapping[str, int]) -> str:
        """The fingerprint of these blocks, had they no more than their first so many rows."""
        vectors, rows = self.vectors.astype("<f4"), {}
        for name, block in self.blocks.items():
            rows[name] = (block.start, sizes[name], block.capacity)
            vectors[block.start + sizes[name] : block.start + block.size] = 0
        digest = hashlib.sha256(vectors.tobytes()).hexdigest()
        return sha256_json([self.normalise, rows, digest])

    @property
    def dim(self) -> int:
        """Length of the vectors."""
        return self.vectors.shape[1]

    def row(self, block: str, local: int) -> int:
        """Global row of row `local` of `block`.

        Raises:
          UserError: if there is no such block, or the row is outside it.
        """
        return int(self.rows(block, np.asarray([local]))[0])

    def rows(self, block: str, local: Int[np.ndarray, " rows"]) -> Int64[np.ndarray, " rows"]:
        """Global rows of many local rows of one block; errors as `row`."""
        if block not in self.blocks:
            raise UserError(f"no block {block!r} among the tables; there are {list(self.blocks)}")
        found = self.blocks[block]
        local = np.asarray(local, np.int64)
        outside = local[(local < 0) | (local >= found.size)]
        if len(outside):
            raise UserError(
                f"row {outside[0]} is outside block {block!r}, which has {found.size} rows; "
                "the cache or the table is of another catalogue: make both again"
            )
        return found.start + local


def unit_rms(
    vectors: Float32[np.ndarray, "rows dim"],
    cold: Bool[np.ndarray, " rows"],
    first: int | None = None,
) -> Float32[np.ndarray, "rows dim"]:
    """Divided by one number, so that entries of rows that are not cold have mean square 1.

    Of the `first` rows, if it says how many. Vectors that are all cold or zero stay as they are.
    """
    said, warm = vectors[:first], ~cold[:first]
    if not warm.any():
        return vectors
    rms = np.sqrt(np.mean(np.square(said[warm], dtype=np.float64)))
    return (vectors / rms).astype(np.float32) if rms > 0 else vectors
