"""Beam search over the items of a trie: prompt, steps and masks in one compiled function.

The score of an item is the sum of the decoder's log-probabilities (over the whole vocabulary) of
its tokens after the prompt, so it is log p(item's tokens | prompt). With as many beams as items
nothing is pruned and the ranking is that of exhaustive scoring.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32, Int, Int32

from ilm_jax.decoding.trie import ROOT, Trie
from ilm_jax.errors import UserError
from ilm_jax.models.decoder import Decoder
from ilm_jax.models.t5 import T5


def beam_search(
    decoder: Decoder | T5,
    params: dict,
    trie: Trie,
    embeddings: Float[Array, "batch length embed"],
    lengths: Int[Array, " batch"],
    beams: int,
) -> tuple[Int32[Array, "batch beams"], Float32[Array, "batch beams"]]:
    """The best `beams` items for every prompt, best first.

    A beam that has reached its item stays with its score until all have. Equal scores keep the
    order of the beams. The cache holds length + beams * (trie.depth - 1) entries per prompt: the
    beams of a prompt share its part of it, and none is ever moved (see `_Beams.path`).

    Args:
      decoder: the language model, a decoder or an encoder-decoder.
      params: its parameters (the subtree "lm" of an item-language model).
      trie: of the items' token sequences.
      embeddings: prompts, from `decoder.embed` or with soft tokens in between; right-padded.
      lengths: real length of each prompt, at least 1.
      beams: number of items to return, at most the number of items.

    Returns:
      (item rows, log-probabilities).

    Raises:
      UserError: if there are fewer items than beams, or no beam.
    """
    if not 1 <= beams <= trie.num_items:
        raise UserError(f"beams={beams}: give a number from 1 to {trie.num_items}, all items")
    return _search(decoder, params, trie, embeddings, lengths, beams)


class _Beams(NamedTuple):
    """State of the search after `depth` tokens.

    Attributes:
      depth: number of tokens chosen, the same for all unfinished beams.
      nodes: where each beam stands in the trie.
      scores: log-probability of its tokens; -inf for a beam not yet in use.
      path: True at the cache entries that hold its tokens; its line of ancestors, so that a
        beam which branches leaves keys and values where they are.
      cache: of keys and values, one row per prompt.
    """

    depth: Int32[Array, ""]
    nodes: Int32[Array, "batch beams"]
    scores: Float32[Array, "batch beams"]
    path: Bool[Array, "batch beams entries"]
    cache: Any


@functools.partial(jax.jit, static_argnames=("decoder", "beams"))
def _search(
    decoder: Decoder | T5, params: dict, trie: Trie, embeddings: Array, lengths: Array, beams: int
) -> tuple[Array, Array]:
    batch, length = embeddings.shape[:2]
    entries = length + beams * (trie.depth - 1)

    def run(x: Array, *inputs: Any) -> tuple[Array, Any]:
        outputs: Any = decoder.apply({"params": params}, x, *inputs)
        return outputs

    def log_probs(hidden: Float[Array, "batch rows embed"]) -> Float32[Array, "batch rows vocab"]:
        logits: Any = decoder.apply({"params": params}, hidden, method="logits")
        return jax.nn.log_softmax(logits.astype(jnp.float32))

    def step(state: _Beams) -> _Beams:
        is_open = _is_open(trie, state.nodes, state.scores)
        words: Any = decoder.apply({"params": params}, trie.token[state.nodes], method="embed")
        # Every step has entries of its own, behind the prompt's.
        slots = length + (state.depth - 1) * beams + jnp.arange(beams)
        path = state.path | (jnp.arange(entries) == slots[:, None])
        hidden, cache = run(
            words,
            jnp.broadcast_to(lengths[:, None] + state.depth - 1, is_open.shape),
            is_open.astype(jnp.int32),
            state.cache,
            jnp.broadcast_to(slots, is_open.shape),
            path,
        )
        scores, parents, nodes = _extend(
            trie, trie.width, state.nodes, state.scores, log_probs(hidden), beams
        )
        path = jnp.take_along_axis(path, parents[..., None], axis=1)
        return _Beams(state.depth + 1, nodes, scores, path, cache)

    positions = jnp.broadcast_to(jnp.arange(length), (batch, length))
    real = (positions < lengths[:, None]).astype(jnp.int32)
    hidden, cache = run(embeddings, positions, real, decoder.init_cache(batch, entries))
    last = jnp.take_along_axis(hidden, (lengths - 1)[:, None, None], axis=1)
    root = jnp.full((batch, 1), ROOT, jnp.int32)
    scores, _, nodes = _extend(
        trie, trie.root_width, root, jnp.zeros((batch, 1)), log_probs(last), beams
    )
    path = (jnp.arange(entries) < lengths[:, None])[:, None].repeat(beams, axis=1)
    end = jax.lax.while_loop(
        lambda state: jnp.any(_is_open(trie, state.nodes, state.scores)),
        step,
        _Beams(jnp.int32(1), nodes, scores, path, cache),
    )
    return trie.item[end.nodes], end.scores


def _is_open(trie: Trie, nodes: Array, scores: Array) -> Bool[Array, "batch beams"]:
    """True for beams that still have tokens to go; those not yet in use score -inf."""
    return (trie.num_children[nodes] > 0) & (scores > -jnp.inf)


def _extend(
    trie: Trie,
    width: int,
    nodes: Int32[Array, "batch beams"],
    scores: Float32[Array, "batch beams"],
    log_probs: Float32[Array, "batch beams vocab"],
    keep: int,
) -> tuple[Float32[Array, "batch keep"], Int[Array, "batch keep"], Int32[Array, "batch keep"]]:
    """The best `keep` children over all beams: (scores, index of the parent beam, nodes).

    Args:
      width: bound on the number of children of a node. A finished beam has one child: itself.
    """
    child = jnp.arange(width, dtype=jnp.int32)
    open_ = _is_open(trie, nodes, scores)[..., None]
    exists = child < trie.num_children[nodes][..., None]
    # Slots beyond a node's children would point at its neighbours' children, or past the end.
    target = jnp.where(exists, trie.first_child[nodes][..., None] + child, ROOT)
    gained = jnp.take_along_axis(log_probs, trie.token[target], axis=-1)
    grown = jnp.where(exists, scores[..., None] + gained, -jnp.inf)
    stays = jnp.where(child == 0, scores[..., None], -jnp.inf)
    candidates = jnp.where(open_, grown, stays).reshape(len(nodes), -1)
    target = jnp.where(open_, target, nodes[..., None]).reshape(len(nodes), -1)
    if candidates.shape[1] < keep:
        room = ((0, 0), (0, keep - candidates.shape[1]))
        candidates = jnp.pad(candidates, room, constant_values=-jnp.inf)
        target = jnp.pad(target, room, constant_values=ROOT)
    best, index = jax.lax.top_k(candidates, keep)
    return best, index // width, jnp.take_along_axis(target, index, axis=1)
