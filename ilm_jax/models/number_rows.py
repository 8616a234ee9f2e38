"""Rows of a token table that numbers are written with, drawn anew where a run begins.

Ids that are numbers ("item_1042") are cut into pieces whose vectors say how large a number is, of
which an id says nothing: OpenP5 (Xu et al. 2023, arXiv 2306.11134) draws the rows of all pieces of
0, ..., 29999 from N(0, 1).
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ilm_jax.checks import Count, check
from ilm_jax.data.tokenizers import Tokenizer
from ilm_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class NumberRows:
    """Rows of the pieces of the numbers below a limit.

    Attributes:
      below: 0, ..., below - 1 are cut into pieces.
      ids: of the pieces; (): the tokenizer's.
    """

    below: Count = 30_000
    ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        check(self)

    def of(self, tokenizer: Tokenizer) -> "NumberRows":
        """The same with the ids of a tokenizer, unless they are given.

        A number opens its text, so that pieces with and without a space before them are among
        them, as OpenP5 has it; pieces without a digit (the space alone) are not.

        Raises:
          UserError: if no piece holds a digit.
        """
        if self.ids:
            return self
        found = {token for number in range(self.below) for token in tokenizer.encode(str(number))}
        ids = [t for t in sorted(found) if any(c.isdigit() for c in tokenizer.decode([t]))]
        if not ids:
            raise UserError("NumberRows: no piece of the tokenizer holds a digit")
        return dataclasses.replace(self, ids=tuple(ids))

    def drawn(
        self, table: Float[Array, "vocab embed"], key: jax.Array
    ) -> Float[Array, "vocab embed"]:
        """The table with these rows drawn from N(0, 1); they depend on the key and their order."""
        rows = jax.random.normal(key, (len(self.ids), table.shape[1]))
        return table.at[jnp.array(self.ids, jnp.int32)].set(rows.astype(table.dtype))
