"""Small models that every test here shares, and their parameters as flat dicts."""

from typing import Any

import flax.linen as nn
import jax
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
    """Unboxed parameters, moved off their special initial values (zero biases, unit scales)."""
    params = nn.unbox(jax.jit(lambda key: module.init(key, *args, **kwargs))(jax.random.key(0)))
    leaves, tree = jax.tree.flatten(params["params"])
    keys = jax.random.split(jax.random.key(1), len(leaves))
    moved = [x + 0.1 * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys, strict=True)]
    return jax.tree.unflatten(tree, moved)


def flat(params: dict[str, Any]) -> dict[str, Any]:
    """{"a/b/c": array}."""
    return flatten_dict(params, sep="/")


def nested(params: dict[str, Any]) -> dict[str, Any]:
    """The inverse of `flat`."""
    return unflatten_dict(params, sep="/")
