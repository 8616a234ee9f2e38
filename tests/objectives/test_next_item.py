"""Losses of a sequential model beside their formulas, on any mesh."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ilm_jax.cf.negatives import Sampler, SamplerConfig
from ilm_jax.errors import UserError
from ilm_jax.models.gru4rec import GRU4RecConfig
from ilm_jax.models.sasrec import SASRecConfig
from ilm_jax.objectives.next_item import NextItem
from ilm_jax.objectives.ranking_loss import RankingLoss
from ilm_jax.sharding.partitioning import MeshConfig, Partitioner

ITEMS, LENGTH, ROWS = 37, 10, 8
DRAW = np.random.default_rng(0)
COUNTS = DRAW.integers(1, 30, ITEMS)
TEXTS = jnp.asarray(DRAW.normal(size=(ITEMS, 5)), jnp.float32)
SEGMENTS = np.sort(DRAW.integers(1, 4, (ROWS, LENGTH)))
SEGMENTS[-1, 6:] = 0
BATCH = {
    "items": DRAW.integers(0, ITEMS, (ROWS, LENGTH)).astype(np.int32),
    "targets": DRAW.integers(0, ITEMS, (ROWS, LENGTH)).astype(np.int32),
    "segment_ids": SEGMENTS.astype(np.int32),
    "positions": np.tile(np.arange(LENGTH, dtype=np.int32), (ROWS, 1)),
}
REAL = BATCH["segment_ids"] > 0


def objective_of(kind="all", loss="softmax", drawn=16, **changes):
    sampler = Sampler.make(SamplerConfig(kind, drawn), COUNTS)
    encoder = changes.pop("encoder", SASRecConfig(LENGTH, 1, 8, dropout=0.0))
    ranking_loss = dataclasses.replace(RankingLoss(), name=loss)
    return NextItem(ITEMS, encoder, sampler, ranking_loss, **changes)


def params_of(objective, scale=20):
    drawn = nn.unbox(objective.init(jax.random.key(0)))
    return jax.tree.map(lambda leaf: leaf * (scale if leaf.ndim > 1 else 1), drawn)


def scores_of(objective, params):
    """Of every item at every place, item by item as the docstring has them."""
    model, own = objective.model, {"params": params["next_item"]}
    read = (BATCH[name] for name in ("items", "positions", "segment_ids"))
    states = model.apply(own, *read, TEXTS)
    vectors = np.array(params["next_item"]["item"]["embedding"])[:ITEMS]
    if objective.text_dim:
        vectors = vectors + np.asarray(TEXTS @ params["next_item"]["text"]["kernel"])
    if objective.temperature is None:
        return np.einsum("bld,id->bli", states, vectors)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    np.testing.assert_allclose(np.linalg.norm(states, axis=-1), 1, rtol=1e-5)
    return np.einsum("bld,id->bli", states, vectors) / objective.temperature


def plain_softmax(scores):
    top = scores.max(-1, keepdims=True)
    log_sum = np.log(np.exp(scores - top).sum(-1)) + top[..., 0]
    own = np.take_along_axis(scores, BATCH["targets"][..., None], -1)[..., 0]
    return (log_sum - own)[REAL]


@pytest.mark.parametrize(
    "changes",
    [pytest.param({}, marks=pytest.mark.slow), {"text_dim": 5, "temperature": 0.5}],
    ids=str,
)
def test_the_softmax_is_the_catalogues(changes):
    """Its table is filled up to 256 rows, which are no items."""
    objective = objective_of(**changes)
    params = params_of(objective)
    found = objective.loss(params, "sequence", BATCH, TEXTS, None)["loss"]
    np.testing.assert_allclose(found.total, plain_softmax(scores_of(objective, params)).sum(), 1e-4)
    assert found.weight == REAL.sum()
    states = objective.states(params, BATCH["items"], np.ones_like(REAL, int), TEXTS)
    vectors = objective.item_vectors(params, TEXTS)
    assert vectors.shape == (ITEMS, 8)
    whole = {**BATCH, "segment_ids": np.ones_like(REAL, int)}
    read = (whole[name] for name in ("items", "positions", "segment_ids"))
    last = objective.model.apply({"params": params["next_item"]}, *read, TEXTS)[:, -1]
    np.testing.assert_allclose(states, last, atol=1e-5)


@pytest.mark.parametrize("kind", [pytest.param("uniform", marks=pytest.mark.slow), "popularity"])
def test_sampled_softmax_has_the_whole_softmaxs_sum_in_expectation(kind):
    """exp(loss) is the sum over items that score; its mean over draws is that of all items."""
    objective = objective_of(kind, drawn=24)
    params = jax.tree.map(lambda leaf: leaf / 2, params_of(objective))
    place = {name: values[:1, :1] for name, values in BATCH.items()}
    place["segment_ids"] = np.ones((1, 1), np.int32)
    whole = objective_of().loss(params, "sequence", place, TEXTS, None)["loss"].total

    @jax.jit
    @jax.vmap
    def drawn(key):
        return jnp.exp(objective.loss(params, "sequence", place, TEXTS, key)["loss"].total)

    found = np.asarray(drawn(jax.random.split(jax.random.key(1), 4000)))
    error = found.std() / np.sqrt(len(found))
    assert abs(found.mean() - np.exp(whole)) < 4 * error
    assert error < 0.02 * np.exp(whole)


def test_binary_cross_entropy_weighs_as_many_negatives_as_it_says():
    objective = objective_of("all", "bce")
    params = params_of(objective)
    scores = scores_of(objective, params)
    own = np.take_along_axis(scores, BATCH["targets"][..., None], -1)[..., 0]
    others = np.logaddexp(0, scores).sum(-1) - np.logaddexp(0, own)
    for k in (1.0, 4.0):
        loss = dataclasses.replace(objective, ranking_loss=RankingLoss("bce", negatives=k))
        found = loss.loss(params, "sequence", BATCH, TEXTS, None)["loss"].total
        expected = (np.logaddexp(0, -own) + k * others / (ITEMS - 1))[REAL].sum()
        np.testing.assert_allclose(found, expected, 1e-4)


def test_padding_weighs_nothing_and_every_step_draws_anew():
    objective = objective_of("uniform", encoder=SASRecConfig(LENGTH, 1, 8, dropout=0.5))
    params = params_of(objective)
    other = {**BATCH, "targets": np.where(REAL, BATCH["targets"], 5)}
    other["items"] = np.where(REAL, BATCH["items"], 3)

    def loss(batch, key):
        return float(objective.loss(params, "sequence", batch, TEXTS, key)["loss"].total)

    assert loss(BATCH, jax.random.key(0)) == pytest.approx(loss(other, jax.random.key(0)), rel=1e-5)
    assert loss(BATCH, None) == loss(BATCH, None) != loss(BATCH, jax.random.key(1))


CASES = {
    "softmax": objective_of(text_dim=5),
    "sampled": objective_of("popularity", temperature=0.1),
    "gru": objective_of(encoder=GRU4RecConfig(LENGTH, 1, 8, dropout=0.3)),
}


@pytest.mark.parametrize(
    ("name", "mesh"),
    [
        ("softmax", (2, 2, 2)),
        pytest.param("sampled", (4, 2, 1), marks=pytest.mark.slow),
        pytest.param("softmax", (2, 1, 4), marks=pytest.mark.slow),
        pytest.param("gru", (4, 2, 1), marks=pytest.mark.slow),
    ],
)
def test_loss_and_gradient_are_the_same_on_eight_devices(name, mesh):
    objective = CASES[name]
    params = params_of(objective, 3)

    def summed(params, batch):
        key = jax.random.key(3)
        return objective.loss(params, "sequence", batch, TEXTS, key)["loss"].total

    step = jax.value_and_grad(summed)
    expected = jax.jit(step)(params, BATCH)
    partitioner = Partitioner(MeshConfig(*mesh))
    boxed = jax.eval_shape(objective.init, jax.random.key(0))
    specs = nn.get_partition_spec(boxed)
    shapes = nn.unbox(boxed)
    placed = jax.tree.map(
        lambda leaf, shape, spec: jax.device_put(leaf, partitioner.sharding(spec, shape.shape)),
        params,
        shapes,
        specs,
    )
    with partitioner.context():
        found = jax.jit(step)(placed, partitioner.global_batch(BATCH, ROWS))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-4), found, expected
    )
    table = placed["next_item"]["item"]["embedding"]
    assert len({str(shard.index) for shard in table.addressable_shards}) > 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "in_batch"}, "'popularity' with power=1"),
        ({"kind": "popularity", "loss": "warp"}, "uniform candidates"),
        ({"temperature": 0.0}, "temperature=0.0"),
        ({"loss": "hinge"}, "the losses are"),
    ],
)
def test_settings_that_mean_nothing_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        objective_of(**changes)
