"""Items are drawn by their shares, however many there are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ilm_jax.cf.cells import BITS, Cells
from ilm_jax.cf.negatives import Sampler, SamplerConfig

MANY = 1 << 21


def counts_of(kind):
    if kind == "equal":
        return np.full(MANY, 7, np.int64)
    rank = np.random.default_rng(0).permutation(MANY) + 1
    return 10**7 // rank  # from 4 times to ten million


@pytest.mark.parametrize("kind", ["equal", "skewed"])
def test_each_of_two_million_items_is_drawn_by_its_share(kind):
    counts, drawn = counts_of(kind), 1 << 20
    sampler = Sampler.make(SamplerConfig("popularity", drawn, power=0.75), counts)
    share = counts**0.75 / (counts**0.75).sum()
    sizes = sampler._cells.sizes
    assert sizes.sum() == 1 << BITS and sizes.min() > 0
    np.testing.assert_allclose(sizes / 2.0**BITS, share, rtol=1e-6)
    np.testing.assert_allclose(sampler.probability, share, rtol=1e-6)
    draw = jax.jit(lambda key: sampler.draw(key, jnp.zeros(1, jnp.int32)))
    chosen, log_expected = map(np.asarray, draw(jax.random.key(0)))
    np.testing.assert_allclose(np.exp(log_expected), drawn * share[chosen], rtol=1e-4)
    # Groups of 2^11 neighbours, then all even rows against all odd ones.
    found = np.bincount(chosen, minlength=MANY)
    for grouped in (lambda x: x.reshape(1 << 10, -1).sum(1), lambda x: x.reshape(-1, 2).sum(0)):
        expected = drawn * grouped(share)
        assert (np.abs(grouped(found) - expected) <= 6 * np.sqrt(expected)).all()
    # Equal shares: of so many draws, 1 - e^-1/2 of the items are met.
    if kind == "equal":
        assert (found > 0).mean() == pytest.approx(1 - np.exp(-0.5), rel=0.01)


def test_all_of_twenty_million_equal_items_can_be_drawn():
    counts, drawn = np.ones(20_000_000, np.int64), 1 << 20
    sampler = Sampler.make(SamplerConfig("popularity", drawn), counts)
    chosen = np.asarray(sampler.draw(jax.random.key(0), jnp.zeros(1, jnp.int32))[0])
    # If some could not be drawn, the others would come again more often.
    met = len(counts) * (1 - np.exp(-drawn / len(counts)))
    assert len(np.unique(chosen)) == pytest.approx(met, rel=0.002)
    sizes = sampler._cells.sizes
    assert sizes.sum() == 1 << BITS and np.ptp(sizes) <= 1


def test_a_number_finds_the_item_in_whose_cell_it_lies():
    draw = np.random.default_rng(0)
    shares = draw.random(1000) ** 8 * (draw.random(1000) < 0.7)
    shares[[0, 1, -1, -2]] = 0  # items without a cell stand in front and at the end, too
    cells = Cells.of(shares)
    assert ((cells.sizes > 0) == (shares > 0)).all()
    ends = np.cumsum(cells.sizes)
    own = np.flatnonzero(shares)
    numbers = np.concatenate([ends[own] - 1, ends[own] - cells.sizes[own]])
    numbers = np.append(numbers, draw.integers(0, 1 << BITS, 1000))
    words = (numbers >> 32).astype(np.uint32), (numbers & 0xFFFFFFFF).astype(np.uint32)
    found = jax.jit(cells.rows_at)(*map(jnp.asarray, words))
    assert found.dtype == jnp.int32
    np.testing.assert_array_equal(found, np.searchsorted(ends, numbers, side="right"))
    only = Cells.of(np.array([0.0, 5.0, 0.0]))
    assert set(only.draw(jax.random.key(1), 50).tolist()) == {1}


def test_draws_are_the_same_on_one_device_and_on_many():
    cells = Cells.of(np.arange(1000) + 1.0)
    want = np.asarray(jax.jit(lambda key: cells.draw(key, 64))(jax.random.key(3)))
    mesh = Mesh(np.array(jax.devices()), ("data",))
    split = NamedSharding(mesh, PartitionSpec("data"))
    draw = jax.jit(lambda key: cells.draw(key, 64), out_shardings=split)
    np.testing.assert_array_equal(draw(jax.random.key(3)), want)


@pytest.mark.parametrize("shares", [[0.0, 0.0], [1.0, -0.1], [1.0, np.nan], [np.inf, 1.0]])
def test_shares_that_mean_nothing_are_refused(shares):
    with pytest.raises(ValueError, match="shares must be finite"):
        Cells.of(np.array(shares))
