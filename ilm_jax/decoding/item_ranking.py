"""The best items for prompts by a model's item head: one pass over a prompt, no token decoded."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Int, Int32, PyTree

from ilm_jax.cf.item_rows import ItemRows
from ilm_jax.cf.topk import ITEM_BLOCK, best_scored, in_blocks
from ilm_jax.decoding.steps import LanguageModel, Reader
from ilm_jax.errors import UserError
from ilm_jax.objectives.item_scoring import NOWHERE, ItemScorer, ItemSource


def rank_by_head(
    lm: LanguageModel,
    params: PyTree[Array],
    scorer: ItemScorer,
    source: ItemSource,
    rows: ItemRows,
    embeddings: Float[Array, "batch length embed"],
    lengths: Int[Array, " batch"],
    k: int,
    *,
    excluded: Int[Array, "batch excluded"] | None = None,
) -> tuple[Int32[Array, "batch k"], Float32[Array, "batch k"]]:
    """The best k items for every prompt and their scores, best first; ties to the lower row.

    Scores of a block of items exist at once; items without a vector are no candidates.

    Args:
      lm: the language model.
      params: of everything, by top key.
      scorer: the model's.
      source: what items are represented by.
      rows: of the catalogue that is ranked.
      embeddings: prompts, right-padded.
      lengths: real length of each prompt.
      k: length of the lists.
      excluded: per row, items that are no candidates (those seen); negative numbers are none.

    Returns:
      (item rows, scores); -1 and -inf where a row has no more candidates.

    Raises:
      UserError: if there are fewer items than k, or k < 1.
    """
    check_length(k, rows)
    hidden = Reader(lm, params["lm"]).prefill(embeddings, lengths, 1).hidden
    found = scorer.items(params, source, rows)
    assert found.bias is not None
    biases = jnp.where(found.bias < NOWHERE / 2, -jnp.inf, found.bias)
    vectors, biases = in_blocks(found.table, biases, ITEM_BLOCK)
    if excluded is None:
        excluded = jnp.full((len(lengths), 1), -1, jnp.int32)
    return best_scored(scorer.users(params, hidden), vectors, biases, excluded, k=k)


def check_length(k: int, rows: ItemRows) -> None:
    """Raises UserError for a list of no items, or of more than there are."""
    if not 1 <= k <= rows.items:
        raise UserError(
            f"a list of {k} items: {rows.catalogue} has {rows.items}; give a number from 1 to that"
        )
