"""Which examples are measured: a fixed sample, the same for every model."""

import numpy as np
from jaxtyping import Int64


def sample_examples(total: int, size: int | None, seed: int = 0) -> Int64[np.ndarray, " sample"]:
    """A fixed sample of example numbers, ascending; all if `size` is None or not below `total`.

    Depends on (total, size, seed) alone, so every model is measured on the same users.
    """
    if size is None or size >= total:
        return np.arange(total, dtype=np.int64)
    generator = np.random.Generator(np.random.Philox(seed))
    return np.sort(generator.choice(total, size=size, replace=False)).astype(np.int64)
