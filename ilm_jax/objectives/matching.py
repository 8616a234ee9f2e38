"""Item-text matching: is this text the item's own? (BLIP-2's ITM, with items for images.)"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ilm_jax.objectives.objective import Sums


class MatchingBatch(NamedTuple):
    """3N pairs: the N true ones, each text with a wrong item, each item with a wrong text."""

    vectors: Float[Array, "pairs cf"]
    text: Int[Array, "pairs length"]
    labels: Int[Array, " pairs"]
    weights: Float[Array, " pairs"]


def with_hard_negatives(
    vectors: Float[Array, "batch cf"],
    text: Int[Array, "batch length"],
    negative_left: Int[Array, " batch"],
    negative_right: Int[Array, " batch"],
) -> MatchingBatch:
    """Pairs each text with a drawn wrong item and each item with a drawn wrong text.

    A row without any non-positive in the batch (index -1) gets weight 0.
    """
    wrong_vectors = jnp.take(vectors, jnp.maximum(negative_left, 0), axis=0)
    wrong_text = jnp.take(text, jnp.maximum(negative_right, 0), axis=0)
    one = jnp.ones(vectors.shape[0])
    return MatchingBatch(
        vectors=jnp.concatenate([vectors, wrong_vectors, vectors]),
        text=jnp.concatenate([text, text, wrong_text]),
        labels=jnp.concatenate([one, 0 * one, 0 * one]).astype(jnp.int32),
        weights=jnp.concatenate([one, negative_left >= 0, negative_right >= 0]).astype(jnp.float32),
    )


def matching_loss(
    logits: Float[Array, "pairs 2"], labels: Int[Array, " pairs"], weights: Float[Array, " pairs"]
) -> dict[str, Sums]:
    """Two-class cross-entropy (label 1: matched) and accuracy, over pairs of weight 1."""
    log_p = jax.nn.log_softmax(logits.astype(jnp.float32))
    loss = -jnp.take_along_axis(log_p, labels[:, None], 1)[:, 0]
    correct = (logits.argmax(-1) == labels).astype(jnp.float32)

    def mean(x: Any) -> Sums:
        return Sums((x * weights).sum(), weights.sum())

    return {"itm": mean(loss), "itm_accuracy": mean(correct)}
