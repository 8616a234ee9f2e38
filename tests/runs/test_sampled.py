"""Training on shared negatives by the one trainer: it learns tastes, resumes, and minds no mesh."""

import dataclasses
import itertools

import jax
import numpy as np
import pytest

from ilm_jax.cf import evaluation
from ilm_jax.cf.interactions import Interactions
from ilm_jax.cf.negatives import SamplerConfig
from ilm_jax.cf.popularity import popularity_scorer
from ilm_jax.errors import UserError
from ilm_jax.runs.sampled import SampledConfig, SampledFit
from ilm_jax.sharding.partitioning import MeshConfig, Partitioner
from ilm_jax.training.writers import read_metrics

SMALL = SampledConfig(
    dim=8, batch_size=64, epochs=8, learning_rate=0.03, sampler=SamplerConfig("uniform", 16)
)
ONE = Partitioner(devices=(jax.devices()[0],))
EIGHT = Partitioner(MeshConfig(data=4, fsdp=2))


@pytest.fixture
def splits(two_tastes):
    return two_tastes(users=128, items=40)


@pytest.fixture
def train(splits):
    sizes = splits.catalogue.num_users, splits.catalogue.num_items
    return Interactions.from_pairs(*splits.train_interactions(), *sizes)


def fit(train, config=SMALL, partitioner=ONE, **changes):
    return SampledFit(train, config, partitioner, **changes).fit()


@pytest.mark.parametrize(
    "changes",
    [
        {"loss": "bpr"},
        {"loss": "softmax", "sampler": SamplerConfig("popularity", 16)},
        {"loss": "softmax", "sampler": SamplerConfig("in_batch")},
        {"loss": "warp", "sampler": SamplerConfig("all")},
        {"loss": "lambdarank", "rank": "corrected", "cutoff": 10},
        {"loss": "lambdarank", "rank": "shrunk", "exclude": "target"},
        {"loss": "softmax", "user_tower": "history", "history": 4},
        {"loss": "softmax", "hidden": (16,), "learning_rate": 0.01, "init_stddev": 1.0},
    ],
    ids=str,
)
def test_every_loss_and_sampler_learns_who_likes_what(splits, train, changes):
    factors = fit(train, dataclasses.replace(SMALL, **changes))
    result = evaluation.evaluate(evaluation.vector_scorer(factors.user, factors.item), splits)
    popular = evaluation.evaluate(popularity_scorer(splits.train_counts()), splits)
    assert result.ndcg(20).mean() > 1.15 * popular.ndcg(20).mean()
    assert not factors.item[train.item_counts() == 0].any()


def test_same_seed_same_bits_and_another_seed_others(train):
    """With histories longer than what is read of them."""
    config = dataclasses.replace(SMALL, epochs=1, user_tower="history", history=2)
    assert (train.lengths > 2).any()
    one, two = fit(train, config), fit(train, config)
    other = fit(train, dataclasses.replace(config, seed=1))
    assert one.item.tobytes() == two.item.tobytes() != other.item.tobytes()
    assert one.user.tobytes() == two.user.tobytes() != other.user.tobytes()


class Killed(Exception):
    """Stands for a kill."""


