"""Beam search over texts: Hugging Face's, in one compiled function (see pool.py)."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32, Int, Int32, PyTree

from ilm_jax.decoding.config import DecodingConfig
from ilm_jax.decoding.pool import Pool, add, is_done, take, top
from ilm_jax.decoding.sampling import Continuations
from ilm_jax.decoding.steps import LanguageModel, Reader


class _State(NamedTuple):
    """Beams of `length` tokens each; as in beam.py, with tokens in the place of nodes."""

    length: Int32[Array, ""] | int
    tokens: Int32[Array, "batch beams steps"]
    scores: Float32[Array, "batch beams"]
    path: Bool[Array, "batch beams entries"]
    pool: Pool
    done: Bool[Array, " batch"]
    cache: PyTree[Array]


@functools.partial(jax.jit, static_argnames=("lm", "config"))
def text_beams(
    lm: LanguageModel,
    params: PyTree[Array],
    embeddings: Float[Array, "batch length embed"],
    lengths: Int[Array, " batch"],
    config: DecodingConfig,
) -> Continuations:
    """The best `config.beams` continuations of every prompt, best first.

    Arguments as in `sampling.sample`. Returns tokens [batch, beams, steps], lengths and scores
    [batch, beams]; score -inf and length 0 where fewer were found.
    """
    reader, beams, steps = Reader(lm, params), config.beams, config.max_new_tokens
    batch = len(lengths)
    prompt = reader.prefill(embeddings, lengths, beams * (steps - 1))
    entries = prompt.seen.shape[1]

    def step(state: _State) -> _State:
        """Reads each beam's last token, then branches to the best continuations."""
        at = prompt.first + (state.length - 1) * beams + jnp.arange(beams)
        path = state.path | (jnp.arange(entries) == at[:, None])
        tokens = jax.lax.dynamic_index_in_dim(state.tokens, state.length - 1, 2, keepdims=False)
        positions = jnp.broadcast_to((prompt.begin + state.length - 1)[:, None], tokens.shape)
        alive = state.scores > -jnp.inf
        hidden, cache = reader.extend(tokens, positions, at, path, state.cache, alive)
        state = state._replace(path=path, cache=cache)
        return _branch(state, reader.log_probs(hidden), config)

    nothing = jnp.full((batch, beams), -jnp.inf)
    blank = jnp.full((batch, beams, steps), config.pad_id, jnp.int32)
    pool = Pool(nothing, (blank, jnp.zeros((batch, beams), jnp.int32)))
    state = _State(
        jnp.int32(0),
        blank[:, :1],
        jnp.zeros((batch, 1)),
        prompt.seen[:, None],
        pool,
        jnp.zeros(batch, bool),
        prompt.cache,
    )
    state = _branch(state, reader.log_probs(prompt.hidden[:, None]), config)
    end = jax.lax.while_loop(lambda state: ~jnp.all(state.done), step, state)
    texts, sizes = end.pool.what
    found = end.pool.scores > -jnp.inf
    texts = jnp.where(found[..., None], texts, config.pad_id)
    return Continuations(texts, jnp.where(found, sizes, 0), end.pool.scores)


def _branch(
    state: _State, log_probs: Float32[Array, "batch lanes vocab"], config: DecodingConfig
) -> _State:
    """The best texts one token longer; what ends goes into the pool."""
    batch, beams = state.scores.shape[0], config.beams
    length, steps = state.length + 1, config.max_new_tokens
    # As many of each beam as could be among the best, were all end tokens better.
    width = min(beams + len(config.stop_ids), log_probs.shape[-1])
    gained, tokens = jax.lax.top_k(log_probs, width)
    scores = (state.scores[..., None] + gained).reshape(batch, -1)
    tokens = tokens.reshape(batch, -1).astype(jnp.int32)
    ends = (tokens[..., None] == jnp.asarray(config.stop_ids, jnp.int32)).any(axis=-1)
    ends = ends | (length >= steps)

    def grown(index: Array) -> Array:
        """Texts of the chosen (beam, token) pairs."""
        texts = take(state.tokens, index // width)
        return texts.at[:, :, length - 1].set(take(tokens, index))

    best, index = top(scores, beams)
    finished = jnp.where(take(ends, index), best, -jnp.inf)
    sizes = jnp.full(index.shape, length, jnp.int32)
    what = (grown(index), sizes)
    pool = add(state.pool, finished, what, length, config.length_penalty, state.done)
    best, index = top(jnp.where(ends, -jnp.inf, scores), beams)
    done = state.done | is_done(
        pool, best, length, steps, config.length_penalty, config.early_stopping
    )
    path = take(state.path, index // width)
    return _State(length, grown(index), best, path, pool, done, state.cache)
