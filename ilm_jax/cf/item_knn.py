"""Item-kNN: the baseline that scores an item by its likeness to the items of the history.

sim(i, j) = |U_i and U_j| / (sqrt(|U_i| |U_j|) + shrinkage), the cosine of the two items' user
sets (Sarwar et al. 2001), of which each item keeps its `neighbours` largest; the score of an item
is the sum of its likeness to the user's items.
"""

import dataclasses

import numpy as np
import scipy.sparse
from jaxtyping import Float32, Int

from ilm_jax.cf.interactions import Interactions
from ilm_jax.checks import Count, Weight, check

DENSE = 1 << 28
"""Likenesses of a block that may exist at once (1 GiB)."""


@dataclasses.dataclass(frozen=True)
class ItemKNNConfig:
    """Settings of `fit`.

    Attributes:
      neighbours: kept for each item.
      shrinkage: pulls the likeness of items with few users towards 0.
      rows: items whose likenesses exist at once.
    """

    neighbours: Count = 100
    shrinkage: Weight = 10.0
    rows: Count = 1024

    def __post_init__(self) -> None:
        check(self)


@dataclasses.dataclass(frozen=True, eq=False)
class ItemKNN:
    """Similarity of every item to its neighbours, and the histories to score items for."""

    likeness: scipy.sparse.csr_matrix
    train: Interactions

    def __call__(self, users: Int[np.ndarray, " batch"]) -> Float32[np.ndarray, "batch items"]:
        """Scores of all items for a batch of user rows: a scorer for `evaluation.evaluate`."""
        return np.asarray((_matrix(self.train)[users] @ self.likeness).todense(), np.float32)


def _matrix(train: Interactions) -> scipy.sparse.csr_matrix:
    ones = np.ones(len(train.items), np.float32)
    return scipy.sparse.csr_matrix(
        (ones, train.items, train.offsets), shape=(train.num_users, train.num_items)
    )


def fit(train: Interactions, config: ItemKNNConfig | None = None) -> ItemKNN:
    """Counts co-occurrences, a block of items at a time, and keeps each item's best neighbours."""
    config = config or ItemKNNConfig()
    met = _matrix(train)
    turned = met.T.tocsr()
    size = np.sqrt(train.item_counts().astype(np.float32))
    # Where a block is too large to be dense, its rows are cut as they are.
    best = _best_dense if config.rows * train.num_items <= DENSE else _best_sparse
    parts = [
        best(turned[first : first + config.rows] @ met, first, size, config)
        for first in range(0, train.num_items, config.rows)
    ]
    # Row i holds what item i lends to its neighbours: scores are history @ likeness.
    likeness = scipy.sparse.vstack(parts).tocsr()
    likeness.eliminate_zeros()
    return ItemKNN(likeness, train)


def _best_dense(
    together: scipy.sparse.csr_matrix,
    first: int,
    size: Float32[np.ndarray, " items"],
    config: ItemKNNConfig,
) -> scipy.sparse.csr_matrix:
    block = np.asarray(together.todense(), np.float32)
    rows = np.arange(first, first + len(block))
    block /= size[rows, None] * size[None, :] + config.shrinkage + 1e-12
    block[np.arange(len(block)), rows] = 0.0
    keep = min(config.neighbours, block.shape[1])
    best = np.argpartition(-block, keep - 1, axis=1)[:, :keep]
    values = np.take_along_axis(block, best, axis=1)
    index = np.broadcast_to(np.arange(len(block))[:, None], best.shape)
    return scipy.sparse.csr_matrix(
        (values.ravel(), (index.ravel(), best.ravel())), shape=block.shape
    )


def _best_sparse(
    together: scipy.sparse.csr_matrix,
    first: int,
    size: Float32[np.ndarray, " items"],
    config: ItemKNNConfig,
) -> scipy.sparse.csr_matrix:
    """The same of the items that were met together, the lower row first where likenesses tie."""
    rows = np.repeat(np.arange(together.shape[0]), np.diff(together.indptr))
    other = together.indices
    values = together.data / (size[rows + first] * size[other] + config.shrinkage + 1e-12)
    values = np.where(other == rows + first, 0, values).astype(np.float32)
    order = np.lexsort((other, -values, rows))
    place = np.arange(len(order)) - np.repeat(together.indptr[:-1], np.diff(together.indptr))
    kept = order[place < config.neighbours]
    return scipy.sparse.csr_matrix((values[kept], (rows[kept], other[kept])), shape=together.shape)
