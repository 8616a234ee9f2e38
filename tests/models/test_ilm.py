"""Soft tokens stand where slots are; without slots nothing differs from the bare decoder."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ilm_jax.errors import UserError
from ilm_jax.models.decoder import Decoder
from ilm_jax.models.ilm import ItemLanguageModel, gather_vectors
from ilm_jax.models.readers import MLPSoftTokens, QFormerReader
from tests.models.small import decoder_config, flat, init, qformer_config

TOKENS = jax.random.randint(jax.random.key(3), (2, 8), 1, 40)
POSITIONS = jnp.broadcast_to(jnp.arange(8), (2, 8))
ONES = jnp.ones_like(TOKENS)
NO_SLOTS = jnp.full((2, 8), -1, jnp.int32)
# Row 0 mentions entity 1, then entity 0; row 1 mentions entity 0. Three queries each.
SLOT_ENTITY = jnp.array([[-1, 1, 1, 1, 0, 0, 0, -1], [-1, -1, -1, 0, 0, 0, -1, -1]])
SLOT_QUERY = jnp.array([[-1, 0, 1, 2, 0, 1, 2, -1], [-1, -1, -1, 0, 1, 2, -1, -1]])
TABLE = jax.random.normal(jax.random.key(4), (9, 6))
ENTITIES = jnp.array([[5, 2], [7, -1]])
VECTORS = gather_vectors(TABLE, ENTITIES)

CONFIG = qformer_config(num_layers=2)
LM = Decoder(decoder_config())
MODELS = {
    "qformer": ItemLanguageModel(QFormerReader(CONFIG).build(32), LM),
    "mlp": ItemLanguageModel(MLPSoftTokens(CONFIG, 16, 32), LM),
    "text": ItemLanguageModel(None, LM),
}


def make(name):
    model = MODELS[name]
    args = (TOKENS, POSITIONS, ONES, SLOT_ENTITY, SLOT_QUERY, VECTORS)
    return model, init(model, *args)


@functools.partial(jax.jit, static_argnames="model")
def embed(model, params, slot_entity, slot_query, vectors):
    args = (TOKENS, slot_entity, slot_query, vectors)
    return model.apply({"params": params}, *args, method="embed")


@functools.partial(jax.jit, static_argnames="model")
def logits(model, params, slot_entity, slot_query, vectors):
    bound = model.bind({"params": params})
    hidden = bound(TOKENS, POSITIONS, ONES, slot_entity, slot_query, vectors)
    return bound.logits(hidden)


@pytest.mark.parametrize(
    "name, tops", [("qformer", "adaptor lm qformer"), ("mlp", "adaptor lm"), ("text", "lm")]
)
def test_parameters_stand_under_their_names(name, tops):
    _, params = make(name)
    assert set(params) == set(tops.split())
    assert not any("text_" in path for path in flat(params))


@pytest.mark.parametrize("name", ["qformer", "mlp"])
def test_soft_tokens_replace_slots_and_nothing_else(name):
    model, params = make(name)
    x = embed(model, params, SLOT_ENTITY, SLOT_QUERY, VECTORS)
    words = model.apply({"params": params}, TOKENS, method=lambda m, t: m.lm.embed(t))
    soft = jax.jit(lambda v: model.apply({"params": params}, v, method="soft_tokens"))(VECTORS)
    assert soft.shape == (2, 2, 3, 32)
    for row in range(2):
        for t in range(8):
            entity, query = SLOT_ENTITY[row, t], SLOT_QUERY[row, t]
            expected = words[row, t] if entity < 0 else soft[row, entity, query]
            np.testing.assert_allclose(x[row, t], expected, atol=1e-6)
    again = model.apply(
        {"params": params}, TOKENS, SLOT_ENTITY, SLOT_QUERY, soft, method="interleave"
    )
    np.testing.assert_allclose(again, x, atol=1e-6)


@pytest.mark.parametrize("name", ["qformer", "mlp"])
def test_without_slots_logits_are_the_bare_decoders_bit_for_bit(name):
    model, params = make(name)
    with_slots = logits(model, params, SLOT_ENTITY, SLOT_QUERY, VECTORS)
    compiled = logits._cache_size()
    got = logits(model, params, NO_SLOTS, NO_SLOTS, VECTORS)
    assert logits._cache_size() == compiled
    bare = logits(MODELS["text"], {"lm": params["lm"]}, NO_SLOTS, NO_SLOTS, VECTORS)
    np.testing.assert_array_equal(got, bare)
    assert not np.array_equal(with_slots, bare)
    # Whatever stage 2 makes of the reader, even nonsense, words alone do not see it.
    broken = params | {"adaptor": jax.tree.map(lambda x: x * jnp.nan, params["adaptor"])}
    np.testing.assert_array_equal(logits(model, broken, NO_SLOTS, NO_SLOTS, VECTORS), bare)


def test_absent_entities_touch_neither_values_nor_gradients():
    model, params = make("qformer")
    np.testing.assert_array_equal(VECTORS[1, 1], 0)
    moved = VECTORS.at[1, 1].set(3.0)
    one = embed(model, params, SLOT_ENTITY, SLOT_QUERY, VECTORS)
    np.testing.assert_array_equal(one, embed(model, params, SLOT_ENTITY, SLOT_QUERY, moved))

    @jax.jit
    def grad(params, vectors):
        def loss(params, vectors):
            return (embed(model, params, SLOT_ENTITY, SLOT_QUERY, vectors) ** 2).sum()

        return jax.grad(loss, argnums=(0, 1))(params, vectors)

    grads, by_vector = grad(params, VECTORS)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))
    np.testing.assert_array_equal(by_vector[1, 1], 0)
    assert jnp.abs(by_vector[0]).max() > 0


def test_a_text_only_model_has_no_soft_tokens():
    model, params = make("text")
    with pytest.raises(UserError, match="reader is None"):
        model.apply({"params": params}, VECTORS, method="soft_tokens")
