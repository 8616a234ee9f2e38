"""The compiled functions of a generator: from prompts on the mesh to tokens, items and scores."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ilm_jax.cf.item_rows import ItemRows
from ilm_jax.decoding import sampling
from ilm_jax.decoding.beam import beam_search
from ilm_jax.decoding.config import DecodingConfig, EarlyStopping
from ilm_jax.decoding.exhaustive import Blocks, rank_exhaustively
from ilm_jax.decoding.item_ranking import rank_by_head
from ilm_jax.decoding.prompts import Prompts
from ilm_jax.decoding.sampling import Continuations
from ilm_jax.decoding.soft_tokens import embed_prompts
from ilm_jax.decoding.text_beams import text_beams
from ilm_jax.decoding.trie import Trie
from ilm_jax.models.ilm import ItemLanguageModel
from ilm_jax.objectives.item_scoring import ItemScorer, ItemSource


def embed(
    model: ItemLanguageModel, params: PyTree[Array], soft: Array | None, prompts: Prompts
) -> Float[Array, "batch length lm_dim"]:
    """`embed_prompts`; prompts without slots are words alone, whatever is in `soft`."""
    arrays = {n: jnp.asarray(x) for n, x in prompts._asdict().items() if x is not None}
    return embed_prompts(model, params, None if prompts.entities is None else soft, arrays)


@functools.partial(jax.jit, static_argnames=("model", "config"))
def generate(
    model: ItemLanguageModel,
    params: PyTree[Array],
    soft: Array | None,
    prompts: Prompts,
    config: DecodingConfig,
) -> Continuations:
    """Continuations of the prompts: beams where `config.beams` > 1, else greedy or sampled."""
    x, lm = embed(model, params, soft, prompts), model.lm
    if config.beams > 1:
        return text_beams(lm, params["lm"], x, prompts.lengths, config)
    return sampling.sample(lm, params["lm"], x, prompts.lengths, config, prompts.rows)


@functools.partial(jax.jit, static_argnames=("model", "config"))
def start(
    model: ItemLanguageModel,
    params: PyTree[Array],
    soft: Array | None,
    prompts: Prompts,
    config: DecodingConfig,
) -> sampling.Writing:
    """The state in which every prompt is read and no token is written yet."""
    x = embed(model, params, soft, prompts)
    return sampling.start(model.lm, params["lm"], x, prompts.lengths, prompts.rows, config)


@functools.partial(jax.jit, static_argnames=("model", "beams", "length_penalty", "early_stopping"))
def rank(
    model: ItemLanguageModel,
    params: PyTree[Array],
    soft: Array | None,
    prompts: Prompts,
    trie: Trie,
    *,
    beams: int,
    length_penalty: float,
    early_stopping: EarlyStopping,
) -> tuple[Array, Array]:
    """Items [batch, beams], best first (-1: fewer), and their scores, by trie-constrained beams."""
    return beam_search(
        model.lm,
        params["lm"],
        trie,
        embed(model, params, soft, prompts),
        prompts.lengths,
        beams,
        excluded=prompts.excluded,
        catalogue=prompts.catalogue,
        length_penalty=length_penalty,
        early_stopping=early_stopping,
    )


@functools.partial(jax.jit, static_argnames=("model", "keep", "length_penalty"))
def rank_all(
    model: ItemLanguageModel,
    params: PyTree[Array],
    soft: Array | None,
    prompts: Prompts,
    trie: Trie,
    blocks: Blocks,
    *,
    keep: int,
    length_penalty: float,
) -> tuple[Array, Array]:
    """Items [batch, keep], best first, and their scores: every string of the trie is scored."""
    return rank_exhaustively(
        model.lm,
        params["lm"],
        trie,
        blocks,
        embed(model, params, soft, prompts),
        prompts.lengths,
        keep,
        excluded=prompts.excluded,
        length_penalty=length_penalty,
    )


@functools.partial(jax.jit, static_argnames=("model", "scorer", "rows", "count"))
def rank_items(
    model: ItemLanguageModel,
    params: PyTree[Array],
    soft: Array | None,
    vectors: Array,
    prompts: Prompts,
    *,
    scorer: ItemScorer,
    rows: ItemRows,
    count: int,
) -> tuple[Array, Array]:
    """Items [batch, count], best first (-1: fewer), and their scores, by an item head."""
    tokens = vectors if soft is None else soft  # a text-only model's head reads vectors alone
    return rank_by_head(
        model.lm,
        params,
        scorer,
        ItemSource(vectors, tokens.__getitem__),
        rows,
        embed(model, params, soft, prompts),
        prompts.lengths,
        count,
        excluded=prompts.excluded,
    )
