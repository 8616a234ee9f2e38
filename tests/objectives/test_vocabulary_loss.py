"""The blockwise loss over a vocabulary is the plain formula, in value and in every gradient."""

import math

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ilm_jax.models import products
from ilm_jax.models.counting import count_dot_flops, count_dots
from ilm_jax.models.output_layer import OutputLayer
from ilm_jax.objectives import vocabulary_block
from ilm_jax.objectives.vocabulary_loss import vocabulary_loss
from ilm_jax.sharding.partitioning import MeshConfig, Partitioner

BATCH, LENGTH, EMBED = 8, 3, 16


def plain(params, labels, weights, how, smoothing, z_loss):
    """(total, loss of each token), with all the logits."""
    hidden, table, bias = params
    logits = how.scale * jnp.einsum("btd,vd->btv", hidden, table) + (0 if bias is None else bias)
    if how.softcap is not None:
        logits = how.softcap * jnp.tanh(logits / how.softcap)
    log_p = jax.nn.log_softmax(logits)
    vocab = table.shape[0]
    target = smoothing / vocab + (1 - smoothing) * jax.nn.one_hot(labels, vocab)
    each = -(target * log_p).sum(-1) + z_loss * jax.nn.logsumexp(logits, -1) ** 2
    return (weights * each).sum(), each


def ours(params, labels, weights, how, smoothing, z_loss, block):
    hidden, table, bias = params
    output = how.replace(table=table, bias=bias)
    found = vocabulary_loss(
        hidden, output, labels, weights, label_smoothing=smoothing, z_loss=z_loss, block=block
    )
    return found.total, found.each


def case(vocab, seed=0, bias=True, batch=BATCH, **how):
    rng = np.random.default_rng(seed)

    def draw(*shape):
        return jnp.asarray(rng.normal(size=shape).astype(np.float32))

    params = (draw(batch, LENGTH, EMBED), draw(vocab, EMBED), draw(vocab) if bias else None)
    labels = jnp.asarray(rng.integers(0, vocab, (batch, LENGTH)), jnp.int32)
    weights = jnp.asarray(rng.integers(0, 3, (batch, LENGTH)) / 2, jnp.float32)
    return params, labels, weights, OutputLayer(params[1], params[2], **how)


def evaluated(function, params):
    """((total, losses), gradients of `total` and the losses in a random mixture)."""
    mix = jnp.asarray(np.random.default_rng(9).normal(size=(BATCH, LENGTH)), jnp.float32)

    def scalar(params):
        total, each = function(params)
        return 3 * total + (mix * each).sum(), (total, each)

    (_, values), gradients = jax.jit(jax.value_and_grad(scalar, has_aux=True))(params)
    return values, gradients


def assert_same(got, want, tolerance=1e-6):
    for g, w in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        scale = max(1.0, float(np.abs(w).max()))
        np.testing.assert_allclose(np.asarray(g), np.asarray(w), atol=3 * tolerance * scale, rtol=0)


@hypothesis.settings(max_examples=6, deadline=None, derandomize=True)
@hypothesis.given(
    vocab=st.integers(2, 40),
    block=st.integers(1, 30),
    smoothing=st.sampled_from([0.0, 0.1, 0.6]),
    z_loss=st.sampled_from([0.0, 1e-2]),
    softcap=st.sampled_from([None, 3.0]),
    scale=st.sampled_from([1.0, 0.3]),
    bias=st.booleans(),
    seed=st.integers(0, 99),
)
def test_values_and_gradients_are_those_of_the_plain_formula(
    vocab, block, smoothing, z_loss, softcap, scale, bias, seed
):
    params, labels, weights, how = case(vocab, seed, bias, scale=scale, softcap=softcap)
    rest = (labels, weights, how, smoothing, z_loss)
    got = evaluated(lambda p: ours(p, *rest, block), params)
    assert_same(got, evaluated(lambda p: plain(p, *rest), params))


def test_a_weight_of_zero_silences_what_is_not_finite_in_every_gradient():
    params, labels, weights, how = case(20)
    hidden = params[0].at[0, 0].set(jnp.inf)
    weights = weights.at[0, 0].set(0)

    def total(hidden, table, bias):
        return ours((hidden, table, bias), labels, weights, how, 0.0, 0.0, 4)[0]

    found, gradients = jax.value_and_grad(total, argnums=(0, 1, 2))(hidden, *params[1:])
    assert np.isfinite(found)
    # The table's gradient multiplies the state itself, which is not finite whatever its weight is.
    assert np.isfinite(gradients[0][1:]).all() and np.isfinite(gradients[2]).all()


