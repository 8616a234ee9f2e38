"""Placement of the rows of one side of iALS on devices, and the padded blocks they are solved in.

Rows are dealt to the devices in turn, longest first, so that every device gets the same mix of
lengths and its rows of like length lie together. Lengths are rounded up to 4, 6, 8, 12, 16, 24, …
(on average a sixth more than there is) and rows to eighths of a power of two, so that a whole solve
runs in a few compiled shapes.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32, Int32, Int64

from ilm_jax.cf.interactions import Interactions

AXIS = "shard"
"""Of the mesh over which rows are dealt."""
GATHERED_FLOATS = 1 << 21
"""About rows * max(length, dim) * dim of one device's block (8 MiB: larger ones leave a CPU's
caches, smaller ones pay for dispatch). A block has one row at least, however long."""
PARTED_FLOATS = 1 << 23
"""The same where a block is worked off in parts, and is never gathered whole."""


@dataclasses.dataclass(frozen=True, eq=False)
class Placement:
    """The place of each row of a table on the devices.

    Attributes:
      order: rows by falling length; row order[k] lies on device k % shards in slot k // shards.
      position: row's place in the stacked table of shards * slots rows.
      slots: rows for each device; the last may be spare.
      shards: number of devices.
    """

    order: Int64[np.ndarray, " rows"]
    position: Int32[np.ndarray, " rows"]
    slots: int
    shards: int

    @classmethod
    def deal(cls, lengths: Int64[np.ndarray, " rows"], shards: int) -> "Placement":
        """Deals rows of these lengths to the devices in turn, longest first."""
        order = np.argsort(-lengths, kind="stable")
        slots = max(1, -(-len(order) // shards))
        turn = np.arange(len(order))
        position = np.empty(len(order), np.int32)
        position[order] = (turn % shards) * slots + turn // shards
        return cls(order, position, slots, shards)

    @classmethod
    def as_given(cls, rows: int) -> "Placement":
        """One device, rows in their own order."""
        return cls(np.arange(rows), np.arange(rows, dtype=np.int32), max(1, rows), 1)

    @property
    def size(self) -> int:
        """Rows of the stacked table."""
        return self.slots * self.shards

    def stack(self, vectors: Float32[np.ndarray, "rows dim"]) -> Float32[np.ndarray, "size dim"]:
        """Rows in the order of the devices; spare rows are zero."""
        stacked = np.zeros((self.size, vectors.shape[1]), np.float32)
        stacked[self.position] = vectors
        return stacked


@dataclasses.dataclass(frozen=True, eq=False)
class Block:
    """Rows that are solved at once, as many on every device.

    Attributes:
      slots: where they lie on their device (the same on all); spare rows have `Placement.slots`.
      partners: positions of their partners in the other side's stacked table; spares are outside.
      counts: number of partners.
    """

    slots: Int32[np.ndarray, "shards rows"]
    partners: Int32[np.ndarray, "shards rows length"]
    counts: Int32[np.ndarray, "shards rows"]


@dataclasses.dataclass(frozen=True, eq=False)
class Side:
    """One side, ready to be solved.

    Attributes:
      counts: number of distinct partners of every row.
      others: number of rows on the other side.
      placement: of its rows.
      blocks: rows without a partner are in none; each is made when it is taken.
    """

    counts: Int64[np.ndarray, " rows"]
    others: int
    placement: Placement
    blocks: "Blocks"


@dataclasses.dataclass(frozen=True, eq=False)
class Blocks(Sequence[Block]):
    """The blocks of one side, made from interactions that may lie on disk.

    Attributes:
      interactions: rows of this side with their partners.
      placement, other: of this and of the other side.
      plan: (first slot, slot behind the last of its length, slots, length) of each.
    """

    interactions: Interactions
    placement: Placement
    other: Placement
    plan: Sequence[tuple[int, int, int, int]]

    @property
    def cells(self) -> int:
        """Partners of all blocks, padding included."""
        return self.placement.shards * sum(size * length for _, _, size, length in self.plan)

    def __len__(self) -> int:
        """Number of blocks."""
        return len(self.plan)

    def __getitem__(self, at):  # noqa: ANN001, ANN204 - only whole numbers are asked for
        """Makes a block."""
        start, last, size, length = self.plan[at]
        placement, other, shards = self.placement, self.other, self.placement.shards
        slots = np.arange(start, start + size)
        turn = slots[None, :] * shards + np.arange(shards)[:, None]
        real = (slots < last)[None, :] & (turn < len(placement.order))
        rows = placement.order[np.where(real, turn, 0)]
        partners = self.interactions.padded(rows.reshape(-1), length, -1)
        placed = np.where(partners < 0, other.size, other.position[partners])
        placed[~real.reshape(-1)] = other.size
        return Block(
            np.where(real, slots, placement.slots).astype(np.int32),
            placed.reshape(shards, size, length).astype(np.int32),
            np.where(real, self.interactions.lengths[rows], 0).astype(np.int32),
        )


def padded_length(longest: int) -> int:
    """The least of 4, 6, 8, 12, 16, 24, … that is not below `longest`."""
    power = 1 << max(2, (max(longest, 1) - 1).bit_length())
    return 3 * power // 4 if power > 4 and longest <= 3 * power // 4 else power


def padded_rows(rows: int) -> int:
    """The least whole multiple of an eighth of a power of two that is not below `rows`."""
    step = 1 << max(0, (rows - 1).bit_length() - 4)
    return -(-rows // step) * step


def make_side(
    interactions: Interactions,
    placement: Placement,
    other: Placement,
    dim: int,
    copies: int = 1,
    floats: int = GATHERED_FLOATS,
) -> Side:
    """Blocks of the rows of `interactions`, whose partners lie as `other` says.

    Args:
      interactions: rows of this side with their partners.
      placement, other: of this and of the other side.
      dim: of the vectors; bounds the size of a block.
      copies: of a block's gathered vectors that a device holds at once; they share the bound.
      floats: the bound.
    """
    shards, order = placement.shards, placement.order
    used = -(-int((interactions.lengths > 0).sum()) // shards)
    lengths = interactions.lengths[order[::shards][:used]]
    classes = np.array([padded_length(int(length)) for length in lengths])
    plan = []
    for length in np.unique(classes):
        mine = np.flatnonzero(classes == length)
        first, last = int(mine[0]), int(mine[-1]) + 1
        most = max(1, floats // (copies * dim * max(int(length), dim)))
        # Blocks of a length are alike, so that it compiles once.
        size = padded_rows(-(-(last - first) // -(-(last - first) // most)))
        plan += [(start, last, size, int(length)) for start in range(first, last, size)]
    blocks = Blocks(interactions, placement, other, plan)
    return Side(interactions.lengths, interactions.num_items, placement, blocks)
