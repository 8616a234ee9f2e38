"""The one Dense and the one Embed of every model here, norms, and sharding by logical names.

Leaf names are stable, since freezing patterns and checkpoints are written against them: `kernel`,
`bias`, `embedding`, `scale`, `lora_a`, `lora_b`, `kernel_int8`, `embedding_int8`.
"""

import math
import re
from collections.abc import Callable, Sequence
from typing import Any, TypedDict

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from ilm_jax.errors import UserError
from ilm_jax.models.products import add_bias, product

DType = DTypeLike  # such as "bfloat16"
Axes = tuple[str | None, ...]
Initializer = Callable[..., Array]

normal_002 = nn.initializers.normal(0.02)


def constrain(x: Array, *names: str | None) -> Array:
    """Constrains an activation's sharding by logical axis names; nothing without mesh and rules.

    As nn.with_logical_constraint, except that a dimension that its mesh axes do not divide stays
    whole: one row may be decoded on a mesh that was laid out for a thousand.
    """
    spec = mesh_spec(x.shape, names)
    return x if spec is None else jax.lax.with_sharding_constraint(x, spec)


def mesh_spec(
    shape: Sequence[int], names: Sequence[str | None]
) -> jax.sharding.PartitionSpec | None:
    """PartitionSpec of an activation on the current mesh; None without mesh or rules."""
    rules = nn.get_logical_axis_rules()
    mesh = jax.sharding.get_abstract_mesh()
    if not rules or mesh.empty:
        return None
    spec = nn.logical_to_mesh_axes(tuple(names), rules) or ()
    kept = []
    for size, entry in zip(shape, spec, strict=True):
        axes = (entry,) if isinstance(entry, str) else tuple(entry or ())
        shards = math.prod(mesh.shape[axis] for axis in axes)
        kept.append(entry if axes and size % shards == 0 else None)
    return jax.sharding.PartitionSpec(*kept)


def readout_rows(rows: int, vocab: int) -> str:
    """Logical name of so many rows that meet a table of so many words.

    Where words and rows are split over the same mesh axes one of the two is brought to the other:
    the rows ("readout") if all that share the words are fewer than the words, else the table.
    """
    words = mesh_spec((vocab,), ("vocab",)) or (None,)
    batch = nn.logical_to_mesh_axes(("batch",)) or (None,)
    shared = nn.logical_to_mesh_axes(("readout",)) or (None,)
    axes = [{x} if isinstance(x, str) else set(x or ()) for x in (*words, *batch, *shared)]
    if not axes[0] & axes[1]:
        return "batch"
    mesh = jax.sharding.get_abstract_mesh()
    parts = math.prod(mesh.shape[axis] for axis in axes[2])
    return "readout" if rows // parts < vocab else "batch"


def constrain_logits(logits: Float[Array, "*batch vocab"]) -> Float[Array, "*batch vocab"]:
    """Constrains logits of rows of tokens to stay with the words that they belong to."""
    if logits.ndim != 3:
        return constrain(logits, *(None,) * logits.ndim)
    batch, length, vocab = logits.shape
    return constrain(logits, readout_rows(batch * length, vocab), "length", "vocab")


class Types(TypedDict):
    """Keyword arguments that every layer takes."""

    dtype: DType
    param_dtype: DType


def make_param(
    module: nn.Module,
    name: str,
    init: Initializer,
    shape: Sequence[int],
    axes: Axes,
    dtype: DType = jnp.float32,
) -> Array:
    """A parameter with logical axis names, seen unboxed by the caller."""
    boxed: Any = nn.with_logical_partitioning(init, axes)
    return module.param(name, boxed, tuple(shape), jnp.dtype(dtype))


def _int8_init(key: jax.Array, shape: Sequence[int], dtype: DType) -> Array:
    """Random int8 weights about 127/3 in standard deviation; real ones come from `quantize`."""
    draws = jax.random.normal(key, shape) * (127 / 3)
    return jnp.clip(jnp.round(draws), -127, 127).astype(dtype)


