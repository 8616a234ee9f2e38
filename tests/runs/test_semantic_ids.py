"""An RQ-VAE trains under the one trainer, and NumPy gives items the codes that it gives them."""

import numpy as np
import pytest

from ilm_jax.cf.quantizer import Quantizer
from ilm_jax.errors import UserError
from ilm_jax.runs.rqvae import RQVAE, Items
from ilm_jax.sharding.partitioning import MeshConfig, Partitioner

READING = Quantizer(np.zeros(6, np.float32), np.ones(6, np.float32), ())
SMALL = {"levels": (8, 8), "width": 4, "hidden": (16,), "steps": 30, "restart_every": 10}


def vectors(rows=64):
    """Eight groups of eight."""
    draw = np.random.default_rng(0)
    groups = draw.normal(size=(8, 6))
    return (np.repeat(groups, rows // 8, 0) + 0.1 * draw.normal(size=(rows, 6))).astype(np.float32)


@pytest.mark.slow
def test_it_finds_the_groups_and_the_arrays_give_the_models_codes():
    config = RQVAE(**{**SMALL, "steps": 40}, learning_rate=1e-2)
    x = vectors()
    trainer = config._trainer(x)
    trainer.fit()
    quantizer = config.quantizer(trainer.params(), READING)
    codes, left = quantizer.quantise(quantizer.latents(x))
    objective, params = trainer.objective, trainer.params()
    found = objective.quantise(params, objective._latents(params, x)).codes
    assert np.mean(np.asarray(found).T == codes) > 0.98  # but for ties at rounding
    assert left[1] < left[0] < 0.3
    firsts = codes[:, 0].reshape(8, 8)
    assert np.mean([len(set(row)) == 1 for row in firsts]) >= 0.75


@pytest.mark.slow
def test_a_mesh_gives_the_same_codebooks():
    x = vectors()
    short = {**SMALL, "steps": 5, "restart_every": 3}
    one = RQVAE(**short).fit(x, READING)
    mesh = Partitioner(MeshConfig(data=2, fsdp=2, tensor=2))
    eight = RQVAE(**short, partitioner=mesh).fit(x, READING)
    for a, b in zip(one.codebooks, eight.codebooks, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-4)


def test_an_epoch_shows_every_item_once():
    items = Items(10, seed=3)
    whole = items.rows(np.arange(20))["items"]
    assert sorted(whole[:10]) == sorted(whole[10:]) == list(range(10))
    assert not np.array_equal(whole[:10], whole[10:])
    assert np.array_equal(items.rows(np.arange(5, 15))["items"], whole[5:15])


def test_larger_levels_than_items_are_refused():
    with pytest.raises(UserError, match="64 items have vectors, and a level 256"):
        RQVAE(steps=1).fit(vectors(), READING)
