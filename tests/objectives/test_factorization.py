"""Parts of a batch, the l2 term and the mask of histories, beside plain formulas."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ilm_jax.cf.interactions import Interactions
from ilm_jax.cf.negatives import Sampler, SamplerConfig, history_bitmap
from ilm_jax.errors import UserError
from ilm_jax.objectives import shared_negatives
from ilm_jax.objectives.factorization import Factorization
from ilm_jax.objectives.ranking_loss import RankingLoss
from ilm_jax.objectives.shared_negatives import Vectors

USERS, ITEMS = 50, 70
DRAW = np.random.default_rng(0)
TRAIN = Interactions.from_pairs(
    DRAW.integers(0, USERS, 400), DRAW.integers(0, ITEMS, 400), USERS, ITEMS
)
TABLE = jnp.asarray(history_bitmap(TRAIN))


def objective_of(kind="uniform", **changes):
    sampler = Sampler.make(SamplerConfig(kind, 16), TRAIN.item_counts())
    settings = {"dim": 8, "init_stddev": 1.0, **changes}
    return Factorization(num_users=USERS, num_items=ITEMS, sampler=sampler, **settings)


@pytest.mark.parametrize("kind", ["uniform", pytest.param("all", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("loss", "rank"), [("warp", "corrected"), ("warp", "shrunk"), ("lambdarank", "shrunk")]
)
def test_a_batch_in_parts_has_the_loss_and_gradient_of_the_whole(monkeypatch, kind, loss, rank):
    """Of 61 pairs, a prime: the last part is filled up."""
    objective = objective_of(kind, ranking_loss=RankingLoss(loss, rank), l2=0.3)
    params, key = nn.unbox(objective.init(jax.random.key(0))), jax.random.key(3)
    batch = {"users": TRAIN.users[:61], "items": TRAIN.items[:61]}

    def plain(params):
        users, items = batch["users"], batch["items"]
        candidates, log_expected = objective.sampler.draw(key, items)
        tables = params["two_tower"]
        vectors = tables["user_table"][users], tables["item_table"][items]
        vectors = Vectors(*vectors, tables["item_table"][candidates])
        square = jnp.mean(jnp.sum(jnp.concatenate(vectors) ** 2, -1))
        scored = objective.scored(vectors, (users, items), candidates, TABLE)
        each = objective.ranking_loss(scored, log_expected)
        return each.sum() + 61 * 0.5 * objective.l2 * square

    def ours(params):
        return objective.loss(params, "pair", batch, TABLE, key)["loss"].total

    exact = jax.jit(jax.value_and_grad(plain))(params)
    for bound, parts in ((1 << 18, 1), (40 * 16, {"uniform": 2, "all": 7}[kind]), (1, 61)):
        monkeypatch.setattr(shared_negatives, "SCORES", bound)
        drawn = len(objective.sampler.draw(key, batch["items"])[0])
        assert shared_negatives.number_of_parts(61, drawn) == parts
        found = jax.jit(jax.value_and_grad(ours))(params)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=3e-4), found, exact
        )


@pytest.mark.parametrize("batch", [4096, 4099])
def test_parts_hold_as_many_scores_as_the_bound_allows_whatever_divides_the_batch(batch):
    assert shared_negatives.number_of_parts(batch, 512) == -(-batch // 512)


@pytest.mark.parametrize("kind", ["uniform", "all"])
def test_what_a_user_has_met_is_no_negative_and_is_not_counted(kind):
    users, items = TRAIN.users[:40], TRAIN.items[:40]
    candidates = jnp.arange(ITEMS) if kind == "all" else jnp.arange(0, ITEMS, 3)
    vectors = Vectors(*(jnp.ones((rows, 2)) for rows in (40, 40, len(candidates))))
    met = np.zeros((USERS, ITEMS), bool)
    met[TRAIN.users, TRAIN.items] = True
    scored = objective_of(kind).scored(vectors, (users, items), candidates, TABLE)
    np.testing.assert_array_equal(scored.valid, ~met[users][:, np.asarray(candidates)])
    np.testing.assert_array_equal(scored.negatives, ITEMS - TRAIN.lengths[users])
    alone = objective_of(kind, exclude="target").scored(
        vectors, (users, items), candidates, jnp.zeros((1, 1), jnp.uint32)
    )
    np.testing.assert_array_equal(alone.valid, np.asarray(candidates) != items[:, None])
    assert alone.negatives == ITEMS - 1


def test_every_step_draws_candidates_of_its_own():
    objective = objective_of()
    params = nn.unbox(objective.init(jax.random.key(0)))
    batch = {"users": TRAIN.users[:20], "items": TRAIN.items[:20]}
    losses = [
        float(objective.loss(params, "pair", batch, TABLE, key)["loss"].total)
        for key in (None, jax.random.key(0), jax.random.key(1))
    ]
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"exclude": "nothing"}, "exclude"),
        ({"user_tower": "name"}, "'id' or 'history'"),
        ({"dim": 0}, "dim=0"),
        ({"l2": -0.1}, "l2=-0.1: give a finite number, at least 0"),
        ({"kind": "popularity", "ranking_loss": RankingLoss("warp")}, "uniform candidates"),
    ],
)
def test_settings_that_mean_nothing_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        objective_of(**changes)
    with pytest.raises(UserError, match="the losses are"):
        dataclasses.replace(RankingLoss(), name="hinge")
