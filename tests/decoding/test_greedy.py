"""Greedy decoding takes at each step what an uncached pass over everything so far likes best."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ilm_jax.decoding.greedy import greedy
from ilm_jax.models.t5 import T5
from tests.decoding.test_beam import MODELS
from tests.models.small import init

LENGTHS, STEPS, EOS, PAD = np.array([5, 2, 7]), 6, 1, 0


@pytest.mark.parametrize("name", MODELS)
def test_each_token_is_the_best_of_an_uncached_pass(name):
    lm = MODELS[name]
    ones = jnp.ones((1, 1), jnp.int32)
    params = jax.tree.map(lambda leaf: 3 * leaf, init(lm, jnp.zeros((1, 1, 16)), ones, ones))
    prompts = jax.random.normal(jax.random.key(1), (3, 7, 16))
    got = np.asarray(greedy(lm, params, prompts, LENGTHS, steps=STEPS, eos_id=EOS))

    @jax.jit
    def logits(x, length, end):
        at = jnp.arange(x.shape[0])[None]
        told = {"predicts": (at >= length - 1) & (at < end)} if isinstance(lm, T5) else {}
        hidden = lm.apply({"params": params}, x[None], at, (at < end).astype(int), **told)
        return lm.apply({"params": params}, hidden, method="logits")[0]

    for row, length in enumerate(LENGTHS):
        x = np.zeros((7 + STEPS, 16), np.float32)
        x[:length] = prompts[row, :length]
        expected = []
        while len(expected) < STEPS and EOS not in expected:
            end = length + len(expected)
            expected.append(int(np.argmax(logits(x, length, end)[end - 1])))
            word = lm.apply({"params": params}, np.array([[expected[-1]]]), method="embed")
            x[min(end, len(x) - 1)] = word[0, 0]
        assert got[row].tolist() == expected + [PAD] * (STEPS - len(expected))


def test_nothing_follows_the_end():
    lm = MODELS["decoder"]
    ones = jnp.ones((1, 1), jnp.int32)
    params = init(lm, jnp.zeros((1, 1, 16)), ones, ones)
    prompts = jax.random.normal(jax.random.key(1), (3, 7, 16))
    first = np.asarray(greedy(lm, params, prompts, LENGTHS, steps=1, eos_id=EOS))[:, 0]
    got = np.asarray(greedy(lm, params, prompts, LENGTHS, steps=3, eos_id=int(first[0]), pad_id=9))
    assert got[0].tolist() == [first[0], 9, 9]


def test_nothing_follows_any_of_several_ends():
    lm = MODELS["decoder"]
    ones = jnp.ones((1, 1), jnp.int32)
    params = init(lm, jnp.zeros((1, 1, 16)), ones, ones)
    prompts = jax.random.normal(jax.random.key(1), (3, 7, 16))
    whole = np.asarray(greedy(lm, params, prompts, LENGTHS, steps=3, eos_id=99))
    stops = (int(whole[0, 0]), int(whole[1, 1]))
    got = np.asarray(
        greedy(lm, params, prompts, LENGTHS, steps=3, eos_id=99, pad_id=9, stop_ids=stops)
    )
    for row, written in zip(got, whole, strict=True):
        end = next((i for i, token in enumerate(written) if token in stops), 2) + 1
        assert row.tolist() == [*written[:end], *[9] * (3 - end)]
    assert (got == 9).sum() >= 3
