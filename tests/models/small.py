"""Small models that every test here shares, and their parameters as flat dicts."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from ilm_jax.models.decoder import DecoderConfig
from ilm_jax.models.qformer import QFormerConfig


def qformer_config(**changes: Any) -> QFormerConfig:
    """Four layers of width 32, three queries, vectors of width 6."""
    sizes = dict(
        cf_dim=6,
        vocab_size=40,
        num_layers=4,
        num_queries=3,
        embed_dim=32,
        num_heads=4,
        mlp_dim=48,
        max_text_length=10,
        projection_dim=8,
    )
    return QFormerConfig(**(sizes | changes))


def decoder_config(**changes: Any) -> DecoderConfig:
    """Two layers of width 32, four heads on two key heads."""
    sizes = dict(vocab_size=40, num_layers=2, embed_dim=32, num_heads=4, num_kv_heads=2, mlp_dim=48)
    return DecoderConfig(**(sizes | changes))


def init(module: nn.Module, *args: Any, **kwargs: Any) -> dict[str, Any]:
    """Random parameters in the module's shapes and dtypes, none of them at a special value.

    Drawn by NumPy: compiling a model's own initialisation would take longer than most tests.
    """
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), *args, **kwargs))
    rng = np.random.default_rng(0)

    def draw(path: Any, leaf: jax.ShapeDtypeStruct) -> jax.Array:
        around = 1.0 if path[-1].key == "scale" else 0.0
        values = around + 0.15 * rng.normal(size=leaf.shape)
        return jnp.asarray(values, leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, nn.unbox(shapes)["params"])


def flat(params: dict[str, Any]) -> dict[str, Any]:
    """{"a/b/c": array}."""
    return flatten_dict(params, sep="/")


def nested(params: dict[str, Any]) -> dict[str, Any]:
    """The inverse of `flat`."""
    return unflatten_dict(params, sep="/")
