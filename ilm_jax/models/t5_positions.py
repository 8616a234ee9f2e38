"""Relative positions of the encoder-decoder: a bucket of each distance, a bias of each bucket."""

import functools
import math
from typing import TYPE_CHECKING

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ilm_jax.models.layers import make_param, normal_002

if TYPE_CHECKING:
    from ilm_jax.models.t5_layers import T5Config


@functools.cache
def distance_buckets(buckets: int, max_distance: int) -> tuple[int, ...]:
    """The bucket of each distance 0, ..., max_distance, which stands for all beyond.

    Half of the buckets hold one distance each; the others grow by a constant factor up to
    max_distance (Raffel et al. 2020, arXiv 1910.10683, section 2.1).
    """
    exact = buckets // 2
    distance = np.arange(max_distance + 1)
    growth = np.log(np.maximum(distance, exact) / exact) / math.log(max_distance / exact)
    # Bounds that are whole numbers must not fall into the bucket below for a rounding error.
    far = exact + np.floor(growth * (buckets - exact) + 1e-6).astype(int)
    return tuple(np.where(distance < exact, distance, np.minimum(far, buckets - 1)).tolist())


class PositionBias(nn.Module):
    """A learned number per head and bucket of relative positions, added to attention scores.

    Attributes:
      config: buckets and heads.
      bidirectional: keys after the query have half of the buckets; else they share bucket 0.
    """

    config: "T5Config"
    bidirectional: bool

    @nn.compact
    def __call__(
        self, query: Int[Array, "#batch length"], key: Int[Array, "#batch keys"]
    ) -> Float[Array, "#batch heads length keys"]:
        """The bias of every pair of positions."""
        cfg = self.config
        count = cfg.position_buckets // (2 if self.bidirectional else 1)
        ahead = key[:, None, :] - query[:, :, None]
        distance = jnp.abs(ahead) if self.bidirectional else jnp.maximum(-ahead, 0)
        table = jnp.asarray(distance_buckets(count, cfg.max_distance))
        bucket = table[jnp.minimum(distance, cfg.max_distance)]
        if self.bidirectional:
            bucket = bucket + count * (ahead > 0)
        shape, axes = (cfg.position_buckets, cfg.num_heads), (None, "heads")
        values = make_param(self, "embedding", normal_002, shape, axes, cfg.param_dtype)
        # Float32 whatever the model computes in: it goes into a float32 softmax.
        return jnp.moveaxis(jnp.asarray(values, jnp.float32)[bucket], -1, 1)
