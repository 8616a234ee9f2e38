"""The item head's losses are their formulas: over whole catalogues, on candidates, on any mesh."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ilm_jax.cf.item_rows import ItemRows
from ilm_jax.cf.negatives import SamplerConfig
from ilm_jax.errors import UserError
from ilm_jax.objectives import ranking, shared_negatives
from ilm_jax.objectives.heads import Read
from ilm_jax.objectives.item_head import ItemHead
from ilm_jax.objectives.item_losses import Targets, on_candidates
from ilm_jax.objectives.item_scoring import ItemSource
from ilm_jax.objectives.ranking_loss import RankingLoss
from ilm_jax.sharding.partitioning import MeshConfig, Partitioner
from tests.objectives import item_heads as small

SLOW = pytest.mark.slow
HEADS = {
    "table": small.head(),
    "row": small.head(vectors="row", item_bias=False),
    "cosine": small.head(similarity="cosine", temperature=0.2),
}


def asked(block):
    """(row, place, item of the block) of everything that is asked of it."""
    found = {name: np.asarray(x) for name, x in small.batch().items()}
    for row, column in np.argwhere(found["item_targets"] >= 0):
        local = found["item_targets"][row, column] - block.start
        if 0 <= local < block.rows:
            yield row, found["item_positions"][row, column], local


@pytest.mark.parametrize("name", HEADS)
def test_the_softmax_is_over_the_targets_catalogue_and_its_items_with_vectors(name):
    head = HEADS[name]
    params = small.parameters(head)
    sums = jax.jit(lambda params: head.sums(small.read(params)))(params)
    total, count = 0.0, 0
    for block in small.BLOCKS:
        scores = small.scores(head, params, block)
        for row, place, item in asked(block):
            s = scores[row, place]
            total += np.log(np.exp(s).sum()) - s[item]
            count += 1
    assert sums["loss"].weight == count and count > 8
    np.testing.assert_allclose(sums["loss"].total, total, rtol=2e-6)
    assert sums["item_loss"] == sums["loss"]


def test_items_count_by_the_weights_of_the_batch():
    head = HEADS["table"]
    params, total, count = small.parameters(head), 0.0, 0.0
    draw = np.random.default_rng(5).choice([0.25, 1.0], (small.BATCH, small.MOST))
    batch = {**small.batch(), "item_weights": jnp.asarray(draw, jnp.float32)}
    sums = jax.jit(lambda params: head.sums(small.read(params, asked=batch)))(params)
    targets = np.asarray(batch["item_targets"])
    for block in small.BLOCKS:
        scores = small.scores(head, params, block)
        for row, column in np.argwhere(targets >= block.start):
            item, place = targets[row, column] - block.start, batch["item_positions"][row, column]
            if item < block.rows:
                s = scores[row, place]
                total += draw[row, column] * (np.log(np.exp(s).sum()) - s[item])
                count += draw[row, column]
    assert sums["loss"].weight == count and count < (targets >= 0).sum()
    np.testing.assert_allclose(sums["loss"].total, total, rtol=2e-6)


def plain_loss(params, head):
    """The softmax by jnp alone, all scores at once."""
    source, total = ItemSource(jnp.asarray(small.table()), None), 0.0
    places = jnp.maximum(small.batch()["item_positions"], 0)
    users = jnp.take_along_axis(small.hidden(), places[..., None], axis=1)
    users = head.users(params, users)
    for block in small.BLOCKS:
        output = head.items(params, source, block)
        log_p = jax.nn.log_softmax(users @ output.table.T + output.bias)
        local = small.batch()["item_targets"] - block.start
        inside = (local >= 0) & (local < block.rows)
        at = jnp.where(inside, local, 0)[..., None]
        chosen = jnp.take_along_axis(log_p, at, axis=-1)[..., 0]
        total -= jnp.where(inside, chosen, 0).sum()
    return total


def test_gradients_are_those_of_the_plain_formula():
    head = HEADS["table"]
    params = small.parameters(head)
    ours = jax.jit(jax.grad(lambda p: head.sums(small.read(p))["loss"].total))(params)
    want = jax.jit(jax.grad(functools.partial(plain_loss, head=head)))(params)
    for (path, a), b in zip(jax.tree.leaves_with_path(ours), jax.tree.leaves(want), strict=True):
        assert np.abs(b).max() > 0, path
        np.testing.assert_allclose(a, b, atol=3e-6 * np.abs(b).max(), err_msg=str(path))


def test_a_target_without_a_vector_counts_in_no_sum():
    head = HEADS["table"]
    params, batch = small.parameters(head), small.batch()
    without = {**batch, "item_targets": batch["item_targets"].at[0, 0].set(-1)}
    cold = {**batch, "item_targets": batch["item_targets"].at[0, 0].set(small.COLD)}
    a, b = (head.sums(small.read(params, asked=x))["loss"] for x in (without, cold))
    assert a.weight == b.weight and np.isfinite(b.total)
    np.testing.assert_allclose(a.total, b.total, rtol=1e-6)


@pytest.mark.parametrize("kind", ["uniform", "popularity", "in_batch"])
def test_the_sampled_softmax_is_the_full_one_in_expectation(kind):
    """The sum that the loss takes the logarithm of is an unbiased estimate of the full sum."""
    block, drawn, repeats = small.BLOCKS[0], 12, 4000
    vectors = jnp.asarray(small.table())
    head = dataclasses.replace(HEADS["table"], catalogues=(block,))
    params = small.parameters(head)
    user = head.users(params, small.hidden()[:1, :1])[0]  # [1, dim], one user for all
    items = functools.partial(head.items, params, ItemSource(vectors, None), block)
    every = items()
    scores = np.asarray(user[0] @ every.table.T + every.bias, np.float64)
    known = np.asarray(vectors[: block.rows] != 0).any(1)
    counts = np.where(known[:20], block.counts, 0)  # a target always has a vector
    rows = ItemRows("a", 0, block.rows, counts)
    config = SamplerConfig(kind=kind, drawn=drawn, power=0.5)
    target = int(np.argmax(np.where(known, scores, -np.inf)))  # what is most of the sum

    def estimate(key):
        """The sum of the first row."""
        others = jax.random.choice(key, 20, (drawn,), p=counts / counts.sum())
        wanted = jnp.concatenate([jnp.array([target]), others])[:, None]
        weights = jnp.zeros(wanted.shape).at[0].set(1.0)
        if kind == "in_batch":
            weights = weights.at[1:].set(1e-9)
        users = jnp.broadcast_to(user[0], (*wanted.shape, len(user[0])))
        targets = Targets(users, wanted, weights)
        loss = on_candidates(items, rows, targets, RankingLoss(), config, key, 19)
        return jnp.exp(loss + scores[target])

    found = jax.jit(jax.vmap(estimate))(jax.random.split(jax.random.key(0), repeats))
    whole = np.exp(scores)[known].sum()
    if kind == "in_batch":  # the row's own place is one of 13 draws, and no other item's
        own = np.exp(scores[target])
        whole = own + (whole - own) * drawn / (drawn + 1)
    error = np.std(found) / np.sqrt(repeats)
    assert error < 0.02 * whole
    assert abs(np.mean(found) - whole) < 4 * error


LOSSES = {
    "bpr": (RankingLoss("bpr"), lambda s, _: ranking.bpr(s)),
    "softmax": (RankingLoss("softmax"), ranking.sampled_softmax),
    "warp": (RankingLoss("warp"), lambda s, _: ranking.warp(s)),
    "lambdarank": (RankingLoss("lambdarank", "shrunk", 10), None),
}


@pytest.mark.parametrize(
    "name", ["warp", *(pytest.param(n, marks=SLOW) for n in ("bpr", "softmax"))]
)
def test_ranking_losses_are_those_of_sampled_negatives(name, monkeypatch):
    """With every item a candidate, and in parts: the library's losses of the formula's scores."""
    loss, formula = LOSSES[name]
    head = dataclasses.replace(HEADS["table"], loss=loss, sampler=SamplerConfig(kind="all"))
    params, want = small.parameters(head), 0.0
    for block in small.BLOCKS:
        scores = small.scores(head, params, block)[:, :, : block.items]
        known = np.isfinite(scores[0, 0])
        for row, place, item in asked(block):
            s = scores[row, place]
            valid = known & (np.arange(block.items) != item)
            scored = ranking.Scored(
                *(jnp.asarray(x, jnp.float32)[None] for x in (s[item], np.where(known, s, 0))),
                jnp.asarray(valid)[None],
                float(known.sum() - 1),
            )
            want += float(formula(scored, jnp.zeros(block.items))[0])
    run = jax.jit(lambda params: head.sums(small.read(params)))
    np.testing.assert_allclose(run(params)["loss"].total, want, rtol=1e-5)
    grads = []
    for size in (60, 1 << 18):
        monkeypatch.setattr(shared_negatives, "SCORES", size)
        value, grad = jax.jit(jax.value_and_grad(lambda p: head.sums(small.read(p))["loss"].total))(
            params
        )
        np.testing.assert_allclose(value, want, rtol=1e-5)
        grads.append(grad)
    for a, b in zip(*map(jax.tree.leaves, grads), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5 * max(1e-3, np.abs(b).max()))


MESHES = {
    "softmax": HEADS["table"],
    "in_batch": small.head(loss=RankingLoss(), sampler=SamplerConfig(kind="in_batch")),
    "lambdarank": small.head(loss=LOSSES["lambdarank"][0], sampler=SamplerConfig(drawn=16)),
}


@pytest.mark.parametrize("name", ["softmax", "lambdarank", pytest.param("in_batch", marks=SLOW)])
def test_losses_and_gradients_on_eight_devices_are_those_on_one(name):
    head = MESHES[name]
    params, key = small.parameters(head), jax.random.key(4)
    found = []
    for sizes in ((1, 1, 1), (2, 2, 2)):
        devices = tuple(jax.devices()[: int(np.prod(sizes))])
        partitioner = Partitioner(MeshConfig(*sizes), devices=devices)

        def loss(params, batch, states, vectors):
            read = Read(None, params, batch, vectors, states, None, key)
            return head.sums(read)["loss"].total

        rows = partitioner.batch_sharding(small.BATCH)
        given = jax.device_put((small.batch(), small.hidden()), rows)
        whole = jax.device_put((params, jnp.asarray(small.table())), partitioner.replicated)
        with partitioner.context():
            found.append(jax.jit(jax.value_and_grad(loss))(whole[0], *given, whole[1]))
    (one, of_one), (eight, of_eight) = found
    np.testing.assert_allclose(eight, one, rtol=1e-5)
    for a, b in zip(jax.tree.leaves(of_eight), jax.tree.leaves(of_one), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5 * max(1e-3, np.abs(b).max()))


def test_an_item_that_joins_later_is_scored_by_its_vector():
    head = small.head(item_bias=False)
    params = small.parameters(head)
    vectors = small.table()
    vectors[20] = np.linspace(-1, 1, small.CF)  # a free row of "a" is taken
    grown = head.items(params, ItemSource(jnp.asarray(vectors), None), small.BLOCKS[0])
    users = head.users(params, small.hidden())
    found = users @ grown.table.T + grown.bias
    want = small.scores(head, params, small.BLOCKS[0], vectors)
    want, known = want[..., :21], np.isfinite(want[0, 0, :21])
    np.testing.assert_allclose(found[..., :21][..., known], want[..., known], rtol=1e-4, atol=1e-5)
    assert known.sum() == 20 and known[20] and not known[small.COLD]
    assert (np.asarray(found)[..., [small.COLD, 21, 22, 23]] < -1e29).all()


def test_a_head_starts_from_the_table():
    for name in ("table", "row"):
        head = small.head(vectors=name)
        params = nn.unbox(head.init(jax.random.key(0), small.LM_DIM))
        source = ItemSource(jnp.asarray(small.table()), None)
        output = head.items(params, source, small.BLOCKS[1])
        np.testing.assert_array_equal(output.table, small.table()[40:])
        assert np.exp(params["item_head"]["log_temperature"]) == pytest.approx(small.CF**0.5)


def test_what_an_item_head_cannot_do_is_said():
    with pytest.raises(
        UserError, match="corrected ranks need uniform candidates, not 'popularity'"
    ):
        ItemHead(loss=RankingLoss("warp"), sampler=SamplerConfig(kind="popularity"))
    with pytest.raises(UserError, match=r"ItemHead.vectors='codes'.*one of table, soft, row"):
        ItemHead(vectors="codes")
    without = dataclasses.replace(ItemHead(), cf_dim=small.CF)
    with pytest.raises(UserError, match="give CF_TABLE"):
        without.sums(small.read(small.parameters(without)))
    with pytest.raises(UserError, match="knows no items of shop: its tables are of a, b"):
        small.head().rows_of("shop")


def test_a_catalogue_of_370_000_items_takes_less_than_a_gibibyte():
    """Temporaries of a step's loss and gradients on one device; as many scores at once were 0.4."""
    items, users, width, dim = 370_000, 256, 512, 64
    block = ItemRows("large", 0, items, np.ones(items, int))
    head = dataclasses.replace(ItemHead(), cf_dim=dim, catalogues=(block,))
    params = nn.unbox(jax.eval_shape(functools.partial(head.init, lm_dim=width), jax.random.key(0)))
    one = jax.ShapeDtypeStruct((users, 1), jnp.int32)
    batch = {"item_targets": one, "item_positions": one}
    states = jax.ShapeDtypeStruct((users, 4, width), jnp.float32)
    vectors = jax.ShapeDtypeStruct((items, dim), jnp.float32)

    def loss(params, states, batch, vectors):
        read = Read(None, params, batch, vectors, states, None, None)
        return head.sums(read)["loss"].total

    step = jax.jit(jax.value_and_grad(loss, (0, 1)))
    used = step.lower(params, states, batch, vectors).compile().memory_analysis()
    assert items * 4 < used.temp_size_in_bytes < 2**30
