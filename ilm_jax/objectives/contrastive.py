"""Contrastive losses over the whole global batch, computed in blocks of columns.

With unit vectors `left[i, q]` and `right[j, r]` and a temperature tau,

    s_ij = max over q, r of  <left[i, q], right[j, r]> / tau
    T_ij = (1 - e) * P_ij / sum_j P_ij + e / N
    loss = 1/2 * mean_i CE(softmax_j s_ij, T_i.) + 1/2 * mean_j CE(softmax_i s_ij, T'_.j)

where P marks the positives: rows that share an id share their targets, since they are right
answers to each other. ITC is this with one right vector per text (Li et al. 2023, "BLIP-2",
section 3.1; the maximum is taken for every (item, text) pair; e = 0.1 and shared targets as in
its retrieval branch). Item-item and user-item are the same between two bags of query outputs
(Yang et al. 2024, arXiv 2406.02844; the maximum over query pairs is our reading).

The N x N similarities never exist at once: a scan walks over blocks of columns, each recomputed
in the backward pass, and rows stay split over the batch axes of the mesh. Nor does any device hold
all columns: a block is made of some of every device's, gathered when their turn comes, and what is
due to them is sent home in the same way.
"""

import functools
import math
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.extend.random import threefry_2x32
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Int, UInt32

LABEL_SMOOTHING = 0.1
BLOCK_BYTES = 256 * 2**20
NEGATIVE = -1e30


class Contrast(NamedTuple):
    """Results of one pass over the similarities.

    Attributes:
      loss: scalar, nats, mean over both directions.
      accuracy: share of rows whose best column is a positive.
      negative_right: for each row, a column drawn with probability softmax_j(s_ij) among the
        non-positives: the hard negative of item-text matching; -1 where a row has none.
      negative_left: for each column, a row drawn in the same way.
    """

    loss: Float[Array, ""]
    accuracy: Float[Array, ""]
    negative_right: Int[Array, " batch"]
    negative_left: Int[Array, " batch"]


