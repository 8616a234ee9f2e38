"""Negatives that a whole batch shares: uniform, by popularity, the batch's own, or all items."""

import dataclasses
import hashlib

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int, Int32, Int64, UInt32

from ilm_jax.cf.cells import Cells
from ilm_jax.cf.interactions import Interactions
from ilm_jax.checks import Count, Weight, check
from ilm_jax.data import spill

KINDS = ("uniform", "popularity", "in_batch", "all")


@dataclasses.dataclass(frozen=True)
class SamplerConfig:
    """The distribution that candidates are drawn from.

    Attributes:
      kind: "uniform" and "popularity" draw with replacement; "in_batch" takes the positives of
        the batch (so popularity decides); "all" takes every item once, which makes ranks exact.
      drawn: m; without meaning for "in_batch" and "all".
      power: "popularity" draws an item with probability proportional to count^power; 0 draws
        uniformly, items without a count included.

    Raises:
      ValueError: for another kind, fewer than one candidate, or a negative power.
    """

    kind: str = "uniform"
    drawn: Count = 100
    power: Weight = 0.75

    def __post_init__(self) -> None:
        check(self)
        if self.kind not in KINDS:
            raise ValueError(f"sampler {self.kind!r}: kinds are {', '.join(KINDS)}")

    @property
    def is_uniform(self) -> bool:
        """Whether ranks can be estimated from the sample as `ilm_jax.cf.ranks` does."""
        return self.kind in ("uniform", "all")


class Sampler:
    """Draws candidates, and knows how often each is expected; as text, a digest of all that.

    Attributes:
      config: see `SamplerConfig`.
      probability: of every item in one draw (for "in_batch": to be the positive of a row).
    """

    def __init__(self, config: SamplerConfig, probability: Float[np.ndarray, " items"]) -> None:
        """See the attributes; of "popularity" the probabilities become those of `Cells`."""
        self.config = config
        self._cells = Cells.of(probability) if config.kind == "popularity" else None
        self.probability: Float32[np.ndarray, " items"] = (
            self._cells.probability if self._cells else probability.astype(np.float32)
        )

    def __str__(self) -> str:
        """For a run's record: two samplers with the same text draw alike."""
        if self._cells:
            return f"{self.config}, cells {self._cells.digest[:16]}"
        digest = hashlib.sha256(self.probability.tobytes()).hexdigest()
        return f"{self.config}, probabilities {digest[:16]}"

    @classmethod
    def make(cls, config: SamplerConfig, counts: Int64[np.ndarray, " items"]) -> "Sampler":
        """From the training count of every item."""
        weights = np.ones(len(counts))
        if config.kind in ("popularity", "in_batch"):
            weights = counts.astype(float) ** (config.power if config.kind == "popularity" else 1)
        return cls(config, weights / weights.sum())

    def draw(
        self, key: Array, positives: Int32[Array, " batch"]
    ) -> tuple[Int32[Array, " drawn"], Float32[Array, " drawn"]]:
        """(candidate rows, log of the expected number of times that each is among them)."""
        items = len(self.probability)
        kind, drawn = self.config.kind, self.config.drawn
        if kind == "all":
            return jnp.arange(items, dtype=jnp.int32), jnp.zeros(items, jnp.float32)
        if kind == "uniform":
            chosen = jax.random.randint(key, (drawn,), 0, items, jnp.int32)
        elif self._cells:
            chosen = self._cells.draw(key, drawn)
        else:
            chosen = positives
        chance = jnp.asarray(self.probability)[chosen]
        return chosen, jnp.log(jnp.maximum(chance * len(chosen), 1e-30))


_BITMAP_BYTES = 2 << 30


