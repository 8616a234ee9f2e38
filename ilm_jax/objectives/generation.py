"""Sums of next-token losses, and that of captions."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ilm_jax.models.output_layer import OutputLayer
from ilm_jax.objectives.objective import Sums
from ilm_jax.objectives.vocabulary_loss import vocabulary_loss


def weighted(values: Float[Array, "..."], weights: Float[Array, "..."]) -> Sums:
    """Sum of weighted values and sum of weights."""
    # A weight of zero silences also a value that is not finite.
    return Sums(jnp.where(weights > 0, values * weights, 0).sum(), weights.sum())


def caption_loss(
    states: Float[Array, "batch length embed"],
    output: OutputLayer,
    text: Int[Array, "batch length"],
    pad_id: int,
    label_smoothing: float = 0.1,
) -> Sums:
    """ITG: the state at position t predicts text[t + 1]; pads are no targets (BLIP-2, section 3.1).

    Args:
      states: of the text, given the queries.
      output: gives their logits.
      text: ids.
      pad_id: of padding.
      label_smoothing: e of `vocabulary_loss`.
    """
    labels = text[:, 1:]
    weights = (labels != pad_id).astype(jnp.float32)
    loss = vocabulary_loss(states[:, :-1], output, labels, weights, label_smoothing=label_smoothing)
    return Sums(loss.total, weights.sum())
