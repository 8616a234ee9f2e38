"""Draws come from the distribution that temperature, top_k and top_p define, value by value."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ilm_jax.decoding.config import DecodingConfig
from ilm_jax.decoding.sampling import sample, warp
from ilm_jax.models.decoder import Decoder
from tests.models.small import decoder_config, init

DRAW = DecodingConfig(sample=True)


def log(*probabilities):
    """Logits that give these probabilities, in float32."""
    return jnp.log(jnp.asarray(probabilities, jnp.float32))


def kept(logits, **settings):
    """Ids that may be drawn."""
    warped = np.asarray(warp(logits, dataclasses.replace(DRAW, **settings)))
    return np.flatnonzero(np.isfinite(warped)).tolist()


def by_formula(logits, temperature=1.0, top_k=0, top_p=1.0):
    """Temperature, then the top k, then the smallest set that holds top_p; float64, row by row."""
    out = np.array(logits, np.float64) / temperature
    for row in out:
        if 0 < top_k < len(row):
            row[row < np.sort(row)[-top_k]] = -np.inf
        if top_p < 1:
            probability = np.exp(row - row.max())
            probability /= probability.sum()
            held, stays = 0.0, []
            for token in np.argsort(-row, kind="stable"):
                if held >= top_p:
                    break
                stays.append(token)
                held += probability[token]
            row[~np.isin(np.arange(len(row)), stays)] = -np.inf
    return out


SETTINGS = [
    {"temperature": 0.7},
    {"temperature": 2.5},
    {"top_k": 1},
    {"top_k": 5},
    {"top_k": 40},
    {"top_k": 99},
    {"top_p": 0.6},
    {"top_p": 0.05},
    {"top_p": 0.999},
    {"temperature": 1.3, "top_p": 0.6},
    {"temperature": 0.5, "top_k": 9, "top_p": 0.9},
    {"temperature": 3.0, "top_k": 3, "top_p": 0.5},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_what_is_drawn_from_is_the_formulas(settings):
    logits = (3 * np.random.default_rng(0).normal(size=(50, 40))).astype(np.float32)
    want = by_formula(logits, **settings)
    got = np.asarray(warp(jnp.asarray(logits), dataclasses.replace(DRAW, **settings)))
    np.testing.assert_array_equal(np.isinf(got), np.isinf(want))
    np.testing.assert_allclose(got, want, rtol=1e-6)
    assert np.isfinite(got).any(axis=1).all()


@pytest.mark.parametrize(
    ("top_p", "want"),
    # Exact in binary: 0.5 is reached by the first alone, and by no more; likewise 0.75.
    [
        (0.25, [2]),
        (0.5, [2]),
        (0.51, [0, 2]),
        (0.75, [0, 2]),
        (0.76, [0, 2, 4]),
        (0.875, [0, 2, 4]),
        (0.9, [0, 2, 3, 4]),
        (1.0, [0, 1, 2, 3, 4]),
    ],
)
def test_top_p_keeps_the_fewest_tokens_that_hold_it(top_p, want):
    assert kept(log(0.25, 0.03125, 0.5, 0.09375, 0.125), top_p=top_p) == want


def test_the_likeliest_token_always_stays():
    assert kept(log(0.1, 0.9), top_p=0.01) == [1]
    assert kept(log(0.1, 0.9), top_p=0.01, top_k=1) == [1]


def test_ties_at_the_border_stay_for_top_k_and_go_by_id_for_top_p():
    equal = log(0.25, 0.25, 0.25, 0.25)
    assert kept(equal, top_k=2) == [0, 1, 2, 3]
    assert kept(equal, top_p=0.5) == [0, 1]
    assert kept(equal, top_p=0.6) == [0, 1, 2]
    assert kept(log(0.125, 0.25, 0.5, 0.125), top_k=3) == [0, 1, 2, 3]
    assert kept(log(0.125, 0.25, 0.5, 0.125), top_k=2) == [1, 2]


def test_top_p_is_of_what_top_k_left_at_the_temperature():
    logits = log(0.5, 0.25, 0.125, 0.125)
    # Of all, 0.6 needs two; of the top two, 0.5 / 0.75 holds it alone.
    assert kept(logits, top_p=0.6) == [0, 1]
    assert kept(logits, top_k=2, top_p=0.6) == [0]
    # At temperature 1/2 probabilities go with their squares: 16 : 4 : 1 : 1.
    assert kept(logits, temperature=0.5, top_p=0.7) == [0]
    # At temperature 2 with their roots, 1 : 0.71 : 0.5 : 0.5: three hold 0.7.
    assert kept(logits, temperature=2.0, top_p=0.7) == [0, 1, 2]


def test_temperature_alone_divides_the_logits():
    logits = jnp.array([[1.0, -2.0, 0.5]])
    got = warp(logits, dataclasses.replace(DRAW, temperature=4.0))
    np.testing.assert_array_equal(got, [[0.25, -0.5, 0.125]])


@functools.cache
def model():
    """A small decoder."""
    lm = Decoder(decoder_config(vocab_size=12, num_layers=1, tie_embeddings=False))
    one = jnp.ones((1, 2), jnp.int32)
    return lm, init(lm, jnp.zeros((1, 2, lm.config.embed_dim)), one, one)


def draws(rows, **settings):
    """Continuations of one prompt, drawn once for every row number; and the first logits."""
    lm, params = model()
    tokens = jnp.array([[3, 5, 7]])
    x = lm.apply({"params": params}, tokens, method="embed")
    at = jnp.arange(3)[None]
    hidden = lm.apply({"params": params}, x, at, jnp.ones_like(at))
    logits = lm.apply({"params": params}, hidden[:, -1], method="logits")
    config = dataclasses.replace(DRAW, **{"stop_ids": (), **settings})
    many = jnp.broadcast_to(x, (rows, *x.shape[1:]))
    found = sample(lm, params, many, jnp.full(rows, 3), config, jnp.arange(rows))
    return found, logits


@pytest.mark.parametrize(
    "settings", [{"temperature": 0.5}, {"temperature": 2.0, "top_k": 5, "top_p": 0.8}], ids=str
)
def test_frequencies_are_those_of_the_warped_distribution(settings):
    rows = 4000
    found, logits = draws(rows, max_new_tokens=1, **settings)
    want = np.exp(by_formula(logits, **settings)[0])
    want /= want.sum()
    got = np.bincount(np.asarray(found.tokens[:, 0]), minlength=len(want)) / rows
    assert not got[want == 0].any()
    assert np.abs(got - want).max() < 5 * 0.5 / np.sqrt(rows)
    assert want.max() < 0.95, "else the frequencies say nothing"


def test_scores_are_log_probabilities_under_the_model_and_not_of_the_draw():
    found, logits = draws(64, max_new_tokens=1, temperature=0.5, top_k=3)
    tokens = np.asarray(found.tokens[:, 0])
    want = np.asarray(jax.nn.log_softmax(logits[0]))[tokens]
    np.testing.assert_allclose(found.scores, want, rtol=1e-5)
    assert len(set(tokens.tolist())) > 1


def test_lengths_count_up_to_the_end_and_padding_stands_behind_it():
    found, _ = draws(64, max_new_tokens=5, temperature=3.0, stop_ids=(2, 7), pad_id=11)
    tokens, lengths = np.asarray(found.tokens), np.asarray(found.lengths)
    for row, length in zip(tokens.tolist(), lengths.tolist(), strict=True):
        ends = [at + 1 for at, token in enumerate(row) if token in (2, 7)]
        assert length == min([*ends, 5])
        assert set(row[length:]) <= {11}
    assert set(lengths.tolist()) == {1, 2, 3, 4, 5}


def test_other_seeds_and_later_steps_draw_anew():
    first, _ = draws(64, max_new_tokens=4, seed=0)
    again, _ = draws(64, max_new_tokens=4, seed=0)
    other, _ = draws(64, max_new_tokens=4, seed=1)
    np.testing.assert_array_equal(first.tokens, again.tokens)
    assert (np.asarray(first.tokens) != np.asarray(other.tokens)).any(axis=1).mean() > 0.5
    # One key for all steps would repeat the row's luck: equal tokens wherever logits are alike.
    flat, _ = draws(256, max_new_tokens=4, temperature=1e4)
    tokens = np.asarray(flat.tokens)
    assert (tokens[:, 1:] == tokens[:, :-1]).mean() < 0.25
