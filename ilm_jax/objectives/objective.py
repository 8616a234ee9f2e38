"""What a trainer needs of an objective."""

from typing import Any, NamedTuple, Protocol

import jax
from jaxtyping import Array, Float

from ilm_jax.errors import UserError


class Sums(NamedTuple):
    """A mean kept as its parts, so that averages over microbatches and batches are exact."""

    total: Float[Array, ""]
    weight: Float[Array, ""]


def vocabulary(given: int, ids: int, least: int, config: object) -> int:
    """Rows of a token table: as many as the config says, or `ids` of them if it says 0.

    Published tables are often larger than their tokenizer, padded to a round number.

    Raises:
      UserError: if the config says fewer than `least`.
    """
    if 0 < given < least:
        raise UserError(
            f"{type(config).__name__}.vocab_size={given}, but the tokenizer's ids need {least} "
            "rows: give at least as many, or 0 for the tokenizer's own number"
        )
    return given or ids


class Objective(Protocol):
    """A loss with the modules whose parameters it trains; a dataclass: a run records its fields."""

    @property
    def kinds(self) -> tuple[str, ...]:
        """Names of the batch kinds that `loss` takes, each with its own compiled step."""

    @property
    def splits_batches(self) -> bool:
        """Whether microbatches give the same gradient.

        Not so for contrastive losses, whose negatives are the whole global batch.
        """

    def init(self, key: jax.Array) -> dict[str, Any]:
        """Parameters with their logical axes (boxed), nested, top keys as in the house style."""

    def loss(
        self,
        params: dict[str, Any],
        kind: str,
        batch: dict[str, jax.Array],
        table: Float[Array, "capacity cf"],
        key: jax.Array | None,
    ) -> dict[str, Sums]:
        """Sums by metric name; "loss" is what is minimised. `key` None: no dropout."""
