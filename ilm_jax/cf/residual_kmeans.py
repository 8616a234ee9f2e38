"""Residual k-means: vectors as sums of centroids, one of each level, coarse to fine.

The first level's centroids are those of the vectors, the next level's those of what the first
leaves over, and so on (residual vector quantisation; Chen et al. 2010, Sensors 10(12), section 3).
The same vectors and seed give the same bits on one machine.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32, Float64, Int32

from ilm_jax.errors import UserError

Vectors = Float32[np.ndarray, "rows dim"]
_ROWS = 8192  # whose distances exist at once


def fit(
    vectors: Vectors, sizes: Sequence[int], seed: int = 0, iterations: int = 50
) -> list[Float32[np.ndarray, "size dim"]]:
    """Codebooks, one a level.

    Args:
      vectors: to be quantised.
      sizes: centroids of each level.
      seed: of the first centroids.
      iterations: of Lloyd's algorithm at most, for each level.

    Raises:
      UserError: if a level has more centroids than there are vectors.
    """
    if max(sizes) > len(vectors):
        raise UserError(
            f"{len(vectors)} items have vectors, and a level {max(sizes)} codes: give smaller "
            "levels, such as --levels=16,16,16"
        )
    residual = vectors.astype(np.float32)
    codebooks = []
    for level, size in enumerate(sizes):
        draw = np.random.Generator(np.random.Philox(key=[seed, level]))
        codebooks.append(kmeans(residual, size, draw, iterations))
        residual = residual - codebooks[-1][nearest(residual, codebooks[-1])[0]]
    return codebooks


def kmeans(
    vectors: Vectors, size: int, draw: np.random.Generator, iterations: int = 50
) -> Float32[np.ndarray, "size dim"]:
    """Centroids by Lloyd's algorithm from a k-means++ start.

    A cluster that loses all of its vectors starts anew at the vector that is farthest from its
    centroid; where fewer vectors differ than there are centroids, some stay without any.
    """
    centroids = _plus_plus(vectors, size, draw)
    before: np.ndarray | None = None
    for _ in range(iterations):
        labels, distances = nearest(vectors, centroids)
        if before is not None and np.array_equal(labels, before):
            break
        before = labels
        counts = np.bincount(labels, minlength=size)
        centroids = _means(vectors, labels, counts, centroids)
        empty = np.flatnonzero(counts == 0)
        far = np.argsort(-distances, kind="stable")[: len(empty)]
        far = far[distances[far] > 0]
        centroids[empty[: len(far)]] = vectors[far]
    return centroids


def nearest(
    vectors: Vectors, centroids: Float32[np.ndarray, "size dim"]
) -> tuple[Int32[np.ndarray, " rows"], Float32[np.ndarray, " rows"]]:
    """(the nearest centroid of every vector, its squared distance); the first of equal ones."""
    labels = np.empty(len(vectors), np.int32)
    distances = np.empty(len(vectors), np.float32)
    norms = np.square(centroids).sum(1)
    for start in range(0, len(vectors), _ROWS):
        part = slice(start, start + _ROWS)
        rows = vectors[part]
        scores = norms - 2 * rows @ centroids.T
        labels[part] = found = np.argmin(scores, axis=1)
        # Not from `scores`, where a distance of zero is the difference of two large numbers.
        distances[part] = np.square(rows - centroids[found]).sum(1)
    return labels, distances


def _plus_plus(
    vectors: Vectors, size: int, draw: np.random.Generator
) -> Float32[np.ndarray, "size dim"]:
    """Each next centroid is a vector, drawn by its squared distance to those that are there.

    Arthur & Vassilvitskii 2007, k-means++, section 2.2.
    """
    chosen = np.empty(size, np.int64)
    chosen[0] = draw.integers(len(vectors))
    distances = _to(vectors, chosen[0])
    for k in range(1, size):
        sums = np.cumsum(distances)
        if sums[-1] > 0:
            place = np.searchsorted(sums, draw.random() * sums[-1], side="right")
            chosen[k] = min(place, len(vectors) - 1)
        else:  # all that differ are there
            chosen[k] = draw.integers(len(vectors))
        distances = np.minimum(distances, _to(vectors, chosen[k]))
    return vectors[chosen].copy()


def _to(vectors: Vectors, row: int) -> Float64[np.ndarray, " rows"]:
    return np.square(vectors - vectors[row]).sum(1, dtype=np.float64)


def _means(
    vectors: Vectors, labels: np.ndarray, counts: np.ndarray, centroids: np.ndarray
) -> Float32[np.ndarray, "size dim"]:
    """Means of each cluster's vectors; those of empty ones stay."""
    order = np.argsort(labels, kind="stable")
    full = np.flatnonzero(counts)
    starts = (np.cumsum(counts) - counts)[full]
    sums = np.add.reduceat(vectors[order], starts, axis=0, dtype=np.float64)
    means = centroids.copy()
    means[full] = sums / counts[full, None]
    return means
