"""Which candidates are drawn, how often, and what a user has met."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ilm_jax.cf import negatives
from ilm_jax.cf.interactions import Interactions
from ilm_jax.cf.negatives import Sampler, SamplerConfig


@pytest.fixture
def train(two_tastes):
    splits = two_tastes(users=128, items=40)
    sizes = splits.catalogue.num_users, splits.catalogue.num_items
    return Interactions.from_pairs(*splits.train_interactions(), *sizes)


def test_candidates_are_drawn_as_often_as_expected(train):
    counts = train.item_counts()
    for config in (SamplerConfig("uniform", 4000), SamplerConfig("popularity", 4000, power=0.5)):
        sampler = Sampler.make(config, counts)
        chosen, log_expected = sampler.draw(jax.random.key(0), jnp.zeros(1, jnp.int32))
        found = np.bincount(chosen, minlength=len(counts))
        expected = np.asarray(sampler.probability) * 4000
        assert (np.abs(found - expected) <= 5 * np.sqrt(expected) + 1).all()
        np.testing.assert_allclose(np.exp(log_expected), expected[chosen], rtol=1e-4)
    batch = jnp.asarray(train.items[:10])
    in_batch = Sampler.make(SamplerConfig("in_batch"), counts).draw(jax.random.key(0), batch)
    np.testing.assert_array_equal(in_batch[0], batch)
    np.testing.assert_allclose(
        np.exp(in_batch[1]), 10 * counts[train.items[:10]] / counts.sum(), rtol=1e-5
    )
    every = Sampler.make(SamplerConfig("all"), counts).draw(jax.random.key(0), batch)[0]
    assert every.tolist() == list(range(len(counts)))


@pytest.mark.parametrize("power", [0.0, 0.5, 0.75, 1.0])
def test_popularity_is_the_counts_power(power):
    counts = np.array([0, 1, 16, 81])
    config = SamplerConfig("popularity", power=power)
    want = np.array([power == 0, 1, 16**power, 81**power], float)
    found = Sampler.make(config, counts).probability
    np.testing.assert_allclose(found, want / want.sum(), rtol=1e-6)
    for kind, shares in (("in_batch", counts / 98), ("uniform", np.full(4, 0.25))):
        found = Sampler.make(SamplerConfig(kind, power=power), counts).probability
        np.testing.assert_allclose(found, shares, rtol=1e-6)


def test_the_bitmap_knows_every_history(train):
    bitmap = jnp.asarray(negatives.history_bitmap(train))
    users, items = np.arange(train.num_users), np.arange(train.num_items)
    dense = np.zeros((train.num_users, train.num_items), bool)
    dense[train.users, train.items] = True
    np.testing.assert_array_equal(negatives.met(bitmap, users, items), dense)
    every = negatives.met(bitmap, users, None)
    np.testing.assert_array_equal(every[:, : train.num_items], dense)
    huge = Interactions(np.zeros(400_001, np.int64), np.zeros(0, np.int32), 100_000)
    with pytest.raises(ValueError, match="exclude='target'"):
        negatives.history_table(huge, every=True)


def test_histories_that_no_bitmap_holds_are_looked_up_themselves(train, monkeypatch):
    bitmap = jnp.asarray(negatives.history_table(train))
    monkeypatch.setattr(negatives, "_BITMAP_BYTES", 0)
    table = jnp.asarray(negatives.history_table(train))
    assert bitmap.ndim == 2 and table.ndim == 1
    users, items = np.arange(train.num_users)[::-1], np.arange(train.num_items)[::-1]
    for chosen in (items, items[:1], items[5:9]):
        wanted = negatives.met(bitmap, users, chosen)
        np.testing.assert_array_equal(negatives.met(table, users, chosen), wanted)
    lengths = negatives.history_lengths(table, users)
    np.testing.assert_array_equal(lengths, negatives.history_lengths(bitmap, users))
    nobody = Interactions(np.array([0, 0, 2, 2]), np.array([1, 4], np.int32), 6)
    table = jnp.asarray(negatives.history_table(nobody))
    found = negatives.met(table, np.arange(3), np.arange(6))
    assert np.flatnonzero(found).tolist() == [7, 10]


def test_samplers_that_draw_alike_have_the_same_text(train):
    """By which a run that goes on sees that its items' counts are the same."""
    counts = train.item_counts()
    texts = [
        str(Sampler.make(SamplerConfig("popularity"), c)) for c in (counts, counts, counts + 1)
    ]
    assert texts[0] == texts[1] != texts[2]
    assert texts[0] != str(Sampler.make(SamplerConfig("uniform"), counts))


def test_settings_that_mean_nothing_are_refused():
    with pytest.raises(ValueError, match="kinds are"):
        SamplerConfig("zipf")
    with pytest.raises(ValueError, match="drawn=0: give a whole number, at least 1"):
        SamplerConfig("uniform", 0)
    with pytest.raises(ValueError, match="power=-1.0: give a finite number, at least 0"):
        SamplerConfig("popularity", 8, power=-1.0)


def test_halving_stays_within_a_vector_of_more_than_a_billion_entries():
    low, high = jnp.array([2**30 + 10, 0], jnp.int32), jnp.array([2**31 - 2, 1], jnp.int32)
    assert negatives._middle(low, high).tolist() == [(2**30 + 10 + 2**31 - 2) // 2, 0]
