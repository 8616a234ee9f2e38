"""Losses of an item head: the softmax over a catalogue, and ranking losses on drawn candidates."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32, Int

from ilm_jax.cf.item_rows import ItemRows
from ilm_jax.cf.negatives import Sampler, SamplerConfig
from ilm_jax.cf.parts import split
from ilm_jax.models.output_layer import OutputLayer
from ilm_jax.objectives import ranking
from ilm_jax.objectives.item_scoring import NOWHERE
from ilm_jax.objectives.ranking_loss import RankingLoss
from ilm_jax.objectives.vocabulary_loss import vocabulary_loss

# Scores of candidates that exist at once on one device (16 MiB), where one device has them all.
SCORES = 1 << 22


@dataclasses.dataclass(frozen=True, eq=False)
class Targets:
    """Items that a batch asks for.

    Attributes:
      users: vectors at the places that ask.
      items: rows of the right ones in their catalogue.
      weights: of their losses; 0 where nothing is asked of this catalogue.
    """

    users: Float32[Array, "batch items dim"]
    items: Int[Array, "batch items"]
    weights: Float32[Array, "batch items"]


def full_softmax(output: OutputLayer, targets: Targets) -> Float32[Array, ""]:
    """Summed -log softmax over all items, in blocks; value and gradient in one walk."""
    with jax.default_matmul_precision("highest"):
        return vocabulary_loss(targets.users, output, targets.items, targets.weights).total


def on_candidates(
    items: Callable[[Int[Array, " chosen"]], OutputLayer],
    rows: ItemRows,
    targets: Targets,
    loss: RankingLoss,
    sampler: SamplerConfig,
    key: jax.Array,
    known: Int[Array, ""] | int,
) -> Float32[Array, ""]:
    """Summed ranking loss against candidates that the whole batch shares.

    A target is no candidate of its own row, nor is an item without a vector of any.

    Args:
      items: vectors and biases of some items of the catalogue.
      rows: the catalogue, whose training counts popularity is.
      targets: what is asked.
      loss: which.
      sampler: of candidates; "in_batch": the batch's own targets.
      key: of the draw.
      known: items that have a vector.
    """
    users = targets.users.reshape(-1, targets.users.shape[-1])
    items_, weights = targets.items.reshape(-1), targets.weights.reshape(-1)
    chosen, log_expected = Sampler.make(sampler, rows.counts).draw(key, items_)
    drawn, own = items(chosen), items(items_)
    valid = _biases(drawn) > NOWHERE / 2
    if sampler.kind == "in_batch":
        valid &= weights > 0  # the others' places hold no target
        log_expected += jnp.log(jnp.maximum(weights.astype(bool).sum(), 1) / len(weights))

    def part(some: tuple[tuple[Array, ...], Bool[Array, " size"]]) -> Float32[Array, ""]:
        """Summed loss of some targets."""
        (user, item, vector, bias, weight), real = some
        with jax.default_matmul_precision("highest"):
            scores = user @ drawn.table.T + _biases(drawn)
        positive = jnp.sum(user * vector, -1) + bias
        others = valid & (chosen != item[:, None])
        each = loss(ranking.Scored(positive, scores, others, known - 1.0), log_expected)
        return jnp.where(real & (weight != 0), weight * each, 0.0).sum()

    # The prior of shrunk ranks is that of all rows, which then are one part; a mesh splits them.
    mesh = jax.sharding.get_abstract_mesh()
    whole = loss.fits_prior or (not mesh.empty and mesh.size > 1)
    parts = 1 if whole else -(-len(users) // max(1, SCORES // len(chosen)))
    cut = split((users, items_, own.table, _biases(own), weights), parts)
    if parts == 1:
        return part(jax.tree.map(lambda x: x[0], cut))
    return jax.lax.map(jax.checkpoint(part), cut).sum()


def _biases(output: OutputLayer) -> Float[Array, " items"]:
    assert output.bias is not None
    return output.bias
