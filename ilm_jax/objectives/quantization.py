"""The loss of an RQ-VAE: items' vectors through codes and back (models/residual_quantizer.py).

With x a vector, r_l what level l quantises, e_l the entry that it takes and sg no gradient
(Rajput et al. 2023, arXiv 2305.05065, section 3.1),

    |x - decoder(sum_l e_l)|^2 + sum_l |sg(r_l) - e_l|^2 + beta |r_l - sg(e_l)|^2

Codebooks start at centroids of what they quantise. Entries that no item takes start anew, every so
many steps, at the items that are farthest from theirs; the paper's own cure is the start alone.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from ilm_jax.checks import Count, Number, Weight, check
from ilm_jax.models.applying import applied
from ilm_jax.models.residual_quantizer import (
    Quantised,
    ResidualQuantizer,
    lloyd,
    nearest,
    revived,
)
from ilm_jax.objectives.objective import Objective, Sums

TOP = "quantizer"


@dataclasses.dataclass(frozen=True)
class ResidualQuantization(Objective):
    """Reconstruction and codebook losses. Parameters: `quantizer`.

    Batches hold "items", rows of the table, which is of standardised vectors.

    Attributes:
      dim: of the vectors.
      levels, width, hidden: see `ResidualQuantizer`.
      commitment: beta above.
      restart_every: steps from one revival of unused entries to the next; 0: never.
    """

    dim: Count
    levels: tuple[Count, ...] = (256, 256, 256)
    width: Count = 32
    hidden: tuple[Count, ...] = (512, 256, 128)
    commitment: Weight = 0.25
    restart_every: Number = 100

    kinds = ("item",)
    needs_table = True

    def __post_init__(self) -> None:
        check(self)

    @property
    def cf_dim(self) -> int:
        """Width of the vectors."""
        return self.dim

    @property
    def model(self) -> ResidualQuantizer:
        """Encoder, codebooks and decoder."""
        return ResidualQuantizer(self.dim, self.levels, self.width, self.hidden)

    def init(self, key: jax.Array) -> PyTree[Array]:
        """All parameters, boxed with their logical axes."""
        return {TOP: self.model.init(key, jnp.zeros((1, self.dim)))["params"]}

    def data_start(
        self, params: PyTree[Array], vectors: Float[Array, "items cf"]
    ) -> dict[str, jax.Array]:
        """Codebooks at the centroids of what each level quantises."""
        z, found = self._latents(params, vectors), {}
        for level, size in enumerate(self.levels):
            found[f"{TOP}/codebook_{level:02d}"] = book = lloyd(z, size)
            z = z - book[nearest(z, book)]
        return found

    def loss(
        self,
        params: PyTree[Array],
        kind: str,
        batch: dict[str, jax.Array],
        table: Float[Array, "capacity cf"],
        key: jax.Array | None,
    ) -> dict[str, Sums]:
        """Sums of `loss` and of its parts over the items."""
        x = table[batch["items"]]
        output: tuple[Array, Quantised] = applied(self.model, params[TOP], x)
        back, found = output
        parts = {
            "reconstruction": jnp.square(x - back).sum(),
            "codebook": _squares(jax.lax.stop_gradient(found.residuals), found.entries),
            "commitment": _squares(found.residuals, jax.lax.stop_gradient(found.entries)),
        }
        total = parts["reconstruction"] + parts["codebook"]
        parts["loss"] = total + self.commitment * parts["commitment"]
        return {name: Sums(part, jnp.float32(len(x))) for name, part in parts.items()}

    def after_step(
        self, params: PyTree[Array], step: Int[Array, ""], table: Float[Array, "capacity cf"]
    ) -> dict[str, jax.Array]:
        """Codebooks whose unused entries start anew, every `restart_every` steps."""
        if not self.restart_every:
            return {}
        books = [params[TOP][f"codebook_{level:02d}"] for level in range(len(self.levels))]

        def revive(books: list[Array]) -> list[Array]:
            """Entries that no item of the table takes are those farthest from theirs."""
            residuals = self.quantise(params, self._latents(params, table)).residuals
            return [revived(r, book) for r, book in zip(residuals, books, strict=True)]

        due = step % self.restart_every == 0
        books = jax.lax.cond(due, revive, lambda books: books, books)
        return {f"{TOP}/codebook_{level:02d}": book for level, book in enumerate(books)}

    def quantise(self, params: PyTree[Array], z: Float[Array, "rows width"]) -> Quantised:
        """Codes of latent vectors."""
        found: Quantised = applied(self.model, params[TOP], z, method="quantise")
        return found

    def _latents(
        self, params: PyTree[Array], x: Float[Array, "rows dim"]
    ) -> Float[Array, "rows width"]:
        found: Array = applied(self.model, params[TOP], x, method="encode")
        return found


def _squares(a: Float[Array, "levels rows width"], b: Float[Array, "levels rows width"]) -> Array:
    return jnp.square(a - b).sum()
