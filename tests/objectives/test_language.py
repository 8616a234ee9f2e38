"""Next-token losses by value: which tokens count, how much, and in which type."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ilm_jax.models.output_layer import OutputLayer
from ilm_jax.objectives.generation import caption_loss, weighted
from ilm_jax.objectives.language import target_window
from ilm_jax.sharding.partitioning import MeshConfig, Partitioner
from ilm_jax.sharding.state import describe_variables, initialise, nested
from tests.training import models


def log_softmax(logits):
    logits = np.asarray(logits, np.float64)
    top = logits.max(-1, keepdims=True)
    return logits - top - np.log(np.exp(logits - top).sum(-1, keepdims=True))


def some_logits(*shape):
    return 4 * np.random.default_rng(0).normal(size=shape).astype(np.float32)


def test_a_weight_of_zero_silences_what_is_not_finite():
    values = jnp.array([1.0, jnp.nan, jnp.inf, 3.0])
    sums = weighted(values, jnp.array([1.0, 0.0, 0.0, 0.5]))
    assert (float(sums.total), float(sums.weight)) == (2.5, 1.5)


def test_captions_predict_the_next_token_and_never_padding():
    text = np.array([[4, 7, 9, 0], [4, 8, 0, 0]])
    logits = some_logits(2, 4, 11)
    log_p = log_softmax(logits)
    want = -(log_p[0, 0, 7] + log_p[0, 1, 9] + log_p[1, 0, 8])
    states, output = jnp.asarray(logits), OutputLayer(jnp.eye(11))
    sums = caption_loss(states, output, jnp.asarray(text), 0, label_smoothing=0.0)
    np.testing.assert_allclose(sums.total, want, rtol=1e-5)
    assert float(sums.weight) == 3


def test_a_window_holds_every_target_in_order():
    weights = jnp.array([[0, 0, 1, 1, 0, 1], [0, 0, 0, 0, 0, 1.0], [1, 0, 0, 0, 0, 0]])
    got = np.asarray(target_window(weights, 3))
    assert got[0].tolist() == [2, 3, 5]
    assert (got[1][0], got[2][0]) == (5, 0)
    assert target_window(weights, 99).shape == (3, 6)


@functools.cache
def params():
    one = Partitioner(MeshConfig(1), devices=tuple(jax.devices()[:1]))
    variables = describe_variables(models.ILM)
    return nested(initialise(models.ILM, variables, list(variables), one, jax.random.key(0)))


def uneven_batch():
    """Targets differ in number from row to row, and content is a part of them."""
    batch = models.prompt_batch()
    draw = np.random.default_rng(5)
    batch["loss_weights"] *= draw.integers(0, 2, batch["loss_weights"].shape)
    batch["loss_weights"][0] = 0
    batch["content_weights"] *= batch["loss_weights"]
    batch["content_weights"][1] = 0
    return batch


@pytest.mark.parametrize("target_length", [None, 6])
def test_sums_are_over_target_tokens_and_over_content_tokens(target_length):
    batch = uneven_batch()
    objective = dataclasses.replace(models.ILM, target_length=target_length)
    sums = jax.jit(lambda p: objective.loss(p, "prompt", batch, models.table(), None))(params())
    logits, window = jax.jit(lambda p: models.ILM.target_logits(p, batch, models.table()))(params())
    assert window is None
    nll = -np.take_along_axis(log_softmax(logits), batch["targets"][..., None], -1)[..., 0]
    for name, weights in (
        ("loss", batch["loss_weights"]),
        ("nll_content", batch["content_weights"]),
    ):
        np.testing.assert_allclose(sums[name].total, (nll * weights).sum(), rtol=1e-5)
        assert float(sums[name].weight) == weights.sum() > 0
    assert float(sums["nll_content"].weight) < float(sums["loss"].weight)
