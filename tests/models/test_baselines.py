"""The MLP has as many parameters as the Q-Former and adaptor in whose place it stands."""

import jax
import jax.numpy as jnp
import pytest

from ilm_jax.errors import UserError
from ilm_jax.models.baselines import MLPAdaptor, count_reader_params, matching_hidden
from ilm_jax.models.ilm import ItemLanguageModel
from ilm_jax.models.readers import MLPReader, QFormerReader
from tests.models.small import qformer_config

SIZES = {
    "small": ({}, 32),
    "paper": (dict(cf_dim=256, embed_dim=768, mlp_dim=3072, num_layers=8, num_queries=8), 2048),
    "several item tokens": (dict(num_item_tokens=4, num_queries=16), 64),
    "unrolled": (dict(scan_layers=False), 32),
}


def count(module, *args, **kwargs):
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), *args, **kwargs))
    return sum(leaf.size for leaf in jax.tree.leaves(shapes))


class Reader(ItemLanguageModel):
    """Q-Former and adaptor without a decoder."""

    def __call__(self, vectors):
        return self.soft_tokens(vectors)


@pytest.mark.parametrize("name", SIZES)
def test_parameters_match_within_a_tenth(name):
    changes, width = SIZES[name]
    config = qformer_config(**changes)
    vectors = jnp.zeros((1, config.cf_dim))
    target = count(Reader(QFormerReader(config).build(width), None), vectors)
    assert target == count_reader_params(config, width)
    mlp = MLPAdaptor(matching_hidden(config, width), config.num_queries, width)
    assert abs(count(mlp, vectors) - target) <= 0.1 * target


def test_the_shape_is_that_of_the_queries():
    mlp = MLPAdaptor(16, 3, 32)
    out = jax.eval_shape(lambda: mlp.init_with_output(jax.random.key(0), jnp.zeros((2, 5, 6)))[0])
    assert out.shape == (2, 5, 3, 32)


def test_the_mlp_reads_directions_and_no_lengths():
    config = qformer_config()
    mlp = MLPReader(config).build(32)
    vectors = jax.random.normal(jax.random.key(1), (4, config.cf_dim))
    params = mlp.init(jax.random.key(0), vectors)
    popular, rare, absent = (mlp.apply(params, scale * vectors) for scale in (30.0, 0.03, 0.0))
    assert jnp.allclose(popular, rare, atol=1e-5)
    assert not jnp.allclose(popular[0], popular[1], atol=1e-2)
    assert jnp.array_equal(absent[0], absent[1])  # the biases' own, as before


def test_a_match_that_is_not_possible_is_said():
    with pytest.raises(UserError, match="within 10 %"):
        matching_hidden(qformer_config(num_queries=64), 4096)