def history_bitmap(interactions: Interactions) -> UInt32[np.ndarray, "users words"]:
    """One bit for each (user, item): whether they met.

    Raises:
      ValueError: if it takes more than 2 GiB; exclude only the target then.
    """
    words = -(-interactions.num_items // 32)
    size = 4 * words * interactions.num_users
    if size > _BITMAP_BYTES:
        raise ValueError(
            f"a bitmap of all histories takes {size / 2**30:.1f} GiB; set exclude='target'"
        )
    bitmap = np.zeros((interactions.num_users, words), np.uint32)
    bits = np.uint32(1) << (interactions.items % 32).astype(np.uint32)
    np.bitwise_or.at(bitmap, (interactions.users, interactions.items // 32), bits)
    return bitmap


def history_table(
    interactions: Interactions, *, every: bool = False
) -> UInt32[np.ndarray, "users words"] | UInt32[np.ndarray, " entries"]:
    """What `met` looks histories up in.

    The bitmap, or where it would take more than 2 GiB the histories themselves in one vector: the
    number of users, where each user's items begin, where the last ones end, and the items.

    Args:
      interactions: of the users.
      every: whether all items are looked up at once, for which the bitmap alone will do.

    Raises:
      ValueError: if neither can be; exclude only the target then.
    """
    words = -(-interactions.num_items // 32)
    if every or 4 * words * interactions.num_users <= _BITMAP_BYTES:
        return history_bitmap(interactions)
    head = np.append(interactions.num_users, interactions.offsets)
    if len(head) + len(interactions.items) >= 2**31:
        raise ValueError(f"{len(interactions.items)} pairs are too many; set exclude='target'")
    table = spill.empty(len(head) + len(interactions.items), np.uint32)
    table[: len(head)], table[len(head) :] = head, interactions.items
    return table


def met(
    table: UInt32[Array, "users words"] | UInt32[Array, " entries"],
    users: Int[Array, " batch"],
    items: Int[Array, " drawn"] | None,
) -> Bool[Array, "batch drawn"]:
    """Whether each user met each item; for None all bits, 32 a word, which is faster.

    Args:
      table: of `history_table`.
      users, items: rows.
    """
    if table.ndim == 1:
        assert items is not None
        return _found(table, users, items)
    words = table[users]
    if items is None:
        bits = words[:, :, None] >> jnp.arange(32, dtype=jnp.uint32)
        return (bits & 1).astype(bool).reshape(len(words), -1)
    return ((words[:, items // 32] >> (items % 32).astype(jnp.uint32)) & 1).astype(bool)


def history_lengths(
    table: UInt32[Array, "users words"] | UInt32[Array, " entries"], users: Int[Array, " batch"]
) -> Int[Array, " batch"]:
    """How many items each user met."""
    if table.ndim == 1:
        return (table[users + 2] - table[users + 1]).astype(jnp.int32)
    return jax.lax.population_count(table[users]).sum(1)


def _middle(low: Int32[Array, " *shape"], high: Int32[Array, " *shape"]) -> Array:
    """Half-way, rounded down: of places above 2^30, whose sum no int32 holds, too."""
    return low + (high - low) // 2


def _found(
    table: UInt32[Array, " entries"], users: Int[Array, " batch"], items: Int[Array, " drawn"]
) -> Bool[Array, "batch drawn"]:
    """`met` by halving each user's items, which rise."""
    first = table[0].astype(jnp.int32) + 2
    ends = (first + table[users + 2].astype(jnp.int32))[:, None]
    begins = (first + table[users + 1].astype(jnp.int32))[:, None]
    shape = len(users), len(items)
    wanted = items.astype(jnp.uint32)[None, :]

    def halve(_: int, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        """Bounds of the first entry that is not below the wanted one."""
        low, high = bounds
        middle = _middle(low, high)
        below = (table[middle] < wanted) & (low < high)
        return jnp.where(below, middle + 1, low), jnp.where(below, high, middle)

    start = jnp.broadcast_to(begins, shape), jnp.broadcast_to(ends, shape)
    place, _ = jax.lax.fori_loop(0, 32, halve, start)
    return (place < ends) & (table[jnp.minimum(place, len(table) - 1)] == wanted)