class Dense(nn.Module):
    """y = x W + b, with optional low-rank update and optional int8 weights.

    LoRA (Hu et al. 2021, arXiv 2106.09685, section 4.1): W + (alpha / r) A B with A random and B
    zero, so that it starts as the identity. int8: W = kernel_int8 * scale, one scale per output.
    A, B and scale are float32 whatever the weights are: they train, or stand for many weights.

    Attributes:
      features: output width.
      axes: logical names of the kernel's (input, output) dimensions.
      use_bias: add b.
      dtype: of the computation. param_dtype: of the stored weights.
      kernel_init: initializer of W.
      lora_rank: r; 0 means none. lora_alpha: alpha.
      quantized: hold W as `kernel_int8` and `scale`.
    """

    features: int
    axes: tuple[str | None, str | None]
    use_bias: bool = False
    dtype: DType = "float32"
    param_dtype: DType = "float32"
    kernel_init: Initializer = nn.initializers.lecun_normal()
    lora_rank: int = 0
    lora_alpha: float = 16.0
    quantized: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "*batch in"]) -> Float[Array, "*batch out"]:
        """Applies the map to the last dimension."""
        dtype = jnp.dtype(self.dtype)
        shape = (x.shape[-1], self.features)
        x = x.astype(dtype)
        if self.quantized:
            kernel = make_param(self, "kernel_int8", _int8_init, shape, self.axes, jnp.int8)
            start = nn.initializers.constant(3 / (127 * math.sqrt(shape[0])))
            scale = make_param(self, "scale", start, shape[1:], self.axes[1:])
            y = jnp.dot(x, kernel.astype(dtype))
            y = (y.astype(jnp.float32) * scale).astype(dtype)
        else:
            kernel = make_param(
                self, "kernel", self.kernel_init, shape, self.axes, self.param_dtype
            )
            y = product(x, kernel.astype(dtype))
        if self.lora_rank:
            a, b = lora_params(self, shape, self.axes, self.lora_rank)
            update = jnp.dot(jnp.dot(x, a.astype(dtype)), b.astype(dtype))
            y = y + update * (self.lora_alpha / self.lora_rank)
        if self.use_bias:
            zeros = nn.initializers.zeros
            bias = make_param(self, "bias", zeros, shape[1:], self.axes[1:], self.param_dtype)
            y = add_bias(y, bias.astype(dtype))
        return y


PROJECTIONS = ("query", "key", "value", "out", "gate", "up", "down")


def check_lora_targets(patterns: Sequence[str]) -> None:
    """Raises UserError for a pattern that is the name of no projection."""
    for pattern in patterns:
        if not any(re.fullmatch(pattern, name) for name in PROJECTIONS):
            known = ", ".join(PROJECTIONS)
            raise UserError(f"lora_targets: {pattern!r} matches no projection: {known}")


def lora_rank_of(name: str, patterns: Sequence[str], rank: int) -> int:
    """`rank` if a pattern is the whole name of the projection, else 0."""
    return rank if any(re.fullmatch(pattern, name) for pattern in patterns) else 0


def lora_params(
    module: nn.Module, shape: tuple[int, int], axes: tuple, rank: int
) -> tuple[Array, Array]:
    """The leaves `lora_a` [in, rank] and `lora_b` [rank, out] (zero at first) of a matrix."""
    draw = nn.initializers.lecun_normal()
    a = make_param(module, "lora_a", draw, (shape[0], rank), (axes[0], None))
    zeros = nn.initializers.zeros
    return a, make_param(module, "lora_b", zeros, (rank, shape[1]), (None, axes[1]))


