"""Several embedding tables as one array, in blocks."""

import dataclasses
import hashlib
from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float32, Int, Int64

from ilm_jax.cf.row_blocks import row_blocks, zeros
from ilm_jax.cf.table import EmbeddingTable
from ilm_jax.errors import UserError
from ilm_jax.files import sha256_json

BLOCK_MULTIPLE = 512


@dataclasses.dataclass(frozen=True)
class Block:
    """Rows [start, start + size) of the array; up to start + capacity are reserved for growth."""

    start: int
    size: int
    capacity: int


@dataclasses.dataclass(frozen=True)
class BlockRows:
    """Global rows of local ones: all that streams ask of the tables, and little to send.

    Attributes:
      blocks: `Block` of every name.
    """

    blocks: Mapping[str, Block]

    def __call__(self, block: str, local: Int[np.ndarray, " rows"]) -> Int64[np.ndarray, " rows"]:
        """Global rows of many local rows of one block; errors as `TableSet.row`."""
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


class TableSet:
    """Several tables stacked into one array, with named blocks of reserved capacity.

    Blocks are "<catalogue>/item" and "<catalogue>/user", in the order of the tables. Reserved
    rows keep the array's shape, and so the compiled step, when a catalogue grows a little.

    Attributes:
      vectors: Float32[capacity, dim]; cold and reserved rows are zero.
      cold: Bool[capacity]; True for cold and for reserved rows.
      blocks: `Block` of every name.
      rows: (block, local rows) -> global rows.
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
        parts = {
            f"{table.catalogue}/{kind}": (getattr(table, kind), getattr(table, f"{kind}_cold"))
            for table in tables
            for kind in ("item", "user")
        }
        capacity = 0
        for name, (vectors, _) in parts.items():
            room = max(1, -(-len(vectors) // BLOCK_MULTIPLE)) * BLOCK_MULTIPLE
            self.blocks[name] = Block(capacity, len(vectors), room)
            capacity += room
        self.rows = BlockRows(self.blocks)
        self.vectors = zeros((capacity, tables[0].dim))
        self.cold = np.ones(capacity, bool)
        for name, (vectors, cold) in parts.items():
            start, first = self.blocks[name].start, (known or {}).get(name, len(vectors))
            self.cold[start : start + len(cold)] = cold
            rms = _rms(vectors, cold, first) if normalise == "rms" else 0.0
            for rows in row_blocks(vectors):
                self.vectors[start + rows.start : start + rows.stop] = _over(vectors[rows], rms)
        self.fingerprint = self.fingerprint_of(self.sizes)

    @property
    def sizes(self) -> dict[str, int]:
        """Rows of every block, those that are kept free aside."""
        return {name: block.size for name, block in self.blocks.items()}

    def fingerprint_of(self, sizes: Mapping[str, int]) -> str:
        """The fingerprint of these blocks, had they no more than their first so many rows."""
        rows, digest = {}, hashlib.sha256()
        for name, block in self.blocks.items():
            rows[name] = (block.start, sizes[name], block.capacity)
            inside = self.vectors[block.start : block.start + block.capacity]
            for part in row_blocks(inside):
                numbers = inside[part].astype("<f4")  # a copy
                numbers[max(0, sizes[name] - part.start) :] = 0
                digest.update(numbers.data)
        return sha256_json([self.normalise, rows, digest.hexdigest()])

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


def unit_rms(
    vectors: Float32[np.ndarray, "rows dim"],
    cold: Bool[np.ndarray, " rows"],
    first: int | None = None,
) -> Float32[np.ndarray, "rows dim"]:
    """Divided by one number, so that entries of rows that are not cold have mean square 1.

    Of the `first` rows, if it says how many. Vectors that are all cold or zero stay as they are.
    """
    return _over(vectors, _rms(vectors, cold, first))


def _rms(vectors: np.ndarray, cold: np.ndarray, first: int | None) -> float:
    """Root of the mean square of the entries of the `first` rows that are not cold; 0 for none."""
    said, warm, total, count = vectors[:first], ~cold[:first], 0.0, 0
    for rows in row_blocks(said):
        part = said[rows][warm[rows]]
        total, count = total + np.square(part, dtype=np.float64).sum(), count + part.size
    return float(np.sqrt(total / count)) if count else 0.0


def _over(vectors: np.ndarray, rms: float) -> np.ndarray:
    return (vectors / np.float64(rms)).astype(np.float32) if rms > 0 else vectors