def test_a_killed_fit_goes_on_to_the_same_vectors_bit_for_bit(train, tmp_path):
    """Killed while its third epoch is measured; patience ends both after the fourth."""
    config = dataclasses.replace(SMALL, epochs=6)
    seen = []

    def run(folder, kill_at=0):
        run = SampledFit(
            train,
            config,
            ONE,
            model_dir=str(tmp_path / folder),
            measure=lambda user, item: {1: 0.1, 2: 0.3}.get(seen[-1], 0.2),
            patience=2,
        )
        validate = run.trainer.validate

        def watched(params, step):
            seen.append(step // run.examples.steps)
            if seen[-1] == kill_at:
                raise Killed
            return validate(params, step)

        run.trainer.validate = watched
        return run

    alone = run("alone")
    expected = alone.fit()
    with pytest.raises(Killed):
        run("killed", kill_at=3).fit()
    resumed = run("killed")
    found = resumed.fit()
    assert seen == [1, 2, 3, 4, 1, 2, 3, 3, 4]
    assert resumed.best_epoch == alone.best_epoch == 2
    assert found.user.tobytes() == expected.user.tobytes()
    assert found.item.tobytes() == expected.item.tobytes()
    again = run("killed").fit()
    assert len(seen) == 9 and again.item.tobytes() == expected.item.tobytes()


def test_what_a_run_was_made_from_may_not_change(train, tmp_path):
    """More epochs may come; other pairs, batches or losses are another run."""
    config = dataclasses.replace(SMALL, epochs=1)
    fit(train, config, model_dir=str(tmp_path))
    fewer = Interactions.from_pairs(train.users[1:], train.items[1:], 128, 40)
    for pairs, changes, name in (
        (fewer, {}, "train.pair.pairs"),
        (train, {"batch_size": 32}, "train.pair.batch_size"),
        (train, {"margin": 0.5}, "objective.Factorization.ranking_loss.margin"),
        (train, {"learning_rate": 0.01}, "optimizer.learning_rate"),
    ):
        with pytest.raises(UserError, match=name):
            fit(pairs, dataclasses.replace(config, **changes), model_dir=str(tmp_path))
    longer = dataclasses.replace(SMALL, epochs=2)
    found = fit(train, longer, model_dir=str(tmp_path))
    assert found.item.tobytes() == fit(train, longer).item.tobytes()
    steps = [record["step"] for record in read_metrics(tmp_path / "metrics.jsonl")]
    assert len(steps) == len({*steps}) and {"config.gin", "model-info.txt"} <= {
        path.name for path in tmp_path.iterdir()
    }


@pytest.mark.slow
def test_users_whom_training_never_saw_get_vectors_by_their_histories(train):
    """The last 28 users are left out of training, and find their taste all the same."""
    first = train.users < 100
    seen = Interactions.from_pairs(train.users[first], train.items[first], 100, train.num_items)
    config = dataclasses.replace(SMALL, user_tower="history", history=8, hidden=(16,))
    run = SampledFit(seen, config, EIGHT)
    factors = run.fit()
    known = run.user_vectors([seen.of(user) for user in range(100)])
    np.testing.assert_allclose(known, factors.user, atol=1e-5)

    histories = [train.of(user) for user in range(100, 127)]
    scores = run.user_vectors(histories) @ factors.item.T
    half = (train.num_items - 1) // 2  # even users like the first half of the items
    likes = scores[:, :half].mean(1) > scores[:, half : 2 * half].mean(1)
    assert (likes == (np.arange(100, 127) % 2 == 0)).all()

    assert not run.user_vectors([np.zeros(0, np.int64)]).any()
    with pytest.raises(ValueError, match="history 1 has an item row outside"):
        run.user_vectors([np.array([0]), np.array([train.num_items])])
    with pytest.raises(UserError, match="user_tower='history'"):
        SampledFit(seen, SMALL).user_vectors(histories)


def test_eight_devices_share_tables_of_any_size_and_go_on_with_what_one_began(two_tastes, tmp_path):
    """303 users and 203 items, batches of 66: eight divides none of them."""
    splits = two_tastes(users=303, items=203)
    train = Interactions.from_pairs(*splits.train_interactions(), 303, 203)
    config = dataclasses.replace(SMALL, epochs=1, loss="warp", batch_size=66)
    fit(train, config, ONE, model_dir=str(tmp_path))
    longer = dataclasses.replace(config, epochs=2)
    expected = fit(train, longer, ONE)
    many = SampledFit(train, longer, EIGHT, model_dir=str(tmp_path))
    found = many.fit()
    tables = many.trainer.params()["two_tower"]
    for name, rows in (("user_table", 303), ("item_table", 203)):
        starts = {shard.index[0].start for shard in tables[name].addressable_shards}
        assert len(starts) == 8 and not np.asarray(tables[name])[rows:].any()
    np.testing.assert_allclose(found.user, expected.user, atol=1e-4)
    np.testing.assert_allclose(found.item, expected.item, atol=1e-4)


def test_the_linear_schedule_ends_at_rest(train):
    config, seen = dataclasses.replace(SMALL, schedule="linear", epochs=4), []
    fit(train, config, measure=lambda user, item: seen.append(item.copy()) or 0.0)
    moves = [np.abs(b - a).mean() for a, b in itertools.pairwise(seen)]
    assert moves[-1] < 0.5 * moves[0]


def test_a_fit_that_diverges_says_so(train):
    with pytest.raises(UserError, match="learning rate"):
        fit(train, dataclasses.replace(SMALL, learning_rate=1e30, epochs=2))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss": "hinge"}, "the losses are"),
        ({"rank": "best"}, "choose 'sampled'"),
        ({"loss": "warp", "sampler": SamplerConfig("popularity", 8)}, "uniform candidates"),
        ({"exclude": "nothing"}, "exclude"),
        ({"schedule": "cosine"}, "constant"),
        ({"user_tower": "name"}, "'id' or 'history'"),
        ({"epochs": 0}, "epochs=0: give a whole number, at least 1"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"cutoff": 0}, "cutoff=0"),
        ({"user_tower": "history", "history": 0}, "history=0"),
        ({"dim": 0}, "dim=0"),
        ({"hidden": (16, 0)}, r"hidden=\(16, 0\): give a list of a whole number, at least 1"),
        ({"learning_rate": 0.0}, "learning_rate=0.0: give a finite number, above 0"),
        ({"learning_rate": float("nan")}, "learning_rate=nan"),
        ({"init_stddev": 0.0}, "init_stddev=0.0"),
        ({"l2": -0.1}, "l2=-0.1: give a finite number, at least 0"),
        ({"seed": -1}, "seed=-1"),
    ],
)
def test_settings_that_mean_nothing_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        dataclasses.replace(SMALL, **changes)
