"""Training on shared negatives: what is drawn, what is excluded, and that it learns tastes."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

from ilm_jax.cf import evaluation, negatives, sampled
from ilm_jax.cf.early_stopping import EarlyStopping
from ilm_jax.cf.interactions import Interactions
from ilm_jax.cf.negatives import Sampler, SamplerConfig
from ilm_jax.cf.popularity import popularity_scorer

SMALL = sampled.SampledConfig(
    dim=8, batch_size=64, epochs=8, learning_rate=0.03, sampler=SamplerConfig("uniform", 16)
)
MESH = Mesh(np.array(jax.devices()).reshape(4, 2), ("data", "fsdp"))


@pytest.fixture
def splits(two_tastes):
    return two_tastes(users=128, items=40)


@pytest.fixture
def train(splits):
    sizes = splits.catalogue.num_users, splits.catalogue.num_items
    return Interactions.from_pairs(*splits.train_interactions(), *sizes)


@pytest.mark.parametrize(
    "changes",
    [
        {"loss": "bpr"},
        {"loss": "softmax"},
        {"loss": "softmax", "sampler": SamplerConfig("popularity", 16)},
        {"loss": "softmax", "sampler": SamplerConfig("in_batch")},
        {"loss": "warp", "rank": "sampled"},
        {"loss": "warp", "rank": "corrected"},
        {"loss": "warp", "sampler": SamplerConfig("all")},
        {"loss": "lambdarank", "rank": "corrected", "cutoff": 10},
        {"loss": "lambdarank", "rank": "shrunk", "exclude": "target"},
        {"loss": "softmax", "user_tower": "history", "history": 4},
        {"loss": "softmax", "hidden": (16,), "learning_rate": 0.01, "init_stddev": 1.0},
    ],
    ids=str,
)
def test_every_loss_and_sampler_learns_who_likes_what(splits, train, changes):
    factors = sampled.fit(train, dataclasses.replace(SMALL, **changes))
    result = evaluation.evaluate(evaluation.vector_scorer(factors.user, factors.item), splits)
    popular = evaluation.evaluate(popularity_scorer(splits.train_counts()), splits)
    assert result.ndcg(20).mean() > 1.15 * popular.ndcg(20).mean()
    assert not factors.item[train.item_counts() == 0].any()


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
        negatives.history_bitmap(huge)


@pytest.mark.parametrize("tower", ["id", "history"])
def test_same_seed_same_bits_and_seeds_share_a_trainer(train, tower):
    """With histories longer than what is read of them."""
    config = dataclasses.replace(SMALL, epochs=2, user_tower=tower, history=2)
    assert (train.lengths > 2).any()
    trainer = sampled.make_trainer(train, config)
    one, two, other = trainer.fit(), trainer.fit(seed=0), trainer.fit(seed=1)
    assert one.item.tobytes() == two.item.tobytes() != other.item.tobytes()
    alone = sampled.fit(train, dataclasses.replace(config, seed=1))
    assert alone.user.tobytes() == other.user.tobytes()
    assert alone.item.tobytes() == other.item.tobytes()


@pytest.mark.parametrize("mesh", [None, MESH], ids=["one", "eight"])
def test_users_whom_training_never_saw_get_vectors_by_their_histories(splits, train, mesh):
    """The last 28 users are left out of training, and find their taste all the same."""
    first = train.users < 100
    pairs = train.users[first], train.items[first]
    seen = Interactions.from_pairs(*pairs, 100, train.num_items)
    config = dataclasses.replace(SMALL, user_tower="history", history=8, hidden=(16,))
    trainer = sampled.make_trainer(seen, config, mesh)
    parameters = trainer.fit_parameters()
    factors = trainer.factors(parameters)
    known = trainer.user_vectors(parameters, [seen.of(user) for user in range(100)])
    np.testing.assert_allclose(known, factors.user, atol=1e-5)

    histories = [train.of(user) for user in range(100, 127)]
    scores = trainer.user_vectors(parameters, histories) @ factors.item.T
    half = (train.num_items - 1) // 2  # even users like the first half of the items
    likes = scores[:, :half].mean(1) > scores[:, half : 2 * half].mean(1)
    assert (likes == (np.arange(100, 127) % 2 == 0)).all()

    assert not trainer.user_vectors(parameters, [np.zeros(0, np.int64)]).any()
    with pytest.raises(ValueError, match="history 1 has an item row outside"):
        trainer.user_vectors(parameters, [np.array([0]), np.array([train.num_items])])
    with pytest.raises(ValueError, match="user_tower='history'"):
        sampled.make_trainer(seen, SMALL).user_vectors(None, histories)


@pytest.mark.parametrize("tower", ["id", "history"])
def test_eight_devices_split_tables_of_any_size_and_give_the_same_vectors(two_tastes, tower):
    """303 users and 203 items: eight divides neither."""
    splits = two_tastes(users=303, items=203)
    train = Interactions.from_pairs(*splits.train_interactions(), 303, 203)
    config = dataclasses.replace(
        SMALL, epochs=2, loss="warp", user_tower=tower, history=4,
        sampler=SamplerConfig("all" if tower == "id" else "uniform", 64),
    )  # fmt: skip
    users = 303 if tower == "id" else 203
    many = sampled.make_trainer(train, config, MESH)
    (parameters, state), batch = many.initial(0), many.batches(0, 0)[0]
    for _ in range(2):
        for tables in (parameters["params"], state[0].mu["params"], state[0].nu["params"]):
            for table, rows in (("user_table", users), ("item_table", 203)):
                shards = tables[table].addressable_shards
                assert [x.data.shape[0] for x in shards] == [-(-rows // 8)] * 8
                assert len({x.index[0].start for x in shards}) == 8
        parameters, state, _ = many.step(
            parameters, state, many.constants, many._split(batch), jax.random.key(0)
        )
    assert not np.asarray(parameters["params"]["item_table"])[203:].any()
    assert not np.asarray(parameters["params"]["user_table"])[users:].any()
    found, expected = many.fit(), sampled.fit(train, config)
    np.testing.assert_allclose(found.user, expected.user, atol=1e-4)
    np.testing.assert_allclose(found.item, expected.item, atol=1e-4)


def test_what_every_step_reads_lies_on_every_device_once(train):
    """So that no step copies the bitmap of histories."""
    trainer = sampled.make_trainer(train, SMALL, MESH)
    assert trainer.constants is trainer.constants
    for array in trainer.constants.values():
        assert array.sharding.is_fully_replicated and len(array.sharding.device_set) == 8


@pytest.mark.parametrize("kind", ["uniform", "all"])
@pytest.mark.parametrize(
    ("loss", "rank"), [("warp", "corrected"), ("warp", "shrunk"), ("lambdarank", "shrunk")]
)
def test_a_batch_in_parts_has_the_gradient_of_the_whole(train, monkeypatch, kind, loss, rank):
    """Of 61 pairs, a prime: the last part is filled up."""
    config = dataclasses.replace(
        SMALL, loss=loss, rank=rank, sampler=SamplerConfig(kind, 16), l2=0.3, init_stddev=1.0,
        batch_size=61,
    )  # fmt: skip
    trainer = sampled.make_trainer(train, config)
    parameters, key = trainer.initial(0)[0], jax.random.key(3)
    batch = trainer.batches(0, 0)[0]

    def total(parameters):
        users, items = batch["users"], batch["items"]
        candidates, log_expected = trainer.sampler.draw(key, items)
        tables = parameters["params"]
        vectors = tables["user_table"][users], tables["item_table"][items]
        vectors = *vectors, tables["item_table"][candidates]
        square = jnp.mean(jnp.sum(jnp.concatenate(vectors) ** 2, -1))
        scored = trainer.scored(vectors, trainer.constants, (users, items), candidates)
        return config.losses(scored, log_expected).mean() + 0.5 * config.l2 * square

    exact = jax.value_and_grad(total)(parameters)
    for bound, parts in ((1 << 18, 1), (40 * 16, {"uniform": 2, "all": 4}[kind]), (1, 61)):
        monkeypatch.setattr(sampled, "_SCORES", bound)
        assert trainer._parts(61, len(trainer.sampler.draw(key, batch["items"])[0])) == parts
        found = trainer.value_and_gradient(parameters, trainer.constants, batch, key)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), found, exact)


@pytest.mark.parametrize("batch", [4096, 4099])
def test_parts_hold_as_many_scores_as_the_bound_allows_whatever_divides_the_batch(train, batch):
    trainer = sampled.make_trainer(train, dataclasses.replace(SMALL, batch_size=batch))
    assert trainer._parts(batch, 512) == -(-batch // 512)


def test_the_linear_schedule_ends_at_rest(train):
    config = dataclasses.replace(SMALL, schedule="linear", epochs=4)
    seen = []
    sampled.fit(train, config, lambda e, u, i: seen.append(i.copy()) and False)
    moves = [np.abs(b - a).mean() for a, b in itertools.pairwise(seen)]
    assert moves[-1] < 0.5 * moves[0]


def test_early_stopping_and_divergence(train):
    stop = EarlyStopping(lambda user, item: -1.0, patience=1)
    epochs = []
    sampled.fit(train, SMALL, lambda e, u, i: epochs.append(e) or stop(e, u, i))
    assert epochs == [1, 2] and stop.epoch == 1
    with pytest.raises(ValueError, match="learning rate"):
        sampled.fit(train, dataclasses.replace(SMALL, learning_rate=1e30, epochs=2))


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
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SMALL, **changes)
    with pytest.raises(ValueError, match="kinds are"):
        SamplerConfig("zipf")
    with pytest.raises(ValueError, match="drawn=0: give a whole number, at least 1"):
        SamplerConfig("uniform", 0)
    with pytest.raises(ValueError, match="power=-1.0: give a finite number, at least 0"):
        SamplerConfig("popularity", 8, power=-1.0)
