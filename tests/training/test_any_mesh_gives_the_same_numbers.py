"""One device and eight (2 x 2 x 2) give the same loss, gradients and SGD steps.

SGD, not AdamW: where the true gradient is zero AdamW turns rounding into steps of the learning
rate. Those leaves are the key biases of attention, since softmax is blind to what is added to
every score: named below and tested to be nothing but rounding.
"""

import jax
import numpy as np
import pytest

from ilm_jax.training.optimizers import OptimizerConfig
from ilm_jax.training.partitioning import MeshConfig, Partitioner
from ilm_jax.training.state import describe_variables, initialise, make_state
from ilm_jax.training.step import gradient, make_train_step
from tests.training import models

CASES = [(models.ILM, "prompt"), *((models.ALIGNMENT, kind) for kind in models.ALIGNMENT.kinds)]


def batches(objective, kind, count):
    make = models.prompt_batch if kind == "prompt" else None
    return [make(i) if make else models.alignment_batch(kind, i) for i in range(count)]


def setup(objective, sizes):
    number = int(np.prod(sizes))
    partitioner = Partitioner(MeshConfig(*sizes), devices=tuple(jax.devices()[:number]))
    variables = describe_variables(objective)
    params = initialise(objective, variables, list(variables), partitioner, jax.random.key(0))
    return partitioner, params


def place(partitioner, batch):
    return partitioner.global_batch(batch, models.ROWS)


def gradients(objective, kind, sizes):
    partitioner, params = setup(objective, sizes)
    key = jax.device_put(jax.random.key(5), partitioner.replicated)
    with partitioner.context():
        batch = place(partitioner, batches(objective, kind, 1)[0])
        grads, sums = jax.jit(
            lambda p, b: gradient(objective, kind, p, {}, b, models.table(), key)
        )(params, batch)
    weight = float(sums["loss"].weight)
    return float(sums["loss"].total) / weight, {p: np.asarray(g) / weight for p, g in grads.items()}


@pytest.mark.parametrize(("objective", "kind"), CASES, ids=[kind for _, kind in CASES])
def test_loss_and_gradients_on_eight_devices_equal_those_on_one(objective, kind):
    loss_one, one = gradients(objective, kind, (1, 1, 1))
    loss_eight, eight = gradients(objective, kind, (2, 2, 2))
    np.testing.assert_allclose(loss_eight, loss_one, rtol=1e-5)
    largest = max(np.abs(g).max() for g in one.values())
    for path in one:
        np.testing.assert_allclose(eight[path], one[path], atol=1e-5 * largest, err_msg=path)
    zero = [path for path in one if np.abs(one[path]).max() < 1e-6 * largest]
    assert all(is_blind(path) for path in zero), zero


def is_blind(path):
    """Leaves without any true gradient in these batches."""
    biases = path.endswith("attention/key/bias")
    # One key: the softmax is constant, so cross-attention reads nothing from query and key.
    single = "cross_attention/query" in path or "cross_attention/key" in path
    other_kind = "log_temperature" in path or "text_" in path or "match_head" in path
    return biases or single or other_kind or "query_projection" in path


@pytest.mark.parametrize(("objective", "kind"), CASES[:2], ids=["prompt", "item_text"])
def test_five_sgd_steps_on_eight_devices_equal_those_on_one(objective, kind):
    results = []
    for sizes in ((1, 1, 1), (2, 2, 2)):
        partitioner, params = setup(objective, sizes)
        optimizer = OptimizerConfig("sgd", 0.05, "constant").build(5)
        state = make_state(params, {}, optimizer)
        step = make_train_step(objective, kind, optimizer, partitioner, state, models.ROWS)
        table = jax.device_put(models.table(), partitioner.replicated)
        key = jax.device_put(jax.random.key(5), partitioner.replicated)
        with partitioner.context():
            for batch in batches(objective, kind, 5):
                state, _ = step(state, place(partitioner, batch), table, key)
        results.append({path: np.asarray(x) for path, x in state.trainable.items()})
    one, eight = results
    for path in one:
        np.testing.assert_allclose(eight[path], one[path], rtol=1e-4, atol=2e-6, err_msg=path)


def test_parameters_and_their_slots_are_really_sharded():
    partitioner, params = setup(models.ILM, (2, 2, 2))
    kernel = params["lm/layers/sub_0/mlp/up/kernel"]
    assert kernel.sharding.spec == jax.P(None, "fsdp", "tensor")
    state = make_state(params, {}, OptimizerConfig().build(5))
    slots = [x for x in jax.tree.leaves(state.opt_state) if x.shape == kernel.shape]
    assert slots and all(slot.sharding == kernel.sharding for slot in slots)
