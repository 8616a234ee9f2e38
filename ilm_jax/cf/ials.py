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

and alike for items. H'H is shared by all users, so an epoch costs O(|S| d^2 + (|U| + |I|) d^3) with
Cholesky, and O(|S| d steps) with conjugate gradients, which stop short of the exact solution and
start from the last one (Takács, Pilászy and Tikk 2011). Blocks and placement on devices are in
`ials_blocks`, the solves in `ials_solve`.
"""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float32, Int

from ilm_jax.cf.early_stopping import Vectors
from ilm_jax.cf.ials_blocks import GATHERED_FLOATS, PARTED_FLOATS, Placement, Side, make_side
from ilm_jax.cf.ials_solve import PlacedBlock, apart, fetched, flat_mesh, place, placed, solve_side
from ilm_jax.cf.interactions import Interactions
from ilm_jax.checks import Count, Positive, Seed, Weight, check

OnEpoch = Callable[[int, Vectors, Vectors], object]


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
      solver: "cholesky" (exact) or "cg" (conjugate gradients).
      cg_steps: of "cg", for each row and half epoch.
      dtype: "float32", or "bfloat16" for the vectors that are gathered and multiplied; sums and
        solves are float32 in any case.
      gather: "whole" copies the other table to every device once in a half epoch, "rows" exchanges
        the rows of each block, for tables that no device can hold.

    Raises:
      ValueError: for a setting that means nothing.
    """

    dim: Count = 32
    alpha: Positive = 0.1
    regularisation: Positive = 0.01
    nu: Weight = 1.0
    epochs: Count = 16
    seed: Seed = 0
    init_stddev: Positive = 0.1
    solver: str = "cholesky"
    cg_steps: Count = 3
    dtype: str = "float32"
    gather: str = "whole"

    def __post_init__(self) -> None:
        check(self)
        if self.solver not in ("cholesky", "cg"):
            raise ValueError(f"solver={self.solver!r}; choose 'cholesky' or 'cg'")
        if self.dtype not in ("float32", "bfloat16") or self.gather not in ("whole", "rows"):
            raise ValueError(
                f"dtype={self.dtype!r}, gather={self.gather!r}; choose 'float32' or "
                "'bfloat16', 'whole' or 'rows'"
            )

    @property
    def steps(self) -> int:
        """Of conjugate gradients; 0 where solves are exact."""
        return self.cg_steps if self.solver == "cg" else 0

    def placed(self, mesh: Mesh, side: Side) -> Sequence[PlacedBlock]:
        """`ials_solve.placed` with these settings."""
        return placed(mesh, side, alpha=self.alpha, regularisation=self.regularisation, nu=self.nu)

    def solve(
        self, mesh: Mesh, blocks: Sequence[PlacedBlock], other: jax.Array, start: jax.Array
    ) -> jax.Array:
        """`ials_solve.solve_side` with these settings."""
        return solve_side(
            mesh,
            blocks,
            other,
            start,
            alpha=self.alpha,
            dtype=self.dtype,
            gather=self.gather,
            cg_steps=self.steps,
        )


@dataclasses.dataclass(frozen=True, eq=False)
class Factors:
    """The two sides: rows without training interactions are exactly zero."""

    user: Float32[np.ndarray, "users dim"]
    item: Float32[np.ndarray, "items dim"]


def fit(
    users: Int[np.ndarray, " pairs"],
    items: Int[np.ndarray, " pairs"],
    num_users: int,
    num_items: int,
    config: IALSConfig | None = None,
    on_epoch: OnEpoch | None = None,
    mesh: Mesh | None = None,
) -> Factors:
    """Fits both sides to observed pairs; the same config and machine give the same bits.

    Args:
      users, items: row numbers of the observed pairs (`Splits.train_interactions`).
      num_users, num_items: sizes of the two sides, rows without a pair included.
      config: see `IALSConfig`.
      on_epoch: called as on_epoch(epochs done, user vectors, item vectors) after each epoch; True
        stops. `EarlyStopping` is one.
      mesh: devices to split both tables over; the first device if None. Any mesh gives the same
        factors to rounding.

    Raises:
      ValueError: if there is no pair, a row number is out of range, or the fit is not finite.
    """
    train = Interactions.from_pairs(users, items, num_users, num_items)
    return fit_interactions(train, config, on_epoch, mesh)


