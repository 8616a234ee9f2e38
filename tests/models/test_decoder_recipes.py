"""The recipes of published decoders have the published number of parameters, and their options."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from ilm_jax.models.decoder import Decoder, DecoderConfig, RopeScaling
from ilm_jax.runs.gin_config import build

# Of the published files, a tied table counted once.
PUBLISHED = {
    "gemma2_2b": 2_614_341_888,
    "gemma2_9b": 9_241_705_984,
    "gemma2_27b": 27_227_128_320,
    "gemma3_1b": 999_885_952,
    "llama2_7b": 6_738_415_616,
    "llama3_8b": 8_030_261_248,
    "llama3_1_8b": 8_030_261_248,
    "qwen2_5_1_5b": 1_543_714_304,
    "qwen3_1_7b": 1_720_574_976,
    "mistral_7b": 7_241_732_096,
    "smollm2_135m": 134_515_008,
}


def recipe(name):
    return build(DecoderConfig, [f"models/{name}.gin"], [])


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_are_as_many_as_published(name):
    config = recipe(name)
    at = jnp.ones((1, 2), jnp.int32)
    x = jnp.zeros((1, 2, config.embed_dim))
    shapes = jax.eval_shape(Decoder(config).init, jax.random.key(0), x, at, at)
    assert sum(leaf.size for leaf in jax.tree.leaves(nn.unbox(shapes))) == PUBLISHED[name]


def test_a_recipe_may_add_to_another():
    scaling = RopeScaling("llama3", 8.0, 1.0, 4.0, 8192)
    assert recipe("llama3_1_8b").rope_scaling == scaling
    assert recipe("llama3_8b").rope_scaling is None


def test_layers_fill_the_scan_of_their_pattern():
    config = recipe("gemma3_1b")
    assert (config.period, config.repetitions, list(config.single_layers)) == (6, 4, [24, 25])
    assert [config.kind(i) for i in (4, 5, 23, 24)] == ["local", "global", "global", "local"]
