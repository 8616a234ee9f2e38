"""The blockwise contrastive loss equals its formula, on any mesh and in any blocks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ilm_jax.compilation.costs import analyse
from ilm_jax.objectives.contrastive import contrast
from ilm_jax.sharding.partitioning import MeshConfig, Partitioner

ROWS = 32


def direct(left, right, temperature, left_ids, right_ids, smoothing=0.1):
    """The module's formula, all similarities at once."""
    sim = jnp.einsum("iqd,jrd->iqjr", left, right).max((1, 3)) / temperature
    same = (left_ids[:, None] == left_ids[None]) | (right_ids[:, None] == right_ids[None])
    same = same.astype(jnp.float32)
    total = 0.0
    for axis in (1, 0):
        target = (1 - smoothing) * same / same.sum(axis, keepdims=True) + smoothing / len(sim)
        total -= (target * jax.nn.log_softmax(sim, axis)).sum(axis).mean() / 2
    return total


@pytest.fixture(scope="module")
def inputs():
    rng = np.random.default_rng(0)

    def unit(*shape):
        x = rng.normal(size=shape).astype(np.float32)
        return jnp.array(x / np.linalg.norm(x, axis=-1, keepdims=True))

    ids = [jnp.array(rng.integers(0, 20, ROWS)) for _ in range(2)]
    return unit(ROWS, 4, 16), unit(ROWS, 3, 16), jnp.float32(0.07), *ids


def blockwise(inputs, block, key=None):
    def loss(left, right, temperature, *ids):
        result = contrast(left, right, temperature, *ids, key=key, block=block)
        return result.loss, result

    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True))(*inputs)


@pytest.mark.parametrize("block", [pytest.param(1, marks=pytest.mark.slow), 8, None])
def test_value_and_gradient_equal_the_formula(inputs, block):
    want, want_grads = jax.value_and_grad(direct, argnums=(0, 1, 2))(*inputs)
    (got, _), grads = blockwise(inputs, block)
    np.testing.assert_allclose(got, want, rtol=1e-6)
    for g, w in zip(grads, want_grads, strict=True):
        np.testing.assert_allclose(g, w, atol=2e-6 * float(jnp.abs(w).max()))


@pytest.mark.parametrize("sizes", [(8, 1, 1), (2, 2, 2), (1, 1, 8)])
def test_any_mesh_gives_the_same_loss_gradient_and_negatives(inputs, sizes):
    key = jax.random.key(3)
    (want, alone), want_grads = blockwise(inputs, 8, key)
    partitioner = Partitioner(MeshConfig(*sizes))
    rows = partitioner.batch_sharding(ROWS)
    with partitioner.context():
        placed = [jax.device_put(x, rows) if x.ndim else x for x in inputs]
        (got, result), grads = blockwise(placed, 4, key)
    np.testing.assert_allclose(got, want, rtol=1e-6)
    for g, w in zip(grads, want_grads, strict=True):
        np.testing.assert_allclose(g, w, atol=1e-5 * float(jnp.abs(w).max()))
    np.testing.assert_array_equal(result.negative_left, alone.negative_left)
    np.testing.assert_array_equal(result.negative_right, alone.negative_right)


@pytest.mark.parametrize(("right_queries", "draws"), [(1, True), (32, False)], ids=["itc", "pairs"])
def test_a_batch_of_32768_with_32_queries_takes_2_gib_per_device_at_most(right_queries, draws):
    partitioner = Partitioner(MeshConfig(2, 2, 2))
    size = 32_768
    rows = partitioner.batch_sharding(size)

    def loss(left, right, temperature, *ids):
        result = contrast(left, right, temperature, *ids, key=jax.random.key(0) if draws else None)
        return result.loss, (result.negative_left, result.negative_right)

    def struct(dtype, *shape):
        sharding = rows if shape else partitioner.replicated
        return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)

    vectors = [struct(jnp.float32, size, queries, 256) for queries in (32, right_queries)]
    ids = [struct(jnp.int32, size)] * 2
    with partitioner.context():
        step = jax.jit(
            jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True),
            out_shardings=((None, rows), (rows, rows, None)),
        )
        lowered = step.lower(*vectors, struct(jnp.float32), *ids)
    compiled = lowered.compile()
    assert compiled.memory_analysis().temp_size_in_bytes <= 2 * 2**30
    # No device holds all columns, which alone are 1 GiB with 32 queries.
    gathered = [c for c in analyse(compiled.as_text()).collectives if c.opcode == "all-gather"]
    assert gathered and max(c.bytes for c in gathered) <= 16 * 2**20


