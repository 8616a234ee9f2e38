"""Implicit alternating least squares, as Rendle, Krichene, Zhang and Koren tune it.

"Revisiting the Performance of iALS on Item Recommendation Benchmarks" (arXiv 2110.14037). With S
the set of observed (user, item) pairs, I_u the items of user u and U_i the users of item i, over
user vectors w_u and item vectors h_i it minimises

    sum_{(u,i) in S} (<w_u, h_i> - 1)^2  +  alpha * sum_{all u, i} <w_u, h_i>^2
    + regularisation * ( sum_u (|I_u| + alpha * |I|)^nu |w_u|^2
                       + sum_i (|U_i| + alpha * |U|)^nu |h_i|^2 )

by solving one side exactly while the other is fixed: for every user

    ( sum_{i in I_u} h_i h_i' + alpha * H'H + regularisation * (|I_u| + alpha * |I|)^nu * 1 ) w_u
        = sum_{i in I_u} h_i

and alike for items. H'H is shared by all users, so an epoch costs O(|S| d^2 + (|U| + |I|) d^3).
Rows are grouped by the power of two above their length, so that the whole solve runs in a few
compiled shapes; everything is float32.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Int, Int32, Int64

_GATHERED_FLOATS = 1 << 24
"""Bound on rows * length * dim of one block's gathered vectors (64 MiB)."""


@dataclasses.dataclass(frozen=True)
class IALSConfig:
    """Settings of `fit`.

    Attributes:
      dim: length of the vectors.
      alpha: weight of every pair, observed or not (the paper's alpha_0).
      regularisation: the paper's lambda at nu.
      nu: exponent of the frequency scaling; 1 weighs a row by how many terms of the objective
        it takes part in, 0 is a plain L2.
      epochs: each solves all users, then all items.
      seed: of the initial item vectors.
      init_stddev: the first item vectors are N(0, (init_stddev / sqrt(dim))^2).
    """

    dim: int = 32
    alpha: float = 0.1
    regularisation: float = 0.01
    nu: float = 1.0
    epochs: int = 16
    seed: int = 0
    init_stddev: float = 0.1

    def __post_init__(self) -> None:
        if self.dim < 1 or self.epochs < 1:
            raise ValueError("dim and epochs must be at least 1")
        if not (self.alpha > 0 and self.regularisation > 0 and self.init_stddev > 0):
            raise ValueError("alpha, regularisation and init_stddev must be positive")


@dataclasses.dataclass(frozen=True, eq=False)
class Factors:
    """The two sides: rows without training interactions are exactly zero."""

    user: Float32[np.ndarray, "users dim"]
    item: Float32[np.ndarray, "items dim"]


@dataclasses.dataclass(frozen=True, eq=False)
class Side:
    """Who met whom, seen from one side, in blocks of equal padded length.

    Attributes:
      counts: number of distinct partners of every row.
      others: number of rows on the other side.
      blocks: (rows[b], partners[b, length]) pairs; a block's spare rows are `len(counts)` and its
        spare partners are `others`: both are out of range and are dropped.
    """

    counts: Int64[np.ndarray, " rows"]
    others: int
    blocks: list[tuple[Int32[np.ndarray, " block"], Int32[np.ndarray, "block length"]]]


