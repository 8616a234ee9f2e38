"""What ranks items by their representations: the protocol that evaluation and decoding read.

A user's vector comes from the language model's hidden state at the end of the prompt, an item's
from the row of the embedding table, and the score is their inner product with an item's bias.
"""

import dataclasses
from collections.abc import Callable
from typing import Protocol

from jaxtyping import Array, Float, Float32, Int, PyTree

from ilm_jax.cf.item_rows import ItemRows
from ilm_jax.models.output_layer import OutputLayer

# The bias of rows without a vector, which are no candidates.
NOWHERE = -1e30
Rows = slice | Int[Array, " rows"]


@dataclasses.dataclass(frozen=True, eq=False)
class ItemSource:
    """What items are represented by.

    Attributes:
      vectors: the embedding table; a row of zeros is no item, or one without a vector.
      soft: gives the soft tokens of rows of the table, [rows, queries, lm_dim].
    """

    vectors: Float[Array, "capacity cf"]
    soft: Callable[[Rows], Float[Array, "rows queries lm_dim"]]


class ItemScorer(Protocol):
    """Scores items for users: <user, item> + bias; traced."""

    def users(
        self, params: PyTree[Array], hidden: Float[Array, "*batch lm_dim"]
    ) -> Float32[Array, "*batch dim"]:
        """Vectors of users from hidden states at the ends of their prompts."""

    def items(
        self,
        params: PyTree[Array],
        source: ItemSource,
        rows: ItemRows,
        chosen: Int[Array, " chosen"] | None = None,
    ) -> OutputLayer:
        """Vectors and biases of a catalogue's rows, `NOWHERE` of those without a vector.

        Args:
          params: of everything, by top key.
          source: what items are represented by.
          rows: the catalogue's.
          chosen: these alone, counted in the catalogue; all if None.
        """

    def rows_of(self, catalogue: str) -> ItemRows:
        """The rows of a catalogue.

        Raises:
          UserError: for a catalogue that is none of the model's tables.
        """
