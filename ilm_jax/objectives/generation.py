"""Next-token cross-entropy, in float32."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ilm_jax.objectives.objective import Sums


def token_cross_entropy(
    logits: Float[Array, "... vocab"], labels: Int[Array, "..."], label_smoothing: float = 0.0
) -> Float[Array, "..."]:
    """Cross-entropy of each token in nats.

    With smoothing e the target is (1 - e) on the label and e / vocab on every token.
    """
    logits = logits.astype(jnp.float32)
    lse = jax.nn.logsumexp(logits, axis=-1)
    chosen = jnp.take_along_axis(logits, labels[..., None], axis=-1)[..., 0]
    loss = lse - (1 - label_smoothing) * chosen
    return loss - label_smoothing * logits.mean(-1) if label_smoothing else loss


def weighted(values: Float[Array, "..."], weights: Float[Array, "..."]) -> Sums:
    """Sum of weighted values and sum of weights."""
    # A weight of zero silences also a value that is not finite.
    return Sums(jnp.where(weights > 0, values * weights, 0).sum(), weights.sum())


def caption_loss(
    logits: Float[Array, "batch length vocab"],
    text: Int[Array, "batch length"],
    pad_id: int,
    label_smoothing: float = 0.1,
) -> Sums:
    """ITG: logits at position t predict text[t + 1]; pads are no targets (BLIP-2, section 3.1)."""
    labels = text[:, 1:]
    loss = token_cross_entropy(logits[:, :-1], labels, label_smoothing)
    return weighted(loss, (labels != pad_id).astype(jnp.float32))
