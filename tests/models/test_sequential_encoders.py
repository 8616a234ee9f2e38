"""Encoders of sequences see what came before, in their own segment, and nothing else."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ilm_jax.errors import UserError
from ilm_jax.models.gru4rec import GRU4RecConfig
from ilm_jax.models.next_item import EncoderConfig
from ilm_jax.models.sasrec import SASRecConfig

ENCODERS = {
    "sasrec": SASRecConfig(12, 2, 16, 2, dropout=0.5),
    "gru4rec": GRU4RecConfig(12, 2, 16, dropout=0.5),
}
DRAW = np.random.default_rng(0)


@pytest.fixture(params=ENCODERS, scope="module")
def encode(request):
    config = ENCODERS[request.param]
    assert isinstance(config, EncoderConfig)
    module = config.build()
    x = jnp.asarray(DRAW.normal(size=(2, 12, config.embed_dim)), jnp.float32)
    place = jnp.tile(jnp.arange(12), (2, 1))
    params = nn.unbox(module.init(jax.random.key(0), x, place, place + 1))
    scaled = jax.tree.map(lambda leaf: leaf * (5 if leaf.ndim > 1 else 1), params)
    run = jax.jit(module.apply)

    def encode(x, positions=place, segments=place * 0 + 1):
        return np.asarray(run(scaled, x, positions, segments))

    encode.x, encode.place = x, place
    encode.dropped = lambda seed: module.apply(
        scaled, x, place, place * 0 + 1, False, rngs={"dropout": jax.random.key(seed)}
    )
    return encode


def test_a_later_item_changes_nothing_before_it(encode):
    before, other = encode(encode.x), encode(encode.x.at[:, 7].multiply(-1.0))
    np.testing.assert_array_equal(other[:, :7], before[:, :7])
    assert (np.abs(other[:, 7:] - before[:, 7:]).max(-1) > 1e-4).all()


def test_what_shares_the_row_and_padding_change_nothing(encode):
    """A sequence of five, alone, before another one, behind it, and before padding."""
    alone = encode(encode.x)[:, :5]
    segments = jnp.asarray([[1] * 5 + [2] * 7, [1] * 5 + [0] * 7])
    places = jnp.concatenate([jnp.arange(5), jnp.arange(7)])[None].repeat(2, 0)
    np.testing.assert_allclose(encode(encode.x, places, segments)[:, :5], alone, atol=2e-5)
    turned = jnp.concatenate([encode.x[:, 5:], encode.x[:, :5]], axis=1)
    places = jnp.concatenate([jnp.arange(7), jnp.arange(5)])[None].repeat(2, 0)
    behind = encode(turned, places, jnp.asarray([[1] * 7 + [2] * 5, [0] * 7 + [3] * 5]))
    np.testing.assert_allclose(behind[:, 7:], alone, atol=2e-5)
    assert np.isfinite(behind).all()


def test_the_order_of_what_came_before_counts(encode):
    swapped = encode.x.at[:, 3].set(encode.x[:, 4]).at[:, 4].set(encode.x[:, 3])
    assert np.abs(encode(swapped)[:, -1] - encode(encode.x)[:, -1]).max() > 1e-4


def test_dropout_drops_by_its_key(encode):
    one, two, three = (np.asarray(encode.dropped(seed)) for seed in (0, 0, 1))
    assert one.tobytes() == two.tobytes() != three.tobytes()


def test_sizes_that_cannot_be_are_refused():
    with pytest.raises(UserError, match="not divisible by num_heads=3"):
        SASRecConfig(embed_dim=64, num_heads=3)
    with pytest.raises(UserError, match="attention_backend"):
        SASRecConfig(attention_backend="fast")
    with pytest.raises(UserError, match="dropout=1.0"):
        GRU4RecConfig(dropout=1.0)
