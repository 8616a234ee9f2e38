"""Beam search over the items of catalogues: prompts, steps and masks in one compiled function.

The search is Hugging Face's (`generate` with `prefix_allowed_tokens_fn`, see pool.py): the score of
a string is the sum of the model's log-probabilities, over the whole vocabulary, of its tokens after
the prompt, divided by (number of tokens) ** length_penalty. With as many beams as strings nothing
is pruned, and the ranking is that of exhaustive scoring.

What it saves: a prompt is read once and its keys and values stand once for all its beams; no key or
value is ever moved; tokens that all strings begin with are read in one go; there are never more
beams than the trie has nodes at that depth; and of the logits, beyond their sum, only those of a
node's children are looked at.
"""

import dataclasses
import functools
import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32, Int, Int32, PyTree

from ilm_jax.decoding.config import EarlyStopping
from ilm_jax.decoding.items import items_of_leaves
from ilm_jax.decoding.pool import Pool, add, is_done, take, top
from ilm_jax.decoding.steps import LanguageModel, Prefilled, Reader
from ilm_jax.decoding.trie import Trie, closed_leaves, is_closed
from ilm_jax.errors import UserError

# Levels at which the trie is narrower than the beams are compiled one by one, up to so many.
GROWING = 3


def beam_search(
    lm: LanguageModel,
    params: PyTree[Array],
    trie: Trie,
    embeddings: Float[Array, "batch length embed"],
    lengths: Int[Array, " batch"],
    beams: int,
    *,
    excluded: Int[Array, "batch excluded"] | None = None,
    catalogue: Int[Array, " batch"] | None = None,
    length_penalty: float = 0.0,
    early_stopping: EarlyStopping = False,
) -> tuple[Int32[Array, "batch beams"], Float32[Array, "batch beams"]]:
    """The best `beams` items for every prompt, best first.

    Items that share a string tie and stand in the order of their rows. An item's several strings
    count together, those of them that are found: search with more beams than items are wanted.

    Args:
      lm: the language model, a decoder or an encoder-decoder.
      params: its parameters (the subtree "lm" of an item-language model).
      trie: of the items' token sequences.
      embeddings: prompts, from `lm.embed` or with soft tokens in between; right-padded.
      lengths: real length of each prompt, at least 1.
      beams: number of items to return, at most the number of items.
      excluded: per row, items that are no candidates (those seen); negative numbers are none.
      catalogue: which catalogue of the trie each row searches; the first if None.
      length_penalty, early_stopping: as in `DecodingConfig`.

    Returns:
      (item rows, scores); -1 and -inf where a row has no more candidates.

    Raises:
      UserError: if there are fewer items than beams, or no beam.
    """
    if not 1 <= beams <= trie.num_items:
        raise UserError(f"beams={beams}: give a number from 1 to {trie.num_items}, all items")
    return _search(
        lm,
        params,
        trie,
        embeddings,
        lengths,
        excluded,
        catalogue,
        beams=beams,
        length_penalty=length_penalty,
        early_stopping=early_stopping,
    )


class _State(NamedTuple):
    """The search after `level` tokens behind the stem; its lanes are the unfinished strings.

    Attributes:
      level: number of tokens chosen, the same for all lanes.
      nodes: where each lane stands in the trie.
      scores: log-probability of its tokens, best first; -inf for a lane not in use.
      path: True at the cache entries that hold the prompt and its tokens so far, so that a lane
        which branches leaves keys and values where they are.
      pool: the nodes of finished strings.
      done: rows whose pool no longer changes.
      cache: of keys and values, one row per prompt.
    """

    level: Int32[Array, ""] | int
    nodes: Int32[Array, "batch lanes"]
    scores: Float32[Array, "batch lanes"]
    path: Bool[Array, "batch lanes entries"]
    pool: Pool
    done: Bool[Array, " batch"]
    cache: PyTree[Array]


