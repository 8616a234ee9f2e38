"""One device and eight (2 x 2 x 2) give the same loss, gradients and SGD steps.

SGD, not AdamW: where the true gradient is zero AdamW turns rounding into steps of the learning
rate. Those leaves are the key biases of attention, since softmax is blind to what is added to
every score: named below and tested to be nothing but rounding.
"""

import dataclasses
import functools

import jax
import numpy as np
import optax
import pytest

from ilm_jax.sharding.partitioning import MeshConfig, Partitioner
from ilm_jax.sharding.state import describe_variables, initialise, make_state, nested
from ilm_jax.training.optimizers import OptimizerConfig
from ilm_jax.training.step import make_train_step
from tests.training import models

OBJECTIVES = {"prompt": models.ILM, **dict.fromkeys(models.ALIGNMENT.kinds, models.ALIGNMENT)}
ONE, EIGHT = (1, 1, 1), (2, 2, 2)
# Pairs of vectors go through the contrastive loss of texts, and through nothing else.
PAIRS = [pytest.param(kind, marks=pytest.mark.slow) for kind in ("item_item", "user_item")]
KINDS = ["prompt", "item_text", *PAIRS]


def a_batch(kind, seed):
    return models.prompt_batch(seed) if kind == "prompt" else models.alignment_batch(kind, seed)


@functools.cache
def mesh(sizes):
    return Partitioner(MeshConfig(*sizes), devices=tuple(jax.devices()[: int(np.prod(sizes))]))


@functools.cache
def drawn(objective, sizes):
    """Initial parameters, drawn on the mesh itself."""
    variables = describe_variables(objective)
    return initialise(objective, variables, list(variables), mesh(sizes), jax.random.key(0))


def start(objective, sizes):
    """A copy of `drawn` (steps donate theirs) in which the queries read more from the vectors.

    Fresh ones hardly differ from item to item: a contrastive gradient is then what cancellation
    leaves, rounding included, and the best query pairs are ties.
    """

    def copy(path, x):
        reads = path.endswith(("cross_attention/value/kernel", "cross_attention/out/kernel"))
        return jax.device_put(np.asarray(x) * np.float32(8 if reads else 1), x.sharding)

    return {path: copy(path, x) for path, x in drawn(objective, sizes).items()}


def to_host(arrays):
    return {path: np.array(x) for path, x in arrays.items()}


@dataclasses.dataclass
class Training:
    loss: float  # of the first batch
    gradients: dict[str, np.ndarray]  # of the first batch
    params: dict[str, np.ndarray]  # after five steps


@functools.cache
def train(kind, sizes):
    """Five steps of SGD; a momentum without memory keeps the gradient where it can be read."""
    objective, partitioner = OBJECTIVES[kind], mesh(sizes)
    optimizer = optax.chain(
        optax.trace(decay=0.0), optax.clip_by_global_norm(1.0), optax.scale(-0.05)
    )
    state = make_state(start(objective, sizes), {}, optimizer)
    step = make_train_step(objective, kind, optimizer, partitioner, state, models.ROWS)
    table = jax.device_put(models.table(), partitioner.replicated)
    key = jax.device_put(jax.random.key(5), partitioner.replicated)
    losses, gradients = [], []
    with partitioner.context():
        for seed in range(5):
            batch = partitioner.global_batch(a_batch(kind, seed), models.ROWS)
            state, report = step(state, batch, table, key)
            losses.append(float(report["sums"]["loss"].total / report["sums"]["loss"].weight))
            gradients.append(to_host(state.opt_state[0].trace))
    return Training(losses[0], gradients[0], to_host(state.trainable))


@pytest.mark.parametrize(
    "objective",
    [models.ILM, pytest.param(models.ALIGNMENT, marks=pytest.mark.slow)],
    ids=["stage 2", "stage 1"],
)
def test_parameters_drawn_on_eight_devices_equal_those_on_one(objective):
    one, eight = to_host(drawn(objective, ONE)), to_host(drawn(objective, EIGHT))
    for path in one:
        np.testing.assert_allclose(eight[path], one[path], rtol=1e-6, atol=1e-7, err_msg=path)


@pytest.mark.parametrize("kind", KINDS)
def test_loss_and_gradients_on_eight_devices_equal_those_on_one(kind):
    one, eight = train(kind, ONE), train(kind, EIGHT)
    np.testing.assert_allclose(eight.loss, one.loss, rtol=1e-5)
    largest = max(np.abs(g).max() for g in one.gradients.values())
    for path, gradient in one.gradients.items():
        np.testing.assert_allclose(
            eight.gradients[path], gradient, rtol=0, atol=1e-5 * largest, err_msg=path
        )
    zero = {p for p, g in one.gradients.items() if np.abs(g).max() < 1e-6 * largest}
    assert all(is_blind(path) for path in zero), zero
    key_biases = {path for path in one.gradients if path.endswith("attention/key/bias")}
    assert key_biases and key_biases <= zero


def is_blind(path):
    """Leaves without any true gradient in these batches."""
    biases = path.endswith("attention/key/bias")
    # One key: the softmax is constant, so cross-attention reads nothing from query and key.
    single = "cross_attention/query" in path or "cross_attention/key" in path
    other_kind = "log_temperature" in path or "text_" in path or "match_head" in path
    return biases or single or other_kind or "query_projection" in path


@pytest.mark.parametrize("kind", KINDS)
def test_five_sgd_steps_on_eight_devices_equal_those_on_one(kind):
    one, eight = train(kind, ONE), train(kind, EIGHT)
    before = to_host(start(OBJECTIVES[kind], ONE))
    assert any(np.abs(one.params[path] - before[path]).max() > 1e-4 for path in before)
    for path in before:
        np.testing.assert_allclose(
            eight.params[path], one.params[path], rtol=1e-4, atol=2e-6, err_msg=path
        )


def test_dropout_drops_the_same_on_any_mesh():
    """Seen in the loss with a dropout key, which differs from the loss without."""
    qformer = dataclasses.replace(models.QFORMER, dropout=0.3)
    objective = models.ILM.with_configs({"qformer": qformer})

    def loss(sizes, key):
        partitioner = mesh(sizes)
        with partitioner.context():
            batch = partitioner.global_batch(a_batch("prompt", 0), models.ROWS)
            params = nested(drawn(models.ILM, sizes))
            compute = jax.jit(lambda p, b, k: objective.loss(p, "prompt", b, models.table(), k))
            sums = compute(params, batch, key)["loss"]
        return float(sums.total / sums.weight)

    one, eight = (loss(sizes, jax.random.key(5)) for sizes in (ONE, EIGHT))
    np.testing.assert_allclose(eight, one, rtol=1e-5)
    assert abs(one - loss(ONE, jax.random.key(6))) > 1e-4


def test_parameters_and_their_slots_are_really_sharded():
    params = drawn(models.ILM, EIGHT)
    kernel = params["lm/layers/sub_0/mlp/up/kernel"]
    assert kernel.sharding.spec == jax.P(None, "fsdp", "tensor")
    state = make_state(params, {}, OptimizerConfig().build(5))
    slots = [x for x in jax.tree.leaves(state.opt_state) if x.shape == kernel.shape]
    assert slots and all(slot.sharding == kernel.sharding for slot in slots)
