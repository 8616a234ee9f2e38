"""Lists of items that a model's item head gives in answer to prompts."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Array, Int, PyTree

from ilm_jax.data.streams.feed import Feed
from ilm_jax.decoding.item_ranking import check_length, rank_by_head
from ilm_jax.evaluation.measures.passes import Batch, ModelOnMesh, embed
from ilm_jax.evaluation.measures.ranking import ListMeasure
from ilm_jax.objectives.item_scoring import ItemScorer, ItemSource


class HeadMeasure(ListMeasure):
    """Lists by a model's item head: one pass over a prompt, all items scored in blocks."""

    def __init__(
        self,
        model: ModelOnMesh,
        feed: Feed,
        scorer: ItemScorer,
        catalogue: str,
        length: int = 10,
        seen: Sequence[Int[np.ndarray, " history"]] | None = None,
    ) -> None:
        """As `ListMeasure`.

        Args:
          model, feed, seen: see there.
          scorer: the model's.
          catalogue: whose items are ranked.
          length: of the lists.

        Raises:
          UserError: if the task's answers are no items, or lists would be longer than the
            catalogue, or it is none of the head's.
        """
        rows = scorer.rows_of(catalogue)
        check_length(length, rows)
        objective = model.objective

        def step(
            params: PyTree[Array], batch: Batch, soft: Array, vectors: Array
        ) -> tuple[Array, Array]:
            """Items [batch, length], best first, and their scores."""
            return rank_by_head(
                objective.model.lm,
                params,
                scorer,
                ItemSource(vectors, soft.__getitem__),
                rows,
                embed(objective, params, batch, soft),
                batch["lengths"],
                length,
                excluded=batch.get("excluded"),
            )

        super().__init__(model, feed, rows.items, seen, step, model.vectors)
