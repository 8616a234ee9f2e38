"""Greedy decoding: the most probable next token, again and again, in one compiled function."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Int32

from ilm_jax.models.decoder import Decoder
from ilm_jax.models.t5 import T5


@functools.partial(jax.jit, static_argnames=("lm", "steps", "eos_id", "pad_id"))
def greedy(
    lm: Decoder | T5,
    params: dict,
    embeddings: Float[Array, "batch length embed"],
    lengths: Int[Array, " batch"],
    *,
    steps: int,
    eos_id: int,
    pad_id: int = 0,
) -> Int32[Array, "batch steps"]:
    """The likeliest continuation of every prompt, token by token.

    Args:
      lm: the language model, a decoder or an encoder-decoder.
      params: its parameters (the subtree "lm" of an item-language model).
      embeddings: prompts, from `lm.embed` or with soft tokens in between; right-padded.
      lengths: real length of each prompt, at least 1.
      steps: tokens to generate at most.
      eos_id: ends a continuation, and is part of it. pad_id: stands behind it.
    """

    def run(x: Array, positions: Array, real: Array, cache: Any) -> tuple[Array, Any]:
        outputs: Any = lm.apply({"params": params}, x, positions, real, cache)
        return outputs

    def choose(hidden: Float[Array, "batch 1 embed"]) -> Int32[Array, " batch"]:
        logits: Any = lm.apply({"params": params}, hidden, method="logits")
        return jnp.argmax(logits[:, 0], axis=-1).astype(jnp.int32)

    def step(state: tuple, i: Array) -> tuple[tuple, Array]:
        token, is_open, cache = state
        token = jnp.where(is_open, token, pad_id)
        is_open = is_open & (token != eos_id)
        words: Any = lm.apply({"params": params}, token[:, None], method="embed")
        real = is_open.astype(jnp.int32)[:, None]
        hidden, cache = run(words, (lengths + i)[:, None], real, cache)
        return (choose(hidden), is_open, cache), token

    batch, length = embeddings.shape[:2]
    positions = jnp.broadcast_to(jnp.arange(length), (batch, length))
    real = (positions < lengths[:, None]).astype(jnp.int32)
    hidden, cache = run(embeddings, positions, real, lm.init_cache(batch, length + steps))
    last = jnp.take_along_axis(hidden, (lengths - 1)[:, None, None], axis=1)
    state = choose(last), jnp.ones(batch, bool), cache
    return jax.lax.scan(step, state, jnp.arange(steps))[1].T