def fit_interactions(
    train: Interactions,
    config: IALSConfig | None = None,
    on_epoch: OnEpoch | None = None,
    mesh: Mesh | None = None,
) -> Factors:
    """`fit` of pairs that are sorted already."""
    config = config or IALSConfig()
    line = flat_mesh(mesh)
    turned = train.transposed()
    places = [Placement.deal(part.lengths, line.size) for part in (train, turned)]
    in_parts = apart(line, config.gather, config.steps)
    size = {
        "dim": config.dim,
        # Every device answers every other.
        "copies": line.size if config.gather == "rows" else 1,
        "floats": PARTED_FLOATS if in_parts else GATHERED_FLOATS,
    }
    sides = (
        make_side(train, places[0], places[1], **size),
        make_side(turned, places[1], places[0], **size),
    )
    user_side, item_side = (config.placed(line, side) for side in sides)
    first = np.array(jax.random.normal(jax.random.key(config.seed), (train.num_items, config.dim)))
    first *= config.init_stddev / np.sqrt(config.dim)
    first[turned.lengths == 0] = 0.0
    item = place(line, places[1].stack(first))
    user = place(line, np.zeros((places[0].size, config.dim), np.float32))
    for epoch in range(config.epochs):
        user = config.solve(line, user_side, item, user)
        item = config.solve(line, item_side, user, item)
        if on_epoch is not None:
            tables = (fetched(x)[p.position] for x, p in zip((user, item), places, strict=True))
            if on_epoch(epoch + 1, *tables):
                break
    factors = Factors(fetched(user)[places[0].position], fetched(item)[places[1].position])
    if not (np.isfinite(factors.user).all() and np.isfinite(factors.item).all()):
        raise ValueError("iALS diverged to non-finite vectors; raise the regularisation")
    return factors


def fold_in(
    histories: Sequence[Int[np.ndarray, " length"]] | Interactions,
    item: Float32[np.ndarray, "items dim"],
    config: IALSConfig,
) -> Float32[np.ndarray, "users dim"]:
    """Vectors of new users from their histories (item rows): one exact solve, nothing retrained.

    What a user's vector would be, had the fit seen this history only; an empty history gives
    zero. New items are folded in alike, from the rows of the users who met them and the fitted
    user vectors.

    Raises:
      ValueError: if a history names a row that `item` does not have.
    """
    if not isinstance(histories, Interactions):
        histories = _as_interactions(histories, len(item))
    if histories.num_items != len(item):
        raise ValueError(f"histories are over {histories.num_items} rows, there are {len(item)}")
    rows = Placement.deal(histories.lengths, 1)
    side = make_side(histories, rows, Placement.as_given(len(item)), item.shape[1])
    line = flat_mesh(None)
    exact = dataclasses.replace(config, solver="cholesky", gather="whole")
    start = place(line, np.zeros((rows.size, item.shape[1]), np.float32))
    solved = exact.solve(line, exact.placed(line, side), place(line, item), start)
    return np.array(solved)[rows.position]


def _as_interactions(histories: Sequence[np.ndarray], num_items: int) -> Interactions:
    """Rows of distinct items; unlike `Interactions.from_pairs` all may be empty."""
    distinct = [np.unique(np.asarray(history, np.int64)) for history in histories]
    items = np.concatenate([*distinct, np.zeros(0, np.int64)]).astype(np.int32)
    if len(items) and not 0 <= items.min() <= items.max() < num_items:
        raise ValueError(f"a history names an item row outside [0, {num_items})")
    offsets = np.cumsum([0, *map(len, distinct)]).astype(np.int64)
    return Interactions(offsets, items, num_items)


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
