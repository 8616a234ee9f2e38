"""Dropout by hashed positions: its rate, its independence, and the same mask on every mesh."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ilm_jax.models.dropout import Dropout, keep_mask

SHAPE = (64, 8, 32, 32)


@pytest.mark.parametrize("rate", [0.05, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("seed", range(3))
def test_the_rate_is_met_overall_and_along_every_axis(rate, seed):
    kept = np.asarray(keep_mask(jax.random.key(seed), SHAPE, rate))
    for axis in (None, *range(len(SHAPE))):
        rest = tuple(i for i in range(len(SHAPE)) if i != axis)
        means = kept.mean(axis=rest)
        error = np.sqrt(rate * (1 - rate) * np.size(means) / kept.size)
        assert np.abs(means - (1 - rate)).max() < 5 * error


@pytest.mark.parametrize("seed", range(3))
def test_neighbours_rows_and_keys_do_not_tell_of_each_other(seed):
    rate, key = 0.1, jax.random.key(seed)
    kept = np.asarray(keep_mask(key, SHAPE, rate)).astype(np.float64) - (1 - rate)
    other = np.asarray(keep_mask(jax.random.key(seed + 100), SHAPE, rate)) - (1 - rate)
    shifted = [np.roll(kept, by, axis) for axis in range(4) for by in (1, 2, 3, 4, 7)]
    for partner in (*shifted, other, np.flip(kept, 3)):
        correlation = (kept * partner).mean() / (rate * (1 - rate))
        assert abs(correlation) < 5 / np.sqrt(kept.size / 2)  # mirrored pairs count twice


def test_runs_of_positions_take_every_pattern_as_often_as_chance():
    kept = np.asarray(keep_mask(jax.random.key(7), (256, 4096), 0.5)).reshape(-1, 8)
    counts = np.bincount(kept @ (1 << np.arange(8)), minlength=256)
    expected = len(kept) / 256
    chi_squared = ((counts - expected) ** 2 / expected).sum()
    assert abs(chi_squared - 255) < 5 * np.sqrt(2 * 255)


def test_the_mask_is_the_same_on_every_mesh():
    x = jnp.ones((16, 6, 10))
    mesh = Mesh(np.array(jax.devices()).reshape(4, 2), ("rows", "columns"))
    sharding = NamedSharding(mesh, PartitionSpec("rows", None, "columns"))

    def drop(x, key):
        return Dropout(0.3).apply({}, x, False, rngs={"dropout": key})

    key = jax.random.key(1)
    alone = jax.jit(drop)(x, key)
    split = jax.jit(drop, out_shardings=sharding)(jax.device_put(x, sharding), key)
    np.testing.assert_array_equal(alone, split)
    assert set(np.unique(alone).tolist()) == {0.0, np.float32(1 / np.float32(0.7)).item()}


def test_deterministic_or_without_a_rate_nothing_is_drawn():
    x = jnp.arange(6.0).reshape(2, 3)
    assert Dropout(0.5).apply({}, x, True) is x
    assert Dropout(0.0).apply({}, x, False) is x


def test_the_gradient_passes_where_entries_are_kept():
    x = jnp.linspace(1.0, 2.0, 512).reshape(4, 128)

    def total(x):
        return Dropout(0.25).apply({}, x, False, rngs={"dropout": jax.random.key(0)}).sum()

    kept = np.asarray(jax.grad(total)(x))
    assert set(np.unique(kept).tolist()) == {0.0, np.float32(1 / 0.75).item()}
    assert float(total(x)) == pytest.approx(float((kept * np.asarray(x)).sum()), rel=1e-6)