@dataclasses.dataclass(frozen=True)
class _Search:
    """What stays the same during a search; the methods are its steps."""

    reader: Reader
    trie: Trie
    closed: Int32[Array, "batch closed"] | None
    beams: int
    length_penalty: float
    early_stopping: EarlyStopping

    @property
    def lanes(self) -> list[int]:
        """How many lanes the first levels need, as long as the trie is narrower than the beams."""
        sizes = itertools.takewhile(lambda size: size < self.beams, self.trie.open_nodes[1:])
        return list(itertools.islice(sizes, GROWING))

    def run(self, embeddings: Array, lengths: Array, catalogue: Array) -> Pool:
        """The pool at the end."""
        stem, levels, lanes = self.trie.stem.shape[1], len(self.trie.widths), self.lanes
        room = stem + sum(lanes) + self.beams * (levels - 1 - len(lanes))
        prompt = self.reader.prefill(embeddings, lengths, room)
        state = self._start(prompt, catalogue, [*lanes, self.beams][0])
        used = prompt.first + stem
        for level, width in enumerate(lanes, start=1):
            after = [*lanes, self.beams][level]
            entries = used + jnp.arange(width)
            state = self._step(state, prompt, entries, after, self.trie.widths[level])
            used += width
        if len(lanes) == levels - 1:
            return state.pool
        width = max(self.trie.widths[len(lanes) + 1 :])

        def step(state: _State) -> _State:
            """Grows every beam by one token of the trie."""
            entries = used + (state.level - 1 - len(lanes)) * self.beams + jnp.arange(self.beams)
            return self._step(state, prompt, entries, self.beams, width)

        state = state._replace(level=jnp.int32(state.level))

        def goes_on(state: _State) -> Array:
            """False once every prompt is done or the trie has no further level."""
            return (state.level < levels) & ~jnp.all(state.done)

        return jax.lax.while_loop(goes_on, step, state).pool

    def _start(self, prompt: Prefilled, catalogue: Array, lanes: int) -> _State:
        """Reads the stem and chooses the first tokens behind it."""
        batch, entries = prompt.seen.shape
        hidden, cache, path = prompt.hidden[:, None], prompt.cache, prompt.seen[:, None]
        score = jnp.zeros((batch, 1))
        if stem := self.trie.stem.shape[1]:
            tokens, place = self.trie.stem[catalogue], jnp.arange(stem)
            own = prompt.first + place
            told = (jnp.arange(entries) >= prompt.first) & (jnp.arange(entries) <= own[:, None])
            path = path | told
            after, cache = self.reader.extend(
                tokens, prompt.begin[:, None] + place, own, path, cache
            )
            before = jnp.concatenate([hidden, after[:, :-1]], axis=1)
            log_probs = self.reader.log_probs(before)
            score = jnp.take_along_axis(log_probs, tokens[..., None], 2).sum(axis=1)
            hidden, path = after[:, -1:], path[:, -1:]
        nodes = self.trie.start[catalogue][:, None]
        score = jnp.where(is_closed(self.trie, self.closed, nodes), -jnp.inf, score)
        nothing = jnp.full((batch, self.beams), -jnp.inf)
        pool = Pool(nothing, jnp.zeros((batch, self.beams), jnp.int32))
        done = jnp.zeros(batch, bool)
        state = _State(0, nodes, score, path, pool, done, cache)
        return self._branch(state, hidden, lanes, self.trie.widths[0])

    def _step(
        self, state: _State, prompt: Prefilled, entries: Array, lanes: int, width: int
    ) -> _State:
        """Reads the lanes' last tokens and chooses the next."""
        alive = state.scores > -jnp.inf
        path = state.path | (jnp.arange(state.path.shape[-1]) == entries[:, None])
        past = self.trie.stem.shape[1] + state.level - 1
        positions = jnp.broadcast_to((prompt.begin + past)[:, None], alive.shape)
        tokens = self.trie.token[state.nodes]
        hidden, cache = self.reader.extend(tokens, positions, entries, path, state.cache, alive)
        return self._branch(state._replace(path=path, cache=cache), hidden, lanes, width)

    def _branch(self, state: _State, hidden: Array, lanes: int, width: int) -> _State:
        """Strings that end go to the pool, the best of the others go on.

        Args:
          state: with all its tokens read. hidden: states that predict the next.
          lanes: how many go on. width: bound on the number of children of a node.
        """
        trie, level = self.trie, state.level + 1
        scores, nodes, parents = self._children(state, hidden, width)
        ends = trie.num_children[nodes] == 0
        best, index = top(scores, self.beams)
        finished = jnp.where(take(ends, index), best, -jnp.inf)
        length = trie.stem.shape[1] + level
        pool = add(
            state.pool, finished, take(nodes, index), length, self.length_penalty, state.done
        )
        best, index = top(jnp.where(ends, -jnp.inf, scores), lanes)
        done = state.done | is_done(
            pool, best, length, trie.depth, self.length_penalty, self.early_stopping
        )
        path = take(state.path, take(parents, index))
        return _State(level, take(nodes, index), best, path, pool, done, state.cache)

    def _children(
        self, state: _State, hidden: Array, width: int
    ) -> tuple[
        Float32[Array, "batch candidates"],
        Int32[Array, "batch candidates"],
        Int32[Array, "batch candidates"],
    ]:
        """All children of all lanes: (scores, nodes, lanes that they come from)."""
        trie, child = self.trie, jnp.arange(width, dtype=jnp.int32)
        exists = child < trie.num_children[state.nodes][..., None]
        # Slots beyond a node's children would point at its neighbours' children, or past the end.
        nodes = jnp.where(exists, trie.first_child[state.nodes][..., None] + child, 0)
        logits = self.reader.logits(hidden)
        gained = jnp.take_along_axis(logits, trie.token[nodes], axis=-1)
        gained = gained - jax.nn.logsumexp(logits, axis=-1, keepdims=True)
        shape = (len(nodes), -1)
        nodes, exists = nodes.reshape(shape), exists.reshape(shape)
        if self.closed is not None:
            exists = exists & ~is_closed(trie, self.closed, nodes)
        scores = jnp.where(exists, (state.scores[..., None] + gained).reshape(shape), -jnp.inf)
        parents = jnp.arange(scores.shape[1], dtype=jnp.int32) // width
        return scores, nodes, jnp.broadcast_to(parents, scores.shape)


@functools.partial(jax.jit, static_argnames=("lm", "beams", "length_penalty", "early_stopping"))
def _search(
    lm: LanguageModel,
    params: PyTree[Array],
    trie: Trie,
    embeddings: Array,
    lengths: Array,
    excluded: Array | None,
    catalogue: Array | None,
    *,
    beams: int,
    length_penalty: float,
    early_stopping: EarlyStopping,
) -> tuple[Array, Array]:
    if catalogue is None:
        catalogue = jnp.zeros(len(lengths), jnp.int32)
    closed = None if excluded is None else closed_leaves(trie, excluded, catalogue)
    search = _Search(Reader(lm, params), trie, closed, beams, length_penalty, early_stopping)
    pool = search.run(embeddings, lengths, catalogue)
    return items_of_leaves(trie, trie.low[pool.what], pool.scores, beams, excluded)