class Embed(nn.Module):
    """A table of vectors: rows by id, and logits against them (a tied output layer).

    Ids outside [0, num_embeddings) are clipped: the converters guarantee the range, and a lookup
    that fills with NaN would spread to every weight. Padding is masked by whoever reads the rows.

    Attributes:
      num_embeddings, features: shape of the table.
      axes: logical names of its two dimensions.
      dtype, param_dtype, embedding_init, lora_rank, lora_alpha, quantized: as in `Dense`; the int8
        scale is one per row.
    """

    num_embeddings: int
    features: int
    axes: tuple[str | None, str | None] = ("vocab", "embed")
    dtype: DType = "float32"
    param_dtype: DType = "float32"
    embedding_init: Initializer = normal_002
    lora_rank: int = 0
    lora_alpha: float = 16.0
    quantized: bool = False

    def setup(self) -> None:
        """Creates the table's leaves."""
        shape = (self.num_embeddings, self.features)
        if self.quantized:
            self.table = make_param(self, "embedding_int8", _int8_init, shape, self.axes, jnp.int8)
            start = nn.initializers.constant(0.02 * 3 / 127)
            self.scale = make_param(self, "scale", start, shape[:1], self.axes[:1])
        else:
            self.table = make_param(
                self, "embedding", self.embedding_init, shape, self.axes, self.param_dtype
            )
        if self.lora_rank:
            self.lora = lora_params(self, shape, self.axes, self.lora_rank)

    def __call__(self, ids: Int[Array, "*batch"]) -> Float[Array, "*batch features"]:
        """The rows of `ids`, in `dtype`."""
        dtype = jnp.dtype(self.dtype)
        name = readout_rows(ids.size, self.num_embeddings)
        if ids.ndim == 2:  # the ids too, or the table is brought to them
            ids = constrain(ids, name, "length")
        rows = jnp.take(self.table, ids, axis=0, mode="clip").astype(dtype)
        if ids.ndim == 2:
            rows = constrain(rows, name, "length", None)
        if self.quantized:
            rows = rows * jnp.take(self.scale, ids, axis=0, mode="clip").astype(dtype)[..., None]
        if self.lora_rank:
            a, b = (leaf.astype(dtype) for leaf in self.lora)
            update = jnp.dot(jnp.take(a, ids, axis=0, mode="clip"), b)
            rows = rows + update * (self.lora_alpha / self.lora_rank)
        return rows

    def whole(self) -> Float[Array, "vocab features"]:
        """The table that `attend` multiplies by, scaled and updated, in `dtype`."""
        dtype = jnp.dtype(self.dtype)
        table = self.table.astype(dtype)
        if self.quantized:
            table = table * self.scale.astype(dtype)[:, None]
        if self.lora_rank:
            a, b = (leaf.astype(dtype) for leaf in self.lora)
            table = table + jnp.dot(a, b) * (self.lora_alpha / self.lora_rank)
        return table

    def attend(
        self, x: Float[Array, "*batch features"], rows: Int[Array, " subset"] | None = None
    ) -> Float[Array, "*batch vocab"]:
        """Inner products with the rows of the table, accumulated and returned in float32.

        Args:
          x: vectors of width `features`.
          rows: only these ids, in this order, if given.
        """
        dtype = jnp.dtype(self.dtype)
        x = x.astype(dtype)
        if x.ndim == 3 and rows is None:
            name = readout_rows(x.shape[0] * x.shape[1], self.num_embeddings)
            x = constrain(x, name, "length", None)

        def pick(leaf: Array) -> Array:
            """The wanted rows of a leaf."""
            return leaf if rows is None else jnp.take(leaf, rows, axis=0, mode="clip")

        def product(left: Array, right: Array) -> Array:
            """Inner products with every row, accumulated in float32."""
            right = right.astype(dtype)
            return jnp.einsum("...d,vd->...v", left, right, preferred_element_type=jnp.float32)

        logits = product(x, pick(self.table))
        if self.quantized:
            logits = logits * pick(self.scale).astype(jnp.float32)
        if self.lora_rank:
            a, b = self.lora
            update = product(jnp.dot(x, b.T.astype(dtype)), pick(a))
            logits = logits + update * (self.lora_alpha / self.lora_rank)
        return logits


class RMSNorm(nn.Module):
    """x / rms(x) * scale, inside in float32 (Zhang and Sennrich 2019, arXiv 1910.07467).

    Attributes:
      offset: added to the stored scale; 1 in Gemma's checkpoints, which store scale - 1.
    """

    epsilon: float = 1e-6
    axes: tuple[str | None] = ("embed",)
    dtype: DType = "float32"
    param_dtype: DType = "float32"
    offset: float = 0.0

    @nn.compact
    def __call__(self, x: Float[Array, "*batch dim"]) -> Float[Array, "*batch dim"]:
        """Normalises the last dimension; returns `dtype`."""
        start = nn.initializers.constant(1 - self.offset)
        scale = make_param(self, "scale", start, x.shape[-1:], self.axes, self.param_dtype)
        x = x.astype(jnp.float32)
        x = x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + self.epsilon)
        scale = scale.astype(jnp.float32)
        if self.offset:
            scale = scale + self.offset
        return (x * scale).astype(jnp.dtype(self.dtype))


class LayerNorm(nn.Module):
    """(x - mean) / std * scale + bias, inside in float32 (Ba et al. 2016, arXiv 1607.06450)."""

    epsilon: float = 1e-6
    axes: tuple[str | None] = ("embed",)
    dtype: DType = "float32"
    param_dtype: DType = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "*batch dim"]) -> Float[Array, "*batch dim"]:
        """Normalises the last dimension; returns `dtype`."""
        ones, zeros = nn.initializers.ones, nn.initializers.zeros
        scale = make_param(self, "scale", ones, x.shape[-1:], self.axes, self.param_dtype)
        bias = make_param(self, "bias", zeros, x.shape[-1:], self.axes, self.param_dtype)
        x = x.astype(jnp.float32)
        x = x - jnp.mean(x, axis=-1, keepdims=True)
        x = x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + self.epsilon)
        x = x * scale.astype(jnp.float32) + bias.astype(jnp.float32)
        return x.astype(jnp.dtype(self.dtype))


def unit(x: Float[Array, "*batch dim"]) -> Float[Array, "*batch dim"]:
    """x / |x| in float32; the zero vector stays zero, with a finite gradient."""
    x = x.astype(jnp.float32)
    return x * jax.lax.rsqrt(jnp.sum(x * x, axis=-1, keepdims=True) + 1e-12)
