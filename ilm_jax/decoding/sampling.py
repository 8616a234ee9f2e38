"""Continuations token by token, the likeliest or drawn, in one compiled function."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int, Int32, PyTree

from ilm_jax.decoding.config import DecodingConfig
from ilm_jax.decoding.steps import LanguageModel, Reader


class Continuations(NamedTuple):
    """Generated continuations.

    Attributes:
      tokens: the end token included, `pad_id` behind it.
      lengths: number of tokens before the padding.
      scores: sum of the tokens' log-probabilities under the model (whatever they were drawn from);
        of beams, divided by length ** length_penalty.
    """

    tokens: Int32[Array | np.ndarray, "*batch steps"]
    lengths: Int32[Array | np.ndarray, "*batch"]
    scores: Float32[Array | np.ndarray, "*batch"]


def warp(
    logits: Float32[Array, "*batch vocab"], config: DecodingConfig
) -> Float32[Array, "*batch vocab"]:
    """Logits to draw from: temperature, then the top k, then the top p of what is left.

    -inf where nothing is drawn. Of equal logits at the border of top_k all stay; at that of top_p
    the smaller ids.
    """
    logits = logits / config.temperature
    vocab = logits.shape[-1]
    if 0 < config.top_k < vocab:
        least = jax.lax.top_k(logits, config.top_k)[0][..., -1:]
        logits = jnp.where(logits < least, -jnp.inf, logits)
    if config.top_p < 1:
        order = jnp.argsort(-logits, axis=-1)
        ranked = jnp.take_along_axis(jax.nn.softmax(logits), order, axis=-1)
        # A token stays if those before it do not hold the probability yet, so the first one does.
        before = jnp.cumsum(ranked, axis=-1) - ranked
        stays = jnp.take_along_axis(before < config.top_p, jnp.argsort(order, axis=-1), axis=-1)
        logits = jnp.where(stays, logits, -jnp.inf)
    return logits


class Writing(NamedTuple):
    """Continuations on their way.

    Attributes:
      step: tokens chosen so far, the same for all rows.
      token: chosen last, and not read yet; padding in rows that had ended before.
      is_open: rows that go on behind it.
      score: log-probability of the row's tokens.
      cache, begin, seen: the prompts and what followed, see `Prefilled`.
    """

    step: Int32[Array, ""]
    token: Int32[Array, " batch"]
    is_open: Bool[Array, " batch"]
    score: Float32[Array, " batch"]
    cache: PyTree[Array]
    begin: Int[Array, " batch"]
    seen: Bool[Array, "batch entries"]


@functools.partial(jax.jit, static_argnames=("lm", "config"))
def start(
    lm: LanguageModel,
    params: PyTree[Array],
    embeddings: Float[Array, "batch length embed"],
    lengths: Int[Array, " batch"],
    rows: Int[Array, " batch"],
    config: DecodingConfig,
) -> Writing:
    """Reads right-padded prompts and chooses their first tokens (arguments as in `sample`)."""
    reader = Reader(lm, params)
    prompt = reader.prefill(embeddings, lengths, config.max_new_tokens - 1)
    zero = jnp.zeros(len(lengths), jnp.int32)
    state = Writing(
        jnp.int32(0),
        zero,
        zero == 0,
        jnp.zeros(len(lengths)),
        prompt.cache,
        prompt.begin,
        prompt.seen,
    )
    return _choose(state, reader.logits(prompt.hidden), rows, config)


@functools.partial(jax.jit, static_argnames=("lm", "config", "steps"))
def advance(
    lm: LanguageModel,
    params: PyTree[Array],
    state: Writing,
    rows: Array,
    config: DecodingConfig,
    steps: int,
) -> tuple[Writing, Int32[Array, "batch steps"]]:
    """(the state after `steps` more tokens, these tokens), for texts that appear as written.

    There are `config.max_new_tokens` in all, of which the first is `start`'s; padding follows.
    """
    reader = Reader(lm, params)

    def step(state: Writing, _: None) -> tuple[Writing, Array]:
        """Writes one token per open row."""
        state = _read(reader, state, rows, config)
        return state, state.token

    state, tokens = jax.lax.scan(step, state, None, steps)
    return state, tokens.T


@functools.partial(jax.jit, static_argnames=("lm", "config"))
def sample(
    lm: LanguageModel,
    params: PyTree[Array],
    embeddings: Float[Array, "batch length embed"],
    lengths: Int[Array, " batch"],
    config: DecodingConfig,
    rows: Int[Array, " batch"] | None = None,
) -> Continuations:
    """One continuation of every prompt, greedy or drawn as `config` says.

    Args:
      lm: the language model, a decoder or an encoder-decoder.
      params: its parameters (the subtree "lm" of an item-language model).
      embeddings: prompts, from `lm.embed` or with soft tokens in between; right-padded.
      lengths: real length of each prompt, at least 1.
      config: settings; its beams are of no effect here.
      rows: a number for each row that its draws depend on, beside the seed; 0, 1, … if None.
    """
    rows = jnp.arange(len(lengths)) if rows is None else rows
    reader = Reader(lm, params)
    state = start(lm, params, embeddings, lengths, rows, config)
    tokens = jnp.full((len(lengths), config.max_new_tokens), config.pad_id, jnp.int32)
    tokens = tokens.at[:, 0].set(state.token)

    def step(loop: tuple[Writing, Array, Array]) -> tuple[Writing, Array, Array]:
        """Writes one token per open row into its column, and counts it."""
        state, tokens, count = loop
        count, place = count + state.is_open, state.step
        state = _read(reader, state, rows, config)
        tokens = jax.lax.dynamic_update_index_in_dim(tokens, state.token, place, 1)
        return state, tokens, count

    loop = (state, tokens, jnp.ones(len(lengths), jnp.int32))
    state, tokens, count = jax.lax.while_loop(lambda loop: jnp.any(loop[0].is_open), step, loop)
    return Continuations(tokens, count, state.score)


def _read(reader: Reader, state: Writing, rows: Array, config: DecodingConfig) -> Writing:
    """Reads the token that was chosen last and chooses the next."""
    entries = state.seen.shape[1] - config.max_new_tokens + state.step + jnp.arange(1)
    seen = state.seen | (jnp.arange(state.seen.shape[1]) == entries)
    positions = (state.begin + state.step - 1)[:, None]
    hidden, cache = reader.extend(
        state.token[:, None], positions, entries, seen[:, None], state.cache, state.is_open[:, None]
    )
    return _choose(
        state._replace(seen=seen, cache=cache), reader.logits(hidden[:, 0]), rows, config
    )


def _choose(
    state: Writing, logits: Float32[Array, "batch vocab"], rows: Array, config: DecodingConfig
) -> Writing:
    """Chooses the next tokens of the open rows."""
    if config.sample:
        seed = jax.random.fold_in(jax.random.key(config.seed), state.step)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(seed, rows)
        token = jax.vmap(jax.random.categorical)(keys, warp(logits, config))
    else:
        token = jnp.argmax(logits, axis=-1)
    gained = jnp.take_along_axis(jax.nn.log_softmax(logits), token[:, None], axis=-1)[:, 0]
    token = jnp.where(state.is_open, token, config.pad_id).astype(jnp.int32)
    ends = (token[:, None] == jnp.asarray(config.stop_ids, jnp.int32)).any(axis=1)
    return state._replace(
        step=state.step + 1,
        token=token,
        is_open=state.is_open & ~ends & (state.step + 1 < config.max_new_tokens),
        score=state.score + jnp.where(state.is_open, gained, 0),
    )
