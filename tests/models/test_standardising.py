"""A layer that starts from data: centred outputs of one scale that differ from item to item."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ilm_jax.errors import UserError
from ilm_jax.models.decoder import Decoder, DecoderConfig
from ilm_jax.models.ilm import token_rms
from ilm_jax.models.layers import Dense
from ilm_jax.models.standardising import Linear, common_share, inputs_of, standardised

ITEMS, POSITIONS, WIDTH, OUT = 50, 4, 24, 12
RMS = jnp.float32(0.1)


def inputs(positions=POSITIONS):
    """Mostly common to all items, otherwise at each position, of unlike scales; one is constant."""
    rng = np.random.default_rng(0)
    common = 5 * rng.normal(size=(1, positions, WIDTH))
    own = rng.normal(size=(ITEMS, positions, WIDTH)) * np.geomspace(0.01, 1, WIDTH)
    own[..., 3] = 0
    return jnp.asarray(common + own, jnp.float32)


def drawn(bias=True):
    kernel = jax.random.normal(jax.random.key(1), (WIDTH, OUT))
    return Linear(kernel, jnp.ones(OUT) if bias else None)


def outputs(x, layer):
    return np.asarray(x @ layer.kernel + (0 if layer.bias is None else layer.bias))


@pytest.mark.parametrize("positions", [1, POSITIONS])
def test_outputs_are_centred_and_have_the_scale(positions):
    x = inputs(positions)
    assert common_share(outputs(x, drawn())) > 0.9
    started = outputs(x, standardised(x, drawn(), RMS))
    np.testing.assert_allclose(np.sqrt(np.mean(started**2)), RMS, rtol=1e-4)
    np.testing.assert_allclose(started.mean((0, 1)), 0, atol=1e-4 * RMS * WIDTH)
    if positions == 1:
        assert common_share(started) < 1e-6 and started.std(0).min() > 0.05 * RMS


def test_what_tells_positions_apart_is_half_at_most():
    x = inputs()
    started = outputs(x, standardised(x, drawn(), RMS))
    assert started.mean(0).std(0).min() > 0.1 * RMS
    np.testing.assert_allclose(common_share(started), 0.5, rtol=0.2)
    # Where it is less it stays as it is: the map is the drawn one up to scales.
    little = x - 0.9999 * x.mean(0)
    layer = standardised(little, drawn(), RMS)
    spread = np.asarray(little - little.mean(0)).std((0, 1))
    varies = spread > 0.01 * np.sqrt(np.mean(spread**2))
    ratio = (np.asarray(layer.kernel) * spread[:, None] / np.asarray(drawn().kernel))[varies]
    np.testing.assert_allclose(ratio, ratio.mean(), rtol=1e-3)
    assert common_share(outputs(little, layer)) < 0.5


def test_without_a_bias_the_scale_alone_is_set():
    x = inputs()
    layer = standardised(x, drawn(bias=False), RMS)
    assert layer.bias is None
    np.testing.assert_allclose(np.sqrt(np.mean(outputs(x, layer) ** 2)), RMS, rtol=1e-4)


def test_every_input_counts_alike_whatever_its_scale():
    x = inputs(1)
    kernel = np.asarray(standardised(x, drawn(), RMS).kernel)
    spread = np.asarray(x).std((0, 1))
    part = np.sqrt(np.mean((kernel * spread[:, None]) ** 2, axis=1))
    varies = spread > 0.01 * np.sqrt(np.mean(spread**2))
    assert part[varies].max() < 4 * part[varies].min()
    assert np.isfinite(kernel).all(), "nor is one that never varies blown up"


class Two(nn.Module):
    @nn.compact
    def __call__(self, vectors, deterministic=True):
        hidden = jnp.stack([vectors, 2 * vectors], axis=-2)
        return Dense(OUT, (None, None), True, name="last")(hidden)


def test_inputs_are_those_of_the_layer_and_another_name_is_refused():
    vectors = jax.random.normal(jax.random.key(2), (5, 6))
    params = nn.unbox(Two().init(jax.random.key(0), vectors))["params"]
    read = inputs_of(Two(), {**params, "lm": {}}, "last", vectors)
    np.testing.assert_array_equal(read, jnp.stack([vectors, 2 * vectors], axis=1))
    with pytest.raises(UserError, match="calls the layer 'first' 0 times"):
        inputs_of(Two(), params, "first", vectors)


@pytest.mark.parametrize("scales", [False, True])
def test_words_are_measured_as_the_layers_read_them(scales, monkeypatch):
    monkeypatch.setattr("ilm_jax.models.ilm.TOKENS_AT_ONCE", 8)
    config = DecoderConfig(
        vocab_size=21,
        num_layers=1,
        embed_dim=16,
        num_heads=2,
        num_kv_heads=2,
        mlp_dim=8,
        scale_embeddings=scales,
    )
    table = np.random.default_rng(0).normal(size=(21, 16)).astype(np.float32)
    table[19:] = 0  # rows that fill it up
    params = {"embedding": {"embedding": jnp.asarray(table)}}
    found = token_rms(Decoder(config), params, 21)
    expected = np.sqrt(np.mean(table[:19] ** 2)) * (4 if scales else 1)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