def contrast(
    left: Float[Array, "batch left_queries dim"],
    right: Float[Array, "batch right_queries dim"],
    temperature: Float[Array, ""],
    left_ids: Int[Array, " batch"],
    right_ids: Int[Array, " batch"],
    *,
    key: jax.Array | None = None,
    label_smoothing: float = LABEL_SMOOTHING,
    block: int | None = None,
) -> Contrast:
    """The symmetric contrastive loss of this module's header, and hard negatives.

    Args:
      left: unit vectors, a bag per row.
      right: unit vectors, a bag per row; one vector each for texts.
      temperature: tau, positive.
      left_ids: equal ids on the left mark rows whose right sides are positives of each other.
      right_ids: likewise for the right side.
      key: draws hard negatives if given, keyed by global (row, column): independent of blocks
        and mesh.
      label_smoothing: e above.
      block: columns per block at most, but one of every shard; chosen from BLOCK_BYTES if None.
    """
    axes = _batch_axes()
    mesh = jax.sharding.get_abstract_mesh()
    shards = math.prod(mesh.shape[axis] for axis in axes) if axes else 1
    rows_here = left.shape[0] // shards
    block = block or BLOCK_BYTES // (rows_here * left.shape[1] * right.shape[1] * 4)
    block = _divisor_at_most(rows_here, max(1, block // shards))
    counter_key = None if key is None else jax.random.key_data(key).astype(jnp.uint32)
    run = functools.partial(_contrast_rows, axes=axes, block=block, label_smoothing=label_smoothing)
    args = (left, right, temperature, left_ids, right_ids, counter_key)
    if not axes:
        return run(*args)
    rows, whole = PartitionSpec(axes), PartitionSpec()
    result = jax.shard_map(
        lambda *shards: tuple(run(*shards)),
        in_specs=(rows, rows, whole, rows, rows, whole),
        out_specs=(whole, whole, rows, rows),
    )(*args)
    return Contrast(*result)


def _batch_axes() -> tuple[str, ...]:
    """Mesh axes that split the batch under the current rules; none outside of a mesh."""
    mesh = jax.sharding.get_abstract_mesh()
    spec = nn.logical_to_mesh_axes(("batch",))
    if mesh.empty or spec is None or not spec[0]:
        return ()
    names = (spec[0],) if isinstance(spec[0], str) else tuple(spec[0])
    return tuple(name for name in names if name in mesh.shape)


def _divisor_at_most(size: int, limit: int) -> int:
    return next(d for d in range(min(size, limit), 0, -1) if size % d == 0)


def similarity(
    left: Float[Array, "rows left_queries dim"], right: Float[Array, "columns right_queries dim"]
) -> Float[Array, "rows columns"]:
    """Largest inner product over query pairs, float32."""
    pairs = jnp.einsum("iqd,jrd->iqjr", left, right, preferred_element_type=jnp.float32)
    return pairs.max(axis=(1, 3))


def gumbel_at(
    key: UInt32[Array, "2"], rows: Int[Array, " rows"], columns: Int[Array, " columns"]
) -> Float[Array, "2 rows columns"]:
    """Two independent standard Gumbel draws for each global (row, column) pair."""
    shape = (rows.shape[0], columns.shape[0])
    counts = jnp.stack(
        [jnp.broadcast_to(rows[:, None], shape), jnp.broadcast_to(columns[None, :], shape)]
    )
    bits = threefry_2x32(key, counts.astype(jnp.uint32).reshape(-1)).reshape(2, *shape)
    # 24 bits, centred, so that the uniform is never 0 or 1.
    uniform = ((bits >> 8).astype(jnp.float32) + 0.5) * 2.0**-24
    return -jnp.log(-jnp.log(uniform))


class _Rows(NamedTuple):
    """Running statistics of this device's rows over the columns seen so far."""

    max: Float[Array, " rows"]
    sum: Float[Array, " rows"]  # of exp(s - max)
    same: Float[Array, " rows"]  # sum of s over positives
    positives: Float[Array, " rows"]  # number of positives
    all: Float[Array, " rows"]  # sum of s
    best_positive: Float[Array, " rows"]
    best_negative: Float[Array, " rows"]
    drawn: Float[Array, " rows"]  # largest noisy score among non-positives …
    drawn_at: Int[Array, " rows"]  # … and its column


def _contrast_rows(
    left, right, temperature, left_ids, right_ids, key, *, axes, block, label_smoothing
) -> Contrast:
    """`contrast` for this device's rows against all columns, `block` of each shard at a time."""

    def gather(x: Array) -> Array:
        """All shards' rows, in the order of the global batch."""
        return jax.lax.all_gather(x, axes, tiled=True) if axes else x

    def total(x: Array) -> Array:
        """The sum over all shards."""
        return jax.lax.psum(x, axes) if axes else x

    rows = left.shape[0]
    all_left_ids, all_right_ids = gather(left_ids), gather(right_ids)
    size = all_right_ids.shape[0]
    first = (jax.lax.axis_index(axes) if axes else 0) * rows
    row_index = first + jnp.arange(rows)

    @jax.checkpoint
    def body(carry: _Rows, start: Int[Array, ""]) -> tuple[_Rows, tuple[Array, ...]]:
        """Folds `block` columns of each shard, from `start` on, into the rows' statistics."""
        columns = (jnp.arange(0, size, rows)[:, None] + start + jnp.arange(block)).reshape(-1)
        vectors = gather(jax.lax.dynamic_slice_in_dim(right, start, block))
        sim = similarity(left, vectors) / temperature
        same = (left_ids[:, None] == all_left_ids[columns][None]) | (
            right_ids[:, None] == all_right_ids[columns][None]
        )
        noise = 0.0 if key is None else gumbel_at(key, row_index, columns)
        noisy = jnp.where(same, NEGATIVE, jax.lax.stop_gradient(sim) + noise)
        noisy = jnp.broadcast_to(noisy, (2, *sim.shape))
        return (
            _fold_columns(carry, sim, same, noisy[0], columns),
            _column_statistics(sim, same, noisy[1], row_index, axes, total),
        )

    zero, low = jnp.zeros(rows), jnp.full(rows, NEGATIVE)
    carry = _Rows(low, zero, zero, zero, zero, low, low, low, jnp.full(rows, -1))
    if axes:
        carry = jax.tree.map(lambda x: jax.lax.pcast(x, axes, to="varying"), carry)
    row, column = jax.lax.scan(body, carry, jnp.arange(0, rows, block))
    cross_entropy = functools.partial(_cross_entropy, size=size, smoothing=label_smoothing)
    row_loss = cross_entropy(jnp.log(row.sum) + row.max, row.same, row.positives, row.all)
    # [blocks, shards, block] in the order of the walk; columns in their own order.
    walked = (rows // block, size // rows, block)
    *statistics, negative_left = (x.reshape(walked).swapaxes(0, 1).reshape(-1) for x in column)
    return Contrast(
        loss=0.5 * (total(row_loss.sum()) + cross_entropy(*statistics).sum()) / size,
        accuracy=total((row.best_positive >= row.best_negative).sum()) / size,
        negative_right=row.drawn_at,
        negative_left=jax.lax.dynamic_slice_in_dim(negative_left, first, rows),
    )


def _cross_entropy(lse, same, count, everything, *, size, smoothing):
    """CE against T. The targets sum to one, so it is lse - sum_j T_j s_j."""
    return lse - (1 - smoothing) * same / count - smoothing * everything / size


def _fold_columns(carry: _Rows, sim, same, noisy, columns) -> _Rows:
    """Adds a block of columns to the rows' statistics (a streaming log-sum-exp)."""
    fixed = jax.lax.stop_gradient(sim)
    top = jnp.maximum(carry.max, fixed.max(1))
    candidate = noisy.argmax(1)
    value = jnp.take_along_axis(noisy, candidate[:, None], 1)[:, 0]
    better = value > carry.drawn
    return _Rows(
        max=top,
        sum=carry.sum * jnp.exp(carry.max - top) + jnp.exp(sim - top[:, None]).sum(1),
        same=carry.same + jnp.where(same, sim, 0).sum(1),
        positives=carry.positives + same.sum(1),
        all=carry.all + sim.sum(1),
        best_positive=jnp.maximum(carry.best_positive, jnp.where(same, fixed, NEGATIVE).max(1)),
        best_negative=jnp.maximum(carry.best_negative, jnp.where(same, NEGATIVE, fixed).max(1)),
        drawn=jnp.where(better, value, carry.drawn),
        drawn_at=jnp.where(better, columns[candidate], carry.drawn_at),
    )


def _column_statistics(sim, same, noisy, row_index, axes, total):
    """(log-sum-exp, positives' sum, their count, sum, drawn row) of each column of the block."""

    def largest(x: Array) -> Array:
        """The maximum over all shards; no gradient."""
        x = jax.lax.stop_gradient(x)
        return jax.lax.pmax(x, axes) if axes else x

    top = largest(sim.max(0))
    lse = jnp.log(total(jnp.exp(sim - top).sum(0))) + top
    value = noisy.max(0)
    drawn = largest(value)
    at = jnp.where((value == drawn) & (drawn > NEGATIVE), row_index[noisy.argmax(0)], -1)
    same_sum, count = total(jnp.where(same, sim, 0).sum(0)), total(same.sum(0))
    return lse, same_sum, count.astype(jnp.float32), total(sim.sum(0)), largest(at)
