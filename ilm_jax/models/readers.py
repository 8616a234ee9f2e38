"""Readers turn vectors of items and users into the soft tokens that a language model reads.

A reader is a configuration, a dataclass, that builds its module; the names of the module's parts
are the top keys of its parameters. One of your own needs no change here: a class that answers
`Reader`, bound in a recipe (`language.LanguageModelling.reader = @my_reader.MyReader()`).
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol, Self, runtime_checkable

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict
from jaxtyping import Array, Float, Float32, PyTree

from ilm_jax.checks import Dataclass, check
from ilm_jax.models.baselines import MLPAdaptor, SoftPrompt, matching_hidden
from ilm_jax.models.layers import Dense, DType
from ilm_jax.models.qformer import QFormer, QFormerConfig
from ilm_jax.models.standardising import Linear, inputs_of, standardised


@runtime_checkable
class Reader(Protocol):
    """The configuration of a reader; subclass it to answer only what differs from the defaults."""

    @property
    def num_queries(self) -> int:
        """Soft tokens per vector."""

    @property
    def cf_dim(self) -> int:
        """Width of the vectors; 0: the embedding table's."""

    @property
    def configs(self) -> Mapping[str, Dataclass]:
        """Configurations of its parts by top key, as checkpoints record and compare them."""
        return {}

    @property
    def output_layer(self) -> str:
        """Path of the linear layer that gives the soft tokens, such as "adaptor/down".

        Its parameters are `kernel` and, if it has one, `bias`. A run that begins sets them from
        the items' vectors (`data_start`). "": there is none, and the soft tokens start as drawn.
        """
        return ""

    def with_configs(self, configs: Mapping[str, Any]) -> Self:
        """The same reader with these in the place of its `configs`."""
        return self

    def with_sizes(self, *, cf_dim: int, vocab_size: int) -> Self:
        """The same reader for a table's width and a language model's vocabulary."""
        return dataclasses.replace(self, cf_dim=cf_dim)  # type: ignore[type-var]

    def build(self, lm_dim: int) -> nn.Module:
        """The module: called with (vectors [..., cf], deterministic), it gives soft tokens
        [..., num_queries, lm_dim]. It makes its parts itself; their names are top keys of the
        parameters, of which `lm` is the language model's.
        """

    def data_start(
        self,
        params: PyTree[Array],
        vectors: Float[Array, "items cf"],
        rms: Float[Array, ""],
        lm_dim: int,
    ) -> dict[str, jax.Array]:
        """Leaves that take the place of drawn ones, by path, so that soft tokens start as words.

        Traced. Here the output layer's, so that its outputs are standardised over the items.

        Args:
          params: nested, as drawn or restored.
          vectors: of training items.
          rms: of the entries of the language model's token vectors.
          lm_dim: the language model's width.
        """
        if not self.output_layer:
            return {}
        flat = flatten_dict(params, sep="/")
        kernel, bias = (f"{self.output_layer}/{name}" for name in ("kernel", "bias"))
        inputs = inputs_of(self.build(lm_dim), params, self.output_layer, vectors)
        started = standardised(inputs, Linear(flat[kernel], flat.get(bias)), rms)
        return {kernel: started.kernel} | ({} if started.bias is None else {bias: started.bias})


class QFormerSoftTokens(nn.Module):
    """A Q-Former, and a linear layer to the language model's width."""

    config: QFormerConfig
    lm_dim: int

    def setup(self) -> None:
        """Names the parts."""
        self.qformer = QFormer(self.config)
        self.adaptor = Dense(self.lm_dim, ("embed", None), use_bias=True, **self.config.types)

    def __call__(
        self, vectors: Float[Array, "*batch cf"], deterministic: bool = True
    ) -> Float[Array, "*batch queries lm_dim"]:
        """Soft tokens of each vector."""
        return self.adaptor(self.qformer(vectors, deterministic))


@dataclasses.dataclass(frozen=True)
class _SizedByQFormer(Reader):
    """What readers share whose sizes are those of a Q-Former."""

    qformer: QFormerConfig

    def __post_init__(self) -> None:
        check(self)

    @property
    def num_queries(self) -> int:
        """The Q-Former's."""
        return self.qformer.num_queries

    @property
    def cf_dim(self) -> int:
        """The Q-Former's."""
        return self.qformer.cf_dim

    @property
    def configs(self) -> Mapping[str, Dataclass]:
        """The Q-Former's."""
        return {"qformer": self.qformer}

    def with_configs(self, configs: Mapping[str, Any]) -> Self:
        """See `Reader.with_configs`."""
        return dataclasses.replace(self, **configs)

    def with_sizes(self, *, cf_dim: int, vocab_size: int) -> Self:
        """See `Reader.with_sizes`."""
        # Its text branch, hence its vocabulary, is stage 1's alone.
        words = self.qformer.vocab_size or vocab_size
        sized = dataclasses.replace(self.qformer, cf_dim=cf_dim, vocab_size=words)
        return dataclasses.replace(self, qformer=sized)


