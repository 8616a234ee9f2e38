"""T5 computes what `transformers` computes, from the same tensors and the same ids."""

import functools
import json
import re
from collections import defaultdict

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import unflatten_dict

from ilm_jax.checkpoints.published.families.t5 import FAMILY
from ilm_jax.checkpoints.published.rules import apply
from ilm_jax.models.t5 import T5
from tests.parity import make_t5


@functools.cache
def golden():
    with np.load(make_t5.GOLDEN) as file:
        return dict(file)


def stored(case):
    """(config.json, tensors, batch with results) of the file."""
    prefix = f"{case}/"
    mine = {k.removeprefix(prefix): v for k, v in golden().items() if k.startswith(prefix)}
    weights = {k.removeprefix("tensor/"): v for k, v in mine.items() if k.startswith("tensor/")}
    weights = {name: leaf.astype(np.float32) for name, leaf in weights.items()}
    return json.loads(str(mine["config"])), weights, mine


def load(options, weights):
    """Our configuration and parameters; every tensor has an entry and every entry a tensor."""
    config = FAMILY.config(options)
    rules = FAMILY.rules(config)
    if config.tie_embeddings:
        weights = {name: leaf for name, leaf in weights.items() if name != "lm_head.weight"}
    assert {rule.source for rule in rules.values()} == set(weights)
    flat = {name: apply(rule, weights.__getitem__) for name, rule in rules.items()}
    return config, stacked(flat)


def stacked(flat):
    """Entries on disk as the scanned model holds them."""
    groups = defaultdict(list)
    for name in sorted(flat):
        groups[re.sub(r"layer_\d+", "layers/sub_0", name)].append(flat[name])
    leaves = {
        name: np.stack(rows) if "layers/" in name else rows[0] for name, rows in groups.items()
    }
    return unflatten_dict(leaves, sep="/")


def rows(batch):
    """The reference's two sequences as our one: inputs without their EOS, then labels."""
    length = batch["inputs"].shape[1] + batch["labels"].shape[1]
    tokens = np.zeros((2, length), np.int32)
    segments, predicts = np.zeros_like(tokens), np.zeros(tokens.shape, bool)
    sizes = zip(batch["input_lengths"], batch["label_lengths"], strict=True)
    for row, (read, told) in enumerate(sizes):
        read = read - 1
        tokens[row, :read] = batch["inputs"][row, :read]
        tokens[row, read : read + told - 1] = batch["labels"][row, : told - 1]
        segments[row, : read + told - 1] = 1
        predicts[row, read - 1 : read + told - 1] = True
    return tokens, segments, predicts


@functools.partial(jax.jit, static_argnames="model")
def run(model, params, x, segments, predicts, labels):
    """Logits, and the gradient of the summed nll to the vectors that the encoder reads."""
    told = jnp.pad(predicts[:, :-1], ((0, 0), (1, 0)))[..., None]
    positions = jnp.broadcast_to(jnp.arange(segments.shape[1]), segments.shape)
    bound = model.bind({"params": params})

    def loss(read):
        mixed = jnp.where(told, x, read)
        logits = bound.logits(bound(mixed, positions, segments, predicts=predicts))
        log_probs = jax.nn.log_softmax(logits)
        losses = -jnp.take_along_axis(log_probs, labels[..., None], 2)[..., 0]
        return jnp.where(predicts, losses, 0).sum(), logits

    gradient, logits = jax.grad(loss, has_aux=True)(x)
    return logits, gradient


def compare(options, weights, batch):
    compare_model(*load(options, weights), batch)


def compare_model(config, params, batch):
    model = T5(config)
    tokens, segments, predicts = rows(batch)
    x = model.apply({"params": params}, tokens, method="embed")
    labels = np.zeros_like(tokens)
    for row, told in enumerate(batch["label_lengths"]):
        labels[row][predicts[row]] = batch["labels"][row, :told]
    logits, gradient = run(model, params, x, segments, predicts, labels)
    assert np.abs(batch["logits"]).max() > 1  # else the tolerance would say nothing
    sizes = zip(batch["input_lengths"] - 1, batch["label_lengths"], strict=True)
    for row, (read, told) in enumerate(sizes):
        expected = batch["logits"][row, :told]
        np.testing.assert_allclose(logits[row][predicts[row]], expected, atol=1e-4, rtol=0)
        expected = batch["gradient"][row, :read]
        error = np.abs(gradient[row, :read] - expected).max()
        assert error < 1e-3 * np.abs(expected).max(), (row, error)


@pytest.mark.parametrize("case", make_t5.CASES)
def test_logits_and_gradients_are_the_references(case):
    compare(*stored(case))


@pytest.mark.parametrize("case", make_t5.CASES)
def test_live_models_of_another_seed_agree_too(case):
    pytest.importorskip("torch", reason="live parity needs torch (extra `parity`)")
    pytest.importorskip("transformers", reason="live parity needs transformers (extra `parity`)")
    model, batch = make_t5.build(case, seed=7), make_t5.draw_batch(case, seed=7)
    options = json.loads(json.dumps(model.config.to_dict()))
    compare(options, make_t5.tensors(model), batch | make_t5.compute(model, batch))


@pytest.mark.parametrize("case", ["t5_relu_tied", "flan_gated_untied_few_buckets"])
def test_cached_steps_give_the_logits_of_the_whole(case):
    options, weights, batch = stored(case)
    config, params = load(options, weights)
    model = T5(config)
    tokens, segments, predicts = rows(batch)
    lengths = batch["input_lengths"] - 1
    width = int(lengths.max())
    positions = np.broadcast_to(np.arange(tokens.shape[1]), tokens.shape)

    @jax.jit
    def step(tokens, positions, segments, cache):
        bound = model.bind({"params": params})
        hidden, cache = bound(bound.embed(tokens), positions, segments, cache)
        return bound.logits(hidden), cache

    prompt = positions[:, :width] < lengths[:, None]
    # What stands in the padding must not matter.
    first = np.where(prompt, tokens[:, :width], 39)
    cache = model.init_cache(2, tokens.shape[1])
    got, cache = step(first, positions[:, :width], prompt.astype(np.int32), cache)
    got = np.take_along_axis(np.asarray(got), (lengths - 1)[:, None, None], 1)[:, 0]
    for i in range(int(batch["label_lengths"].min())):
        expected = batch["logits"][:, i]
        np.testing.assert_allclose(got, expected, atol=1e-4, rtol=0)
        at = (lengths + i)[:, None]
        token = np.take_along_axis(tokens, at, 1)
        got, cache = step(token, at, np.ones_like(at), cache)
        got = got[:, 0]
