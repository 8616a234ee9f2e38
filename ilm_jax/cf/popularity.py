"""The baseline that every collaborative filter must beat: items by training popularity."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float32, Int, Int64


def popularity_scorer(
    counts: Int64[np.ndarray, " items"],
) -> Callable[[Int[np.ndarray, " batch"]], Float32[np.ndarray, "batch items"]]:
    """A scorer for `ilm_jax.cf.evaluation` that gives every user the items' training counts.

    Args:
      counts: number of training interactions of every item (`Splits.train_counts`); exact in
        float32 up to 2^24.
    """
    scores = counts.astype(np.float32)

    def score(users: Int[np.ndarray, " batch"]) -> Float32[np.ndarray, "batch items"]:
        """The same scores for every user."""
        return np.broadcast_to(scores, (len(users), len(scores)))

    return score
