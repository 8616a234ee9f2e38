"""What a trainer needs of an objective."""

from typing import Any, NamedTuple, Protocol

import jax
from jaxtyping import Array, Float


class Sums(NamedTuple):
    """A mean kept as its parts, so that averages over microbatches and batches are exact."""

    total: Float[Array, ""]
    weight: Float[Array, ""]


class Objective(Protocol):
    """A loss with the modules whose parameters it trains."""

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
