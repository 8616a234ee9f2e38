"""Beam search over the items of a trie: prompt, steps and masks in one compiled function.

The score of an item is the sum of the decoder's log-probabilities (over the whole vocabulary) of
its tokens after the prompt, so it is log p(item's tokens | prompt). With as many beams as items
nothing is pruned and the ranking is that of exhaustive scoring.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32, Int, Int32

from ilm_jax.decoding.trie import ROOT, Trie
from ilm_jax.errors import UserError
from ilm_jax.models.decoder import Decoder, reorder_cache


def beam_search(
    decoder: Decoder,
    params: dict,
    trie: Trie,
    embeddings: Float[Array, "batch length embed"],
    lengths: Int[Array, " batch"],
    beams: int,
) -> tuple[Int32[Array, "batch beams"], Float32[Array, "batch beams"]]:
    """The best `beams` items for every prompt, best first.

    A beam that has reached its item stays with its score until all have. Equal scores keep the
    order of the beams. Memory grows with batch * beams * (length + trie.depth): choose the batch
    by it.

    Args:
      decoder: the language model.
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


@functools.partial(jax.jit, static_argnames=("decoder", "beams"))
def _search(
    decoder: Decoder, params: dict, trie: Trie, embeddings: Array, lengths: Array, beams: int
) -> tuple[Array, Array]:
    batch, length = embeddings.shape[:2]
    variables = {"params": params}

    def log_probs(hidden: Float[Array, "rows embed"]) -> Float32[Array, "rows vocab"]:
        logits: Any = decoder.apply(variables, hidden, method="logits")
        return jax.nn.log_softmax(logits.astype(jnp.float32))

    def run(*inputs: Any) -> tuple[Array, Any]:
        outputs: Any = decoder.apply(variables, *inputs)
        return outputs

    positions = jnp.broadcast_to(jnp.arange(length), (batch, length))
    real = (positions < lengths[:, None]).astype(jnp.int32)
    empty = decoder.init_cache(batch, length + trie.depth)
    hidden, cache = run(embeddings, positions, real, empty)
    last = jnp.take_along_axis(hidden, (lengths - 1)[:, None, None], axis=1)[:, 0]

    nodes = jnp.full((batch, 1), ROOT, jnp.int32)
    scores, _, nodes = _extend(
        trie, trie.root_width, nodes, jnp.zeros((batch, 1)), log_probs(last)[:, None], beams
    )
    first_row = jnp.arange(batch)[:, None] * beams
    cache = reorder_cache(cache, jnp.repeat(jnp.arange(batch), beams))
    ends = jnp.repeat(lengths, beams)[:, None]

    def unfinished(state: tuple) -> Bool[Array, ""]:
        _, nodes, scores, _ = state
        return jnp.any(_is_open(trie, nodes, scores))

    def step(state: tuple) -> tuple:
        depth, nodes, scores, cache = state
        open_ = _is_open(trie, nodes, scores).reshape(-1, 1)
        words: Any = decoder.apply(variables, trie.token[nodes].reshape(-1, 1), method="embed")
        hidden, cache = run(words, ends + depth, open_.astype(jnp.int32), cache)
        steps = log_probs(hidden[:, 0]).reshape(batch, beams, -1)
        scores, parents, nodes = _extend(trie, trie.width, nodes, scores, steps, beams)
        cache = reorder_cache(cache, (first_row + parents).reshape(-1))
        return depth + 1, nodes, scores, cache

    state = (jnp.int32(0), nodes, scores, cache)
    _, nodes, scores, _ = jax.lax.while_loop(unfinished, step, state)
    return trie.item[nodes], scores


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
