"""Losses of an item head: the softmax over a catalogue, and ranking losses on drawn candidates."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32, Int, PyTree

from ilm_jax.cf.item_rows import ItemRows
from ilm_jax.cf.negatives import Sampler, SamplerConfig
from ilm_jax.models.output_layer import OutputLayer
from ilm_jax.objectives import shared_negatives
from ilm_jax.objectives.item_scoring import NOWHERE
from ilm_jax.objectives.ranking_loss import RankingLoss
from ilm_jax.objectives.shared_negatives import Known, Vectors
from ilm_jax.objectives.vocabulary_loss import vocabulary_loss


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
    with_vectors: Int[Array, ""] | int,
) -> Float32[Array, ""]:
    """Summed ranking loss against candidates that the whole batch shares (shared_negatives.py).

    A target is no candidate of its own row, nor is an item without a vector of any.

    Args:
      items: vectors and biases of some items of the catalogue.
      rows: the catalogue, whose training counts popularity is.
      targets: what is asked.
      loss: which.
      sampler: of candidates; "in_batch": the batch's own targets.
      key: of the draw.
      with_vectors: how many items have one.
    """
    users = targets.users.reshape(-1, targets.users.shape[-1])
    wanted, weights = targets.items.reshape(-1), targets.weights.reshape(-1)
    chosen, log_expected = Sampler.make(sampler, rows.counts).draw(key, wanted)
    drawn = items(chosen)
    valid = _biases(drawn) > NOWHERE / 2
    if sampler.kind == "in_batch":
        valid &= weights > 0  # the others' places hold no target
        log_expected += jnp.log(jnp.maximum(weights.astype(bool).sum(), 1) / len(weights))
    # A bias is the product with one more entry, which users have at 1.
    users = jnp.concatenate([users, jnp.ones_like(users[:, :1])], axis=-1)
    vectors = Vectors(users, _with_bias(items(wanted)), _with_bias(drawn))
    shared = (chosen, valid, jnp.asarray(with_vectors, jnp.float32) - 1.0)
    known = Known(wanted, shared, log_expected, weights)
    return shared_negatives.total(loss, _negatives, vectors, known)


def _negatives(
    wanted: Int[Array, " rows"], shared: PyTree[Array]
) -> tuple[Bool[Array, "rows drawn"], Float[Array, ""]]:
    """See `shared_negatives.Rule`."""
    chosen, valid, negatives = shared
    return valid & (chosen != wanted[:, None]), negatives


def _biases(output: OutputLayer) -> Float[Array, " items"]:
    assert output.bias is not None
    return output.bias


def _with_bias(output: OutputLayer) -> Float[Array, "items dim+1"]:
    return jnp.concatenate([output.table, _biases(output)[:, None]], axis=-1)