def make_side(
    rows: Int[np.ndarray, " pairs"],
    partners: Int[np.ndarray, " pairs"],
    num_rows: int,
    num_partners: int,
    dim: int,
) -> Side:
    """Groups the (row, partner) pairs by row; repeated pairs count once.

    Args:
      rows, partners: the pairs, in any order.
      num_rows, num_partners: sizes of the two sides.
      dim: of the vectors; bounds the size of a block.
    """
    keys = np.unique(rows.astype(np.int64) * num_partners + partners)
    rows, partners = keys // num_partners, (keys % num_partners).astype(np.int32)
    counts = np.bincount(rows, minlength=num_rows).astype(np.int64)
    starts = np.concatenate([[0], np.cumsum(counts)])
    lengths = np.maximum(4, 2 ** np.ceil(np.log2(np.maximum(counts, 1))).astype(np.int64))
    blocks = []
    for length in np.unique(lengths[counts > 0]):
        members = np.flatnonzero((lengths == length) & (counts > 0))
        # The last block of a length is padded too, so that a length compiles once.
        most = max(1, _GATHERED_FLOATS // (dim * max(int(length), dim)))
        size = min(most, 1 << (len(members) - 1).bit_length())
        for first in range(0, len(members), size):
            chosen = members[first : first + size]
            block = np.full(size, num_rows, np.int32)
            block[: len(chosen)] = chosen
            index = np.full((size, int(length)), num_partners, np.int32)
            inside = np.arange(length) < counts[chosen, None]
            index[: len(chosen)][inside] = partners[
                (starts[chosen, None] + np.arange(length))[inside]
            ]
            blocks.append((block, index))
    return Side(counts, num_partners, blocks)


@functools.partial(jax.jit, donate_argnums=0)
def _solve_block(
    solution: Float32[Array, "rows dim"],
    other: Float32[Array, "others dim"],
    gram: Float32[Array, "dim dim"],
    rows: Int32[Array, " block"],
    partners: Int32[Array, "block length"],
    ridge: Float32[Array, " block"],
) -> Float32[Array, "rows dim"]:
    """Writes the exact solution of the block's rows into `solution`; `gram` is alpha * H'H."""
    met = other.at[partners].get(mode="fill", fill_value=0.0)
    highest = jax.lax.Precision.HIGHEST  # a TPU's default would square in bfloat16
    matrix = jnp.einsum("bld,ble->bde", met, met, precision=highest) + gram
    matrix += ridge[:, None, None] * jnp.eye(other.shape[1], dtype=jnp.float32)
    factor = jax.scipy.linalg.cho_factor(matrix, lower=True)
    vectors = jax.scipy.linalg.cho_solve(factor, met.sum(1)[..., None])[..., 0]
    return solution.at[rows].set(vectors, mode="drop")


@jax.jit
def _gram(vectors: Float32[Array, "rows dim"], alpha: float) -> Float32[Array, "dim dim"]:
    return alpha * jnp.matmul(vectors.T, vectors, precision=jax.lax.Precision.HIGHEST)


def solve_side(
    side: Side, other: Float32[Array, "others dim"], config: IALSConfig
) -> Float32[Array, "rows dim"]:
    """The exact minimum of the objective over one side, the other fixed; empty rows are zero."""
    scale = (side.counts + config.alpha * side.others) ** config.nu
    ridge = np.append(config.regularisation * scale, 1.0).astype(np.float32)
    gram = _gram(other, config.alpha)
    solution = jnp.zeros((len(side.counts), config.dim), jnp.float32)
    for rows, partners in side.blocks:
        solution = _solve_block(solution, other, gram, rows, partners, ridge[rows])
    return solution


def fit(
    users: Int[np.ndarray, " pairs"],
    items: Int[np.ndarray, " pairs"],
    num_users: int,
    num_items: int,
    config: IALSConfig | None = None,
    on_epoch: Callable[[int, Float32[Array, "users dim"], Float32[Array, "items dim"]], None]
    | None = None,
) -> Factors:
    """Fits both sides to observed pairs; the same config and machine give the same bits.

    Args:
      users, items: row numbers of the observed pairs (`Splits.train_interactions`).
      num_users, num_items: sizes of the two sides, rows without a pair included.
      config: see `IALSConfig`.
      on_epoch: called as on_epoch(epochs done, user vectors, item vectors) after each epoch.

    Raises:
      ValueError: if there is no pair, a row number is out of range, or the fit is not finite.
    """
    config = config or IALSConfig()
    for name, rows, size in (("user", users, num_users), ("item", items, num_items)):
        if not len(rows) or rows.min() < 0 or rows.max() >= size:
            raise ValueError(f"no pairs, or a {name} row outside [0, {size})")
    user_side = make_side(users, items, num_users, num_items, config.dim)
    item_side = make_side(items, users, num_items, num_users, config.dim)
    spread = config.init_stddev / np.sqrt(config.dim)
    key = jax.random.key(config.seed)
    item = spread * jax.random.normal(key, (num_items, config.dim), jnp.float32)
    item = jnp.where(item_side.counts[:, None] > 0, item, 0.0)
    for epoch in range(config.epochs):
        user = solve_side(user_side, item, config)
        item = solve_side(item_side, user, config)
        if on_epoch is not None:
            on_epoch(epoch + 1, user, item)
    factors = Factors(np.array(user), np.array(item))
    if not (np.isfinite(factors.user).all() and np.isfinite(factors.item).all()):
        raise ValueError("iALS diverged to non-finite vectors; raise the regularisation")
    return factors


def fold_in(
    histories: Sequence[Int[np.ndarray, " length"]],
    item: Float32[np.ndarray, "items dim"],
    config: IALSConfig,
) -> Float32[np.ndarray, "users dim"]:
    """User vectors of new histories (item rows) against fitted items: one exact user solve.

    What a user's vector would be, had the fit seen this history only; an empty history gives zero.
    """
    lengths = [len(history) for history in histories]
    rows = np.repeat(np.arange(len(histories)), lengths)
    partners = np.concatenate([*histories, np.zeros(0, np.int32)])
    side = make_side(rows, partners, len(histories), len(item), config.dim)
    return np.array(solve_side(side, jnp.asarray(item), config))


def objective(
    factors: Factors,
    users: Int[np.ndarray, " pairs"],
    items: Int[np.ndarray, " pairs"],
    config: IALSConfig,
) -> float:
    """The value of the objective in the module's docstring (distinct pairs), in float64."""
    user, item = factors.user.astype(np.float64), factors.item.astype(np.float64)
    keys = np.unique(users.astype(np.int64) * len(item) + items)
    rows, columns = keys // len(item), keys % len(item)
    observed = np.sum((np.einsum("nd,nd->n", user[rows], item[columns]) - 1.0) ** 2)
    everywhere = config.alpha * np.sum((user.T @ user) * (item.T @ item))
    penalty = 0.0
    for vectors, ids, others in ((user, rows, len(item)), (item, columns, len(user))):
        counts = np.bincount(ids, minlength=len(vectors))
        scale = (counts + config.alpha * others) ** config.nu
        penalty += config.regularisation * np.sum(scale * np.sum(vectors**2, axis=1))
    return float(observed + everywhere + penalty)
