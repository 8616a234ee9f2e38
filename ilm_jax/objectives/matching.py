"""Item-text matching: is this text the item's own? (BLIP-2's ITM, with items for images.)"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ilm_jax.objectives.objective import Sums


class MatchingBatch(NamedTuple):
    """A row's three pairs: the true one, its text with a wrong item, its item with a wrong text.

    They stand side by side, so that a row's pairs are on the device where the row is.
    """

    vectors: Float[Array, "batch pairs cf"]
    text: Int[Array, "batch pairs length"]
    labels: Int[Array, "batch pairs"]
    weights: Float[Array, "batch pairs"]


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
    rows = vectors.shape[0]
    weights = [jnp.ones(rows, bool), negative_left >= 0, negative_right >= 0]
    return MatchingBatch(
        vectors=jnp.stack([vectors, wrong_vectors, vectors], axis=1),
        text=jnp.stack([text, text, wrong_text], axis=1),
        labels=jnp.broadcast_to(jnp.array([1, 0, 0]), (rows, 3)),
        weights=jnp.stack(weights, axis=1).astype(jnp.float32),
    )


def matching_loss(
    logits: Float[Array, "*pairs 2"], labels: Int[Array, "*pairs"], weights: Float[Array, "*pairs"]
) -> dict[str, Sums]:
    """Two-class cross-entropy (label 1: matched) and accuracy, over pairs of weight 1."""
    log_p = jax.nn.log_softmax(logits.astype(jnp.float32))
    loss = -jnp.take_along_axis(log_p, labels[..., None], -1)[..., 0]
    correct = (logits.argmax(-1) == labels).astype(jnp.float32)

    def mean(x: Array) -> Sums:
        """The weighted sum and its weight."""
        return Sums((x * weights).sum(), weights.sum())

    return {"itm": mean(loss), "itm_accuracy": mean(correct)}