def test_negatives_are_never_positives_and_follow_the_softmax(inputs):
    left, right, temperature, left_ids, right_ids = inputs
    draws = jax.jit(
        jax.vmap(lambda k: contrast(*inputs, key=k).negative_right),
    )(jax.random.split(jax.random.key(1), 4000))
    same = (left_ids[:, None] == left_ids[None]) | (right_ids[:, None] == right_ids[None])
    assert not np.asarray(same)[np.arange(ROWS), np.asarray(draws)].any()
    sim = jnp.einsum("iqd,jrd->iqjr", left, right).max((1, 3)) / temperature
    want = jax.nn.softmax(jnp.where(same, -jnp.inf, sim), axis=1)
    got = np.stack([np.bincount(d, minlength=ROWS) for d in np.asarray(draws).T]) / len(draws)
    assert np.abs(got - np.asarray(want)).max() < 5 * 0.5 / np.sqrt(len(draws))


def test_a_row_without_negatives_gets_none():
    left = jnp.ones((4, 1, 2)) / jnp.sqrt(2.0)
    ids = jnp.zeros(4, jnp.int32)
    result = contrast(left, left, jnp.float32(0.1), ids, ids, key=jax.random.key(0))
    assert (np.asarray(result.negative_left) == -1).all()
    assert np.isfinite(result.loss)


def test_accuracy_is_the_share_of_rows_whose_best_column_is_right(inputs):
    left, right, temperature, left_ids, right_ids = inputs
    # Every third row is given its own text, so that some are right.
    right = right.at[::3, 0].set(left[::3, 0])
    sim = np.einsum("iqd,jrd->iqjr", left, right).max((1, 3))
    same = (left_ids[:, None] == left_ids[None]) | (right_ids[:, None] == right_ids[None])
    want = np.take_along_axis(np.asarray(same), sim.argmax(1)[:, None], 1).mean()
    assert 0.3 < want < 1
    for block in (4, 32):
        got = contrast(left, right, temperature, left_ids, right_ids, block=block).accuracy
        assert float(got) == pytest.approx(want)


def test_a_right_column_that_ties_with_a_wrong_one_is_right():
    left = jnp.tile(jnp.array([[[1.0, 0.0]]]), (4, 1, 1))
    ids = jnp.arange(4)
    assert float(contrast(left, left, jnp.float32(0.1), ids, ids).accuracy) == 1.0
    worse = left.at[0, 0].set(jnp.array([0.6, 0.8]))
    # Row 0's own right side is now further off than the others'; theirs tie with one another.
    assert float(contrast(left, worse, jnp.float32(0.1), ids, ids).accuracy) == 0.75


def test_wrong_rows_of_a_column_follow_the_softmax_apart_from_those_of_the_rows(inputs):
    left, right, temperature, left_ids, right_ids = inputs
    draws = jax.jit(jax.vmap(lambda k: contrast(*inputs, key=k)[2:]))(
        jax.random.split(jax.random.key(2), 4000)
    )
    columns, rows = (np.asarray(x) for x in draws)  # of each row, and of each column
    same = (left_ids[:, None] == left_ids[None]) | (right_ids[:, None] == right_ids[None])
    sim = jnp.einsum("iqd,jrd->iqjr", left, right).max((1, 3)) / temperature
    want = np.asarray(jax.nn.softmax(jnp.where(same, -jnp.inf, sim), axis=0))
    got = np.stack([np.bincount(d, minlength=ROWS) for d in rows.T], axis=1) / len(rows)
    bound = 5 * 0.5 / np.sqrt(len(rows))
    assert np.abs(got - want).max() < bound
    # Row i draws column j, and column j draws row i: with one noise for both they would agree.
    right_of = columns[:, :, None] == np.arange(ROWS)
    left_of = (rows[:, :, None] == np.arange(ROWS)).swapaxes(1, 2)
    together = (right_of & left_of).mean(0)
    assert np.abs(together - right_of.mean(0) * left_of.mean(0)).max() < bound