def traced(trains, block=None):
    """The program of the gradient with respect to some of (hidden, table, bias)."""
    params, labels, weights, how = case(24)

    def total(some, others):
        return ours(
            [a if a is not None else b for a, b in zip(some, others, strict=True)],
            *(labels, weights, how, 0.1, 0.0, block),
        )[0]

    some = [x if name in trains else None for x, name in zip(params, "htb", strict=True)]
    others = [None if name in trains else x for x, name in zip(params, "htb", strict=True)]
    return jax.make_jaxpr(jax.grad(total))(some, others)


PRODUCT = 2 * BATCH * LENGTH * EMBED * 24


@pytest.mark.parametrize("block, steps", [(None, 1), (6, 4)])
@pytest.mark.parametrize("trains, dots", [("h", 2), ("htb", 3), ("tb", 2), ("b", 1)])
def test_products_are_the_logits_and_one_for_each_thing_that_trains(trains, dots, block, steps):
    program = traced(trains, block)
    sums = "b" in trains  # a CPU adds up the bias's gradient as a product with ones
    assert count_dots(program) == (dots + sums) * steps
    assert count_dot_flops(program) == dots * PRODUCT + sums * PRODUCT / EMBED


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_all_platforms_have_the_same_losses_whatever_stands_where_weights_are_zero(
    smoothing, monkeypatch
):
    params, labels, weights, how = case(24)
    labels = labels.at[0, :2].set(jnp.array([-1, 24]))
    weights = weights.at[0, :2].set(0)

    def found(params):
        return ours(params, labels, weights, how, smoothing, 0.0, 6)

    on_cpu = jax.value_and_grad(found, has_aux=True)(params)
    for module in (vocabulary_block, products):
        monkeypatch.setattr(module, "platform", lambda: "tpu")
    elsewhere = jax.value_and_grad(found, has_aux=True)(params)
    for a, b in zip(jax.tree.leaves(on_cpu), jax.tree.leaves(elsewhere), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_a_value_alone_costs_one_product():
    params, *rest, how = case(24)
    program = jax.make_jaxpr(lambda p: ours(p, *rest, how, 0.0, 0.0, None))(params)
    assert count_dot_flops(program) == PRODUCT


def test_no_array_of_the_program_holds_more_than_a_block_of_logits():
    params, labels, weights, how = case(4096)
    program = jax.jit(jax.grad(lambda p: ours(p, labels, weights, how, 0.0, 0.0, 2)[0])).lower(
        params
    )
    # A plain loss keeps 24 x 4,096 logits and more; the table's gradient is 16 x 4,096.
    sizes = [int(np.prod(list(map(int, dims.split("x"))))) for dims in shapes(program.as_text())]
    assert max(sizes) == 4096 * EMBED
    assert math.prod((BATCH, LENGTH, 4096)) > max(sizes)


def shapes(text):
    """Dimensions of the tensors of a program, "8x3x16"."""
    import re

    return re.findall(r"tensor<((?:\d+x)*\d+)x[a-z]", text)


MESHES = {
    "data": (MeshConfig(data=8), 24),
    "all": (MeshConfig(data=2, fsdp=2, tensor=2), 24),
    "words that do not divide": (MeshConfig(data=2, tensor=4), 30),
    "words brought to rows": (MeshConfig(data=1, fsdp=8), 16),
}


@pytest.mark.parametrize("mesh, vocab", MESHES.values(), ids=MESHES.keys())
def test_words_and_rows_split_over_devices_give_the_same(mesh, vocab):
    params, labels, weights, how = case(vocab, softcap=4.0)
    rest = (labels, weights, how, 0.1, 1e-2)
    partitioner = Partitioner(mesh)
    with partitioner.context():
        names = ("batch", "length", None), ("vocab", "embed"), ("vocab",)
        placed = tuple(
            jax.device_put(x, partitioner.sharding(axes, x.shape))
            for x, axes in zip(params, names, strict=True)
        )
        got = evaluated(lambda p: ours(p, *rest, 2), placed)
    assert_same(got, evaluated(lambda p: plain(p, *rest), params))


def test_low_precision_factors_lose_nothing_in_the_sums():
    params, labels, weights, how = case(500, bias=False, dtype="bfloat16")
    low = tuple(None if x is None else x.astype(jnp.bfloat16) for x in params)
    total, each = jax.jit(lambda p: ours(p, labels, weights, how, 0.1, 0.0, 5))(low)
    back = tuple(None if x is None else x.astype(jnp.float32) for x in low)
    want_total, want = plain(back, labels, weights, how, 0.1, 0.0)
    assert each.dtype == total.dtype == jnp.float32
    np.testing.assert_allclose(each, want, rtol=1e-5)
    np.testing.assert_allclose(total, want_total, rtol=1e-5)
