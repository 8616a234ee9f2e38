"""Causal attention by JAX's splash kernel for TPU (Pallas), on one device or on shards of a mesh.

The kernel walks over blocks of keys with a running softmax (as Dao et al. 2022, arXiv 2205.14135),
skips blocks that causality or the window hide, and so holds no [length, length] scores.
"""

import math

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.splash_attention import (
    splash_attention_kernel as kernels,
)
from jax.experimental.pallas.ops.tpu.splash_attention import (
    splash_attention_mask as masks,
)
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Int

from ilm_jax.errors import UserError
from ilm_jax.models.layers import mesh_spec
from ilm_jax.models.platforms import platform as platform

# Width of a TPU's vector registers: blocks and heads are multiples of it.
LANES = 128
# Larger blocks need more of the chip's fast memory than its default limit grants.
LARGEST_BLOCK = 512


def why_not(query: Float[Array, "batch length heads dim"], key: Array) -> str | None:
    """Why the kernel cannot take arrays of these shapes; None if it can."""
    length = query.shape[1]
    if key.shape[1] != length:
        return f"{key.shape[1]} keys for {length} queries: it is for a row that looks at itself"
    if length % LANES:
        return f"length {length} is not a multiple of {LANES}"
    return None


def attention(
    query: Float[Array, "batch length heads dim"],
    key: Float[Array, "batch length kv_heads dim"],
    value: Float[Array, "batch length kv_heads dim"],
    segment_ids: Int[Array, "batch length"],
    window: int | None = None,
    scale: float | None = None,
    softcap: float | None = None,
    *,
    interpret: bool = False,
) -> Float[Array, "batch length heads dim"]:
    """As `attention.causal_attention`, which see.

    Rows and heads are split over the mesh as the logical rules say, the length is whole.

    Args:
      interpret: run the kernel step by step on any device, for tests.

    Raises:
      UserError: if the kernel cannot take the shape, with the reason.
    """
    reason = why_not(query, key)
    if reason:
        raise UserError(f'attention backend "splash": {reason}; use "xla", or "auto" to fall back')
    dim = query.shape[-1]
    scale = dim**-0.5 if scale is None else scale
    query = (query.astype(jnp.float32) * scale).astype(query.dtype)

    def run(q: Array, k: Array, v: Array, segments: Array) -> Array:
        """The kernel on one device's share of rows and heads."""
        return _kernel(q, k, v, segments, window, softcap, interpret)

    spec = mesh_spec(query.shape, ("batch", None, "heads", None))
    if spec is not None:
        shards = _shards(spec[2])
        if key.shape[2] % shards:
            # Fewer key heads than shards: every query head gets a copy of its own.
            repeats = query.shape[2] // key.shape[2]
            key, value = (jnp.repeat(x, repeats, axis=2) for x in (key, value))
        # Replication of the kernel's outputs cannot be inferred.
        run = jax.shard_map(
            run,
            in_specs=(spec, spec, spec, PartitionSpec(spec[0], None)),
            out_specs=spec,
            check_vma=False,
        )
    return run(query, key, value, segment_ids)


def _kernel(
    query: Array,
    key: Array,
    value: Array,
    segment_ids: Array,
    window: int | None,
    softcap: float | None,
    interpret: bool,
) -> Array:
    """The kernel on one device's rows and heads; the scale is in the query."""
    length, heads, dim = query.shape[1:]
    # Zeros change no inner product, and their columns of the result are cut off.
    room = ((0, 0), (0, 0), (0, 0), (0, -dim % LANES))
    query, key, value = (
        jnp.pad(x, room).transpose(0, 2, 1, 3) if dim % LANES else x.transpose(0, 2, 1, 3)
        for x in (query, key, value)
    )
    shape = (length, length)
    mask = masks.CausalMask(shape) if window is None else masks.LocalMask(shape, (window - 1, 0), 0)
    block = next(size for size in (LARGEST_BLOCK, 384, 256, LANES) if length % size == 0)
    call = kernels.make_splash_mha(
        masks.MultiHeadMask([mask] * heads),
        block_sizes=_blocks(block),
        head_shards=1,
        q_seq_shards=1,
        attn_logits_soft_cap=softcap,
        interpret=interpret,
    )
    segments = kernels.SegmentIds(segment_ids, segment_ids)
    out = jax.vmap(call)(query, key, value, segments)
    return out.transpose(0, 2, 1, 3)[..., :dim]


def _blocks(size: int) -> kernels.BlockSizes:
    """The same block everywhere."""
    return kernels.BlockSizes(
        block_q=size,
        block_kv=size,
        block_kv_compute=size,
        block_q_dkv=size,
        block_kv_dkv=size,
        block_kv_dkv_compute=size,
        block_q_dq=size,
        block_kv_dq=size,
    )


def _shards(entry: str | tuple[str, ...] | None) -> int:
    """Into how many parts an entry of a PartitionSpec splits its dimension."""
    names = (entry,) if isinstance(entry, str) else tuple(entry or ())
    mesh = jax.sharding.get_abstract_mesh()
    return math.prod(mesh.shape[name] for name in names)
