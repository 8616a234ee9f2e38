"""Baselines in the Q-Former's place: an MLP and a soft prompt, of as many tokens."""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ilm_jax.errors import UserError
from ilm_jax.models.layers import Dense, DType, Types, make_param, normal_002
from ilm_jax.models.qformer import QFormer, QFormerConfig

TOLERANCE = 0.1


class MLPAdaptor(nn.Module):
    """Dense - ReLU - Dense from a vector to all its soft tokens, shared by items and users.

    CoLLM's mapping (Zhang et al. 2023, arXiv 2310.19488); its hidden width is ten times the
    vector's, ours is chosen by `matching_hidden`.

    Attributes:
      hidden_dim: width in between.
      num_queries: soft tokens per vector.
      lm_dim: the decoder's width.
    """

    hidden_dim: int
    num_queries: int
    lm_dim: int
    dtype: DType = "float32"
    param_dtype: DType = "float32"

    @nn.compact
    def __call__(self, vectors: Float[Array, "*batch cf"]) -> Float[Array, "*batch queries lm_dim"]:
        """Soft tokens of each vector."""
        types = Types(dtype=self.dtype, param_dtype=self.param_dtype)
        hidden = jax.nn.relu(
            Dense(self.hidden_dim, ("cf", "mlp"), True, name="up", **types)(vectors)
        )
        width = self.num_queries * self.lm_dim
        out = Dense(width, ("mlp", "embed"), True, name="down", **types)(hidden)
        return out.reshape(*vectors.shape[:-1], self.num_queries, self.lm_dim)


class SoftPrompt(nn.Module):
    """Trained vectors of the decoder's width (Lester et al. 2021, arXiv 2104.08691)."""

    num_queries: int
    lm_dim: int
    param_dtype: DType = "float32"

    @nn.compact
    def __call__(self) -> Float[Array, "queries lm_dim"]:
        """The table `embedding`, N(0, 0.02) where it does not start from data."""
        shape, axes = (self.num_queries, self.lm_dim), ("queries", None)
        return make_param(self, "embedding", normal_002, shape, axes, self.param_dtype)


@functools.cache
def count_reader_params(qformer: QFormerConfig, lm_dim: int) -> int:
    """Parameters of a Q-Former in stage 2 (no text branch) and its linear adaptor with bias."""
    vectors = jax.ShapeDtypeStruct((1, qformer.cf_dim), jnp.float32)
    leaves = jax.tree.leaves(jax.eval_shape(QFormer(qformer).init, jax.random.key(0), vectors))
    return sum(math.prod(leaf.shape) for leaf in leaves) + (qformer.embed_dim + 1) * lm_dim


def matching_hidden(qformer: QFormerConfig, lm_dim: int) -> int:
    """Hidden width that gives an MLPAdaptor as many parameters as a Q-Former and linear adaptor.

    Args:
      qformer: the Q-Former to match, leaves of stage 2 alone.
      lm_dim: the decoder's width.

    Raises:
      UserError: if no width comes within 10 % (soft tokens so wide that one hidden unit is more).
    """
    target = count_reader_params(qformer, lm_dim)
    width = qformer.num_queries * lm_dim
    per_unit = qformer.cf_dim + 1 + width
    hidden = max(1, round((target - width) / per_unit))
    count = hidden * per_unit + width
    if abs(count - target) > TOLERANCE * target:
        raise UserError(
            f"no MLPAdaptor with {qformer.num_queries} soft tokens of width {lm_dim} has within "
            f"10 % of the Q-Former's {target} parameters: make the Q-Former larger"
        )
    return hidden
