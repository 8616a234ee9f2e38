"""Words beside the table: the loss and its gradients are those of one table that holds them all."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ilm_jax.models.counting import count_dot_flops
from ilm_jax.models.output_layer import NEVER, OutputLayer
from ilm_jax.objectives.vocabulary_loss import vocabulary_loss
from ilm_jax.sharding.partitioning import Partitioner
from tests.objectives.test_vocabulary_loss import MESHES, assert_same

BATCH, LENGTH, EMBED, NEW = 8, 3, 16, 5
# (rows of the table, first new id): ids that follow the table, rows for padding under and behind
# the new ids, and a gap between the table and them.
LAYOUTS = {"behind": (24, 24), "in padding": (40, 24), "part": (26, 24), "gap": (24, 27)}


def draw(rng, *shape):
    return jnp.asarray(rng.normal(size=shape).astype(np.float32))


def case(vocab, first):
    rng = np.random.default_rng(0)
    params = draw(rng, BATCH, LENGTH, EMBED), draw(rng, vocab, EMBED), draw(rng, NEW, EMBED)
    ids = [*range(min(vocab, first)), *range(first, first + NEW)]
    labels = rng.choice(ids, (BATCH, LENGTH))
    labels[0] = [first, first + NEW - 1, 0]
    weights = jnp.asarray(rng.integers(1, 3, (BATCH, LENGTH)) / 2, jnp.float32)
    return params, jnp.asarray(labels, jnp.int32), weights


def plain(params, first, labels, weights, how, smoothing, z_loss):
    """The loss over one table: the new rows in their ids' places, what has no word left out."""
    hidden, table, new = params
    size = max(len(table), first + NEW)
    whole = jnp.zeros((size, EMBED)).at[: len(table)].set(table)
    whole = whole.at[first : first + NEW].set(new)
    word = np.ones(size, bool)
    word[len(table) : max(first, len(table))] = False
    word[first : first + NEW] = True
    logits = how.scale * jnp.einsum("btd,vd->btv", hidden, whole)
    if how.softcap is not None:
        logits = how.softcap * jnp.tanh(logits / how.softcap)
    log_p = jax.nn.log_softmax(jnp.where(word, logits, -jnp.inf))
    log_p = jnp.where(word, log_p, 0)
    target = smoothing * word / word.sum() + (1 - smoothing) * jax.nn.one_hot(labels, size)
    lse = jax.nn.logsumexp(jnp.where(word, logits, -jnp.inf), -1)
    each = -(target * log_p).sum(-1) + z_loss * lse**2
    return (weights * each).sum(), each


def ours(params, first, labels, weights, how, smoothing, z_loss, block=None):
    hidden, table, new = params
    output = how.replace(table=table, new=new, first=first)
    found = vocabulary_loss(
        hidden, output, labels, weights, label_smoothing=smoothing, z_loss=z_loss, block=block
    )
    return found.total, found.each


def evaluated(function, params):
    mix = jnp.asarray(np.random.default_rng(9).normal(size=(BATCH, LENGTH)), jnp.float32)

    def scalar(params):
        total, each = function(params)
        return 3 * total + (mix * each).sum(), (total, each)

    (_, values), gradients = jax.jit(jax.value_and_grad(scalar, has_aux=True))(params)
    return values, gradients


HOW = OutputLayer(jnp.zeros((1, 1)), scale=0.3, softcap=3.0)
PLAIN = OutputLayer(jnp.zeros((1, 1)))


@pytest.mark.parametrize("vocab, first", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("how, smoothing, z_loss", [(HOW, 0.1, 1e-2), (PLAIN, 0.0, 0.0)])
def test_values_and_gradients_are_those_of_one_table(vocab, first, how, smoothing, z_loss):
    params, labels, weights = case(vocab, first)
    rest = (first, labels, weights, how, smoothing, z_loss)
    got = evaluated(lambda p: ours(p, *rest, 7), params)
    want = evaluated(lambda p: plain(p, *rest), params)
    assert_same(got, want)
    # Rows of the table under the new ids say nothing and learn nothing.
    assert not np.asarray(got[1][1])[first : first + NEW].any()


@pytest.mark.parametrize("mesh", [m for m, _ in MESHES.values()], ids=MESHES)
def test_words_and_rows_split_over_devices_give_the_same(mesh):
    params, labels, weights = case(48, 40)
    rest = (40, labels, weights, HOW, 0.1, 1e-2)
    partitioner = Partitioner(mesh)
    axes = ("batch", "length", None), ("vocab", "embed"), (None, "embed")
    with partitioner.context():
        placed = tuple(
            jax.device_put(x, partitioner.sharding(names, x.shape))
            for x, names in zip(params, axes, strict=True)
        )
        got = evaluated(lambda p: ours(p, *rest, 2), placed)
    assert_same(got, evaluated(lambda p: plain(p, *rest), params))


def test_new_words_train_without_a_product_for_the_frozen_table():
    params, labels, weights = case(24, 24)
    hidden, table, new = params
    whole = 2 * BATCH * LENGTH * EMBED

    def total(new, hidden):
        return ours((hidden, table, new), 24, labels, weights, PLAIN, 0.0, 0.0)[0]

    program = jax.make_jaxpr(jax.grad(total, argnums=(0, 1)))(new, hidden)
    # Logits and the states' gradient of all words, and the gradient of the new ones alone.
    assert count_dot_flops(program) == whole * (2 * (24 + NEW) + NEW)
    program = jax.make_jaxpr(jax.grad(total))(new, hidden)
    assert count_dot_flops(program) == whole * (24 + NEW + NEW)


def test_a_word_that_is_none_is_never_said():
    assert np.exp(np.float32(NEVER)) == 0 and np.float32(NEVER) * 0 == 0
