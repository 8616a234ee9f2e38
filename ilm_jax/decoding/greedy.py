"""Greedy decoding: the most probable next token, again and again, a fixed number of times.

`sampling.sample` does the same and stops when all rows have ended.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Int32

from ilm_jax.decoding.config import DecodingConfig
from ilm_jax.decoding.sampling import advance, start
from ilm_jax.decoding.steps import LanguageModel


@functools.partial(jax.jit, static_argnames=("lm", "steps", "eos_id", "pad_id", "stop_ids"))
def greedy(
    lm: LanguageModel,
    params: dict,
    embeddings: Float[Array, "batch length embed"],
    lengths: Int[Array, " batch"],
    *,
    steps: int,
    eos_id: int,
    pad_id: int = 0,
    stop_ids: tuple[int, ...] = (),
) -> Int32[Array, "batch steps"]:
    """The likeliest continuation of every prompt, token by token.

    Args:
      lm: the language model, a decoder or an encoder-decoder.
      params: its parameters (the subtree "lm" of an item-language model).
      embeddings: prompts, from `lm.embed` or with soft tokens in between; right-padded.
      lengths: real length of each prompt, at least 1.
      steps: tokens to generate at most.
      eos_id: ends a continuation, and is part of it. pad_id: stands behind it.
      stop_ids: further ids that end it.
    """
    config = DecodingConfig(max_new_tokens=steps, stop_ids=(eos_id, *stop_ids), pad_id=pad_id)
    rows = jnp.zeros_like(lengths)  # nothing is drawn
    state = start(lm, params, embeddings, lengths, rows, config)
    after: Int32[Array, "batch others"] = advance(lm, params, state, rows, config, steps - 1)[1]
    return jnp.concatenate([state.token[:, None], after], axis=1)
