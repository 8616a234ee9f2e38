"""Rows of new words train on any mesh alike, under the one trainer, and nothing else moves."""

import dataclasses

import jax
import numpy as np
import optax
import pytest

from ilm_jax.models.new_tokens import NewTokens
from ilm_jax.sharding.freezing import split_by_patterns
from ilm_jax.sharding.partitioning import MeshConfig, Partitioner
from ilm_jax.sharding.state import describe_variables, initialise, make_state
from ilm_jax.training.data_start import DataStart
from ilm_jax.training.step import make_train_step
from tests.training import models

OBJECTIVE = dataclasses.replace(models.TEXT_ONLY, new_tokens=NewTokens(6, models.VOCAB))
PATTERNS = ("^lm/new_tokens/",)


def batch(seed):
    found = models.prompt_batch(seed, slots=False)
    draw = np.random.default_rng(seed)
    for name in ("tokens", "targets"):
        new = draw.integers(models.VOCAB, models.VOCAB + 6, found[name].shape)
        found[name] = np.where(draw.random(found[name].shape) < 0.5, new, found[name])
        found[name] = found[name].astype(np.int32)
    return found


def trained(sizes):
    """(losses of three steps, rows after them, the frozen leaves before and after)."""
    devices = tuple(jax.devices()[: int(np.prod(sizes))])
    partitioner = Partitioner(MeshConfig(*sizes), devices=devices)
    variables = describe_variables(OBJECTIVE)
    params = initialise(OBJECTIVE, variables, list(variables), partitioner, jax.random.key(0))
    table = np.zeros((1, 1), np.float32)
    start = DataStart(OBJECTIVE, partitioner, table)
    params, lines = start(params, list(params))
    assert "lm/new_tokens/input" in lines[0] and "(0 items)" not in lines[0]
    trainable, frozen = split_by_patterns(params, PATTERNS)
    before = {path: np.array(x) for path, x in frozen.items()}
    optimizer = optax.chain(optax.trace(decay=0.0), optax.scale(-0.5))
    state = make_state(trainable, frozen, optimizer)
    step = make_train_step(OBJECTIVE, "prompt", optimizer, partitioner, state, models.ROWS)
    key = jax.device_put(jax.random.key(5), partitioner.replicated)
    put = jax.device_put(table, partitioner.replicated)
    losses = []
    with partitioner.context():
        for _ in range(3):
            state, report = step(state, partitioner.global_batch(batch(0), models.ROWS), put, key)
            sums = report["sums"]["loss"]
            losses.append(float(sums.total / sums.weight))
    after = {path: np.array(x) for path, x in state.frozen.items()}
    return losses, {p: np.array(x) for p, x in state.trainable.items()}, before, after


@pytest.fixture(scope="module")
def alone():
    return trained((1, 1, 1))


def test_eight_devices_train_them_as_one_does(alone):
    losses, rows, _, _ = trained((2, 2, 2))
    np.testing.assert_allclose(losses, alone[0], rtol=2e-5)
    for path, leaf in rows.items():
        np.testing.assert_allclose(leaf, alone[1][path], atol=2e-5, err_msg=path)


def test_nothing_else_moves(alone):
    losses, rows, before, after = alone
    assert losses[-1] < losses[0]
    assert set(rows) == {"lm/new_tokens/input", "lm/new_tokens/output"}
    assert all(np.array_equal(before[path], after[path]) for path in before)
