"""Log-probabilities of all of a catalogue's strings: the slow and exact way to rank.

The prompt is read once. Behind it the trie is read in blocks of nodes: a node sees the prompt and
its ancestors (a tree in the place of a sequence), so that strings of a block share what they begin
with. The state of a node predicts its children, so the last token of a string is never read.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int, Int32, PyTree

from ilm_jax.decoding.items import items_of_leaves
from ilm_jax.decoding.pool import norm
from ilm_jax.decoding.steps import LanguageModel, Prefilled, Reader
from ilm_jax.decoding.trie import Trie, closed_leaves
from ilm_jax.errors import UserError


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Blocks:
    """The strings of one catalogue in blocks, each with all nodes on the way to its strings.

    Attributes:
      token: of each node that has children, parents first; 0 behind them.
      depth: number of tokens up to it; 0 behind them.
      sees: True where another node of the block is its ancestor or itself.
      source: of each token of the block's strings, 1 + the node that predicts it; 0: the prompt.
      target: that token.
      upon: where in this list the token before it stands; -1 for first tokens.
      leaf: number of the string that ends with it; the number of all strings if none does.
      length: number of tokens up to it.
      catalogue: which of the trie's catalogues.
    """

    token: Int32[Array, "blocks nodes"]
    depth: Int32[Array, "blocks nodes"]
    sees: Bool[Array, "blocks nodes nodes"]
    source: Int32[Array, "blocks edges"]
    target: Int32[Array, "blocks edges"]
    upon: Int32[Array, "blocks edges"]
    leaf: Int32[Array, "blocks edges"]
    length: Int32[Array, "blocks edges"]
    catalogue: int = dataclasses.field(metadata={"static": True})


def cut_into_blocks(trie: Trie, size: int = 64, catalogue: int = 0) -> Blocks:
    """Neighbouring strings of a catalogue in blocks of at most `size` nodes with children.

    Raises:
      UserError: for a catalogue that the trie lacks, or a size below the longest string.
    """
    if not 0 <= catalogue < len(trie.items):
        raise UserError(
            f"catalogue {catalogue}: the trie has catalogues 0 to {len(trie.items) - 1}"
        )
    if size < trie.depth:
        raise UserError(f"blocks of {size} nodes: the longest string needs {trie.depth}")
    token, first, count, low = (
        np.asarray(getattr(trie, name)) for name in ("token", "first_child", "num_children", "low")
    )
    parent = np.full(len(token), -1)
    inner = np.flatnonzero(count)
    children = np.concatenate([np.arange(first[n], first[n] + count[n]) for n in inner])
    parent[children] = np.repeat(inner, count[inner])
    root = int(np.asarray(trie.start)[catalogue]) - trie.stem.shape[1]
    span = range(int(low[root]), int(np.asarray(trie.high)[root]))
    leaves = np.flatnonzero(count == 0)
    node_of = dict(zip(low[leaves].tolist(), leaves.tolist(), strict=True))
    found: list[list[list[int]]] = []  # paths of each block's strings, root left out
    known: set[int] = set()
    for leaf in span:
        path = [node_of[leaf]]
        while parent[path[-1]] != root:
            path.append(int(parent[path[-1]]))
        path.reverse()
        if not found or len(known | set(path[:-1])) > size:
            found.append([])
            known = set()
        known |= set(path[:-1])
        found[-1].append(path)
    blocks = [_block(paths, token, low, trie.num_leaves) for paths in found]
    return Blocks(**_stacked(blocks, size), catalogue=catalogue)


def _block(
    paths: list[list[int]], token: np.ndarray, low: np.ndarray, leaves: int
) -> dict[str, np.ndarray]:
    nodes = list(dict.fromkeys(node for path in paths for node in path[:-1]))
    place = {node: i for i, node in enumerate(nodes)}
    edges: dict[int, tuple[int, int, int]] = {}  # node: (source, upon, length), parents first
    number: dict[int, int] = {}
    depth, sees = np.zeros(len(nodes), int), np.zeros((len(nodes), len(nodes)), bool)
    for path in paths:
        for i, node in enumerate(path):
            before = path[i - 1] if i else None
            source, upon = (0, -1) if before is None else (1 + place[before], number[before])
            edges.setdefault(node, (source, upon, i + 1))
            number.setdefault(node, len(number))
            if node in place:
                depth[place[node]] = i + 1
                sees[place[node], [place[above] for above in path[: i + 1]]] = True
    columns = np.array(list(edges.values()))
    ends = [low[node] if node not in place else leaves for node in edges]
    return {
        "token": token[nodes],
        "depth": depth,
        "sees": sees,
        "source": columns[:, 0],
        "target": token[list(edges)],
        "upon": columns[:, 1],
        "leaf": np.array(ends),
        "length": columns[:, 2],
    }


def _stacked(blocks: list[dict[str, np.ndarray]], size: int) -> dict[str, Array]:
    """All blocks as arrays of one shape; what fills them up leads to no string."""
    edges = max(len(block["leaf"]) for block in blocks)
    nodes = min(size, max(1, max(len(block["token"]) for block in blocks)))
    found = {}
    for name in blocks[0]:
        width = nodes if name in ("token", "depth", "sees") else edges
        fill = {"upon": -1, "leaf": np.iinfo(np.int32).max, "length": 1}.get(name, 0)
        rows = []
        for block in blocks:
            array = block[name]
            room = [(0, width - extent) for extent in array.shape]
            rows.append(np.pad(array, room, constant_values=fill))
        dtype = bool if name == "sees" else np.int32
        found[name] = jnp.asarray(np.stack(rows), dtype)
    return found


def score_strings(
    reader: Reader, trie: Trie, blocks: Blocks, prompt: Prefilled, length_penalty: float = 0.0
) -> Float32[Array, "batch leaves"]:
    """log p(string | prompt) / (its tokens) ** length_penalty; -inf for other catalogues' strings.

    Holds the logits of one block at a time: batch * (nodes of a block + 1) * vocabulary floats.

    Args:
      reader: the language model.
      trie: of the blocks.
      blocks: from `cut_into_blocks`.
      prompt: read with room for as many entries as a block has nodes.
    """
    batch, entries = prompt.seen.shape
    nodes = blocks.token.shape[1]
    own = prompt.first + jnp.arange(nodes)

    def one(block: tuple[Array, ...]) -> tuple[Array, Array]:
        """Scores [batch, edges] of the strings up to each edge of a block, and their leaves."""
        token, depth, sees, source, target, upon, leaf, length = block
        place = jnp.zeros((nodes, entries), bool).at[:, own].set(sees)
        tokens = jnp.broadcast_to(token, (batch, nodes))
        positions = prompt.begin[:, None] + jnp.maximum(depth - 1, 0)
        valid = jnp.broadcast_to(depth > 0, tokens.shape)
        mask = prompt.seen[:, None] | place
        hidden, _ = reader.extend(tokens, positions, own, mask, prompt.cache, valid)
        logits = reader.logits(jnp.concatenate([prompt.hidden[:, None], hidden], axis=1))
        gained = logits[:, source, target] - jax.nn.logsumexp(logits, axis=-1)[:, source]
        total = gained
        for _ in range(trie.depth - 1):
            total = gained + jnp.where(upon >= 0, total[:, upon], 0)
        return total / norm(length, length_penalty), leaf

    fields = (
        blocks.token,
        blocks.depth,
        blocks.sees,
        blocks.source,
        blocks.target,
        blocks.upon,
        blocks.leaf,
        blocks.length,
    )
    totals, leaves = jax.lax.map(one, fields)
    totals = jnp.moveaxis(totals, 0, 1).reshape(batch, -1)
    scores = jnp.full((batch, trie.num_leaves), -jnp.inf)
    return scores.at[:, leaves.reshape(-1)].set(totals, mode="drop")


@functools.partial(jax.jit, static_argnames=("lm", "keep", "length_penalty"))
def rank_exhaustively(
    lm: LanguageModel,
    params: PyTree[Array],
    trie: Trie,
    blocks: Blocks,
    embeddings: Float[Array, "batch length embed"],
    lengths: Int[Array, " batch"],
    keep: int,
    *,
    excluded: Int[Array, "batch excluded"] | None = None,
    length_penalty: float = 0.0,
) -> tuple[Int32[Array, "batch keep"], Float32[Array, "batch keep"]]:
    """The best `keep` items of a catalogue, all of its strings scored; best first.

    Arguments and result as in `beam_search`, which finds the same where its beams lose nothing.
    """
    reader = Reader(lm, params)
    prompt = reader.prefill(embeddings, lengths, blocks.token.shape[1])
    scores = score_strings(reader, trie, blocks, prompt, length_penalty)
    if excluded is not None:
        catalogue = jnp.full(len(lengths), blocks.catalogue)
        closed = closed_leaves(trie, excluded, catalogue)
        scores = jax.vmap(lambda row, at: row.at[at].set(-jnp.inf, mode="drop"))(scores, closed)
    leaves = jnp.broadcast_to(jnp.arange(trie.num_leaves), scores.shape)
    return items_of_leaves(trie, leaves, scores, keep, excluded)