@dataclasses.dataclass(frozen=True)
class QFormerReader(_SizedByQFormer):
    """ILM's reader (Yang et al. 2024): parameters under `qformer` and `adaptor`.

    Attributes:
      qformer: sizes; stage 2 has no use for its text branch.
    """

    output_layer = "adaptor"

    def build(self, lm_dim: int) -> nn.Module:
        """See `Reader.build`."""
        return QFormerSoftTokens(self.qformer, lm_dim)


def unit_rms(vectors: Float[Array, "*batch cf"]) -> Float32[Array, "*batch cf"]:
    """The vectors with entries of mean square 1; absent ones, zeros, stay so."""
    vectors = vectors.astype(jnp.float32)
    return vectors * jax.lax.rsqrt(jnp.mean(jnp.square(vectors), -1, keepdims=True) + 1e-12)


class MLPSoftTokens(nn.Module):
    """An MLP of a hidden width that reads the vector's direction; the rest is as in a Q-Former.

    The length of a collaborative-filtering vector is first of all its popularity, and spans two
    orders of magnitude: unnormalised, the rare items' soft tokens would be hardly more than the
    bias. A Q-Former's layer norm takes the length out too.
    """

    config: QFormerConfig
    hidden_dim: int
    lm_dim: int

    def setup(self) -> None:
        """Names the part."""
        queries, types = self.config.num_queries, self.config.types
        self.adaptor = MLPAdaptor(self.hidden_dim, queries, self.lm_dim, **types)

    def __call__(
        self, vectors: Float[Array, "*batch cf"], deterministic: bool = True
    ) -> Float[Array, "*batch queries lm_dim"]:
        """Soft tokens of each vector."""
        return self.adaptor(unit_rms(vectors))


@dataclasses.dataclass(frozen=True)
class MLPReader(_SizedByQFormer):
    """CoLLM's MLP (see baselines.py) in a Q-Former's place: parameters under `adaptor`.

    Attributes:
      qformer: the Q-Former in whose place it stands: it has as many soft tokens, and as many
        parameters as that and its linear layer to within 10 %.
    """

    output_layer = "adaptor/down"

    def build(self, lm_dim: int) -> nn.Module:
        """See `Reader.build`."""
        return MLPSoftTokens(self.qformer, matching_hidden(self.qformer, lm_dim), lm_dim)


class PromptSoftTokens(nn.Module):
    """As many soft tokens, the same for every vector."""

    num_queries: int
    lm_dim: int
    param_dtype: DType = "float32"

    def setup(self) -> None:
        """Names the part."""
        self.prompt = SoftPrompt(self.num_queries, self.lm_dim, self.param_dtype)

    def __call__(
        self, vectors: Float[Array, "*batch cf"], deterministic: bool = True
    ) -> Float[Array, "*batch queries lm_dim"]:
        """The prompt, for each vector."""
        tokens = self.prompt()
        return jnp.broadcast_to(tokens, (*vectors.shape[:-1], *tokens.shape))


@dataclasses.dataclass(frozen=True)
class PromptReader(_SizedByQFormer):
    """A trained soft prompt (Lester et al. 2021, arXiv 2104.08691): parameters under `prompt`.

    It knows nothing of the item: what a frozen language model gains by soft tokens that tell it
    the task and the texts' style alone. So it is the floor of a comparison of readers.

    Attributes:
      qformer: the Q-Former in whose place it stands: it has as many soft tokens.
    """

    def build(self, lm_dim: int) -> nn.Module:
        """See `Reader.build`."""
        return PromptSoftTokens(self.num_queries, lm_dim, self.qformer.param_dtype)

    def data_start(
        self,
        params: PyTree[Array],
        vectors: Float[Array, "items cf"],
        rms: Float[Array, ""],
        lm_dim: int,
    ) -> dict[str, jax.Array]:
        """The drawn prompt at the token vectors' scale; see `Reader.data_start`."""
        drawn = params["prompt"]["embedding"]
        own = jnp.sqrt(jnp.mean(jnp.square(drawn.astype(jnp.float32))))
        return {"prompt/embedding": (drawn * (rms / own)).astype(drawn.dtype)}
