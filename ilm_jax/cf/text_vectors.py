"""Vectors of item texts without a language model: TF-IDF and a truncated SVD (Deerwester 1990).

For the text half of a "combined" table. Texts of held-out items are never read: neither the words'
weights nor the directions come from them, and their rows stay zero and cold, so that a combined
table tells no model what describing held-out items should measure.
"""

import dataclasses
from collections import Counter
from collections.abc import Sequence

import numpy as np
import scipy.sparse
import scipy.sparse.linalg
from jaxtyping import Float32

from ilm_jax.cf.ials import Factors
from ilm_jax.checks import Count, Seed, check
from ilm_jax.data.catalogue.splits import TRAIN, Splits
from ilm_jax.data.catalogue.word_pattern import letters


@dataclasses.dataclass(frozen=True)
class TextConfig:
    """Settings of `fit`.

    Attributes:
      dim: length of the vectors.
      least_items: words in fewer texts are left out.
      seed: of the SVD's first vector.
    """

    dim: Count = 32
    least_items: Count = 2
    seed: Seed = 0

    def __post_init__(self) -> None:
        check(self)


def fit(splits: Splits, config: TextConfig | None = None) -> Factors:
    """Vectors of the texts of training items; a user's is the mean over the training history.

    Raises:
      ValueError: if the texts have fewer words or items than the vectors have entries.
    """
    item = space(splits, config).item
    return Factors(_user_means(splits, item), item)


@dataclasses.dataclass(frozen=True, eq=False)
class TextSpace:
    """The directions that the texts of training items span.

    Attributes:
      item: vectors of the items' texts; zero for held-out items.
      words: the column of every word, their weights, and what each adds to a vector.
    """

    item: Float32[np.ndarray, "items dim"]
    words: tuple[dict[str, int], np.ndarray, np.ndarray]

    def encode(self, texts: Sequence[str]) -> Float32[np.ndarray, "texts dim"]:
        """Vectors of further texts, as those of the items; zero for one of unknown words."""
        column, weights, directions = self.words
        found = np.zeros((len(texts), directions.shape[1]), np.float32)
        for row, text in enumerate(texts):
            bag = Counter(word for word in letters().findall(text.lower()) if word in column)
            if bag:
                at = [column[word] for word in bag]
                value = (1 + np.log(list(bag.values()))) * weights[at]
                found[row] = value @ directions[at] / max(float(np.linalg.norm(value)), 1e-12)
        return found


def space(splits: Splits, config: TextConfig | None = None) -> TextSpace:
    """The space of the texts of training items; errors as `fit`."""
    config = config or TextConfig()
    texts = splits.catalogue.texts
    shown = np.flatnonzero(splits.item_fold == TRAIN)
    bags = [Counter(letters().findall(texts[row].lower())) for row in shown.tolist()]
    spread = Counter(word for bag in bags for word in bag)
    column = {
        w: i for i, w in enumerate(sorted(w for w in spread if spread[w] >= config.least_items))
    }
    if min(len(column), len(shown)) <= config.dim:
        raise ValueError(
            f"{len(shown)} texts share {len(column)} words: too few for "
            f"{config.dim} text dimensions"
        )
    rows, columns, values = [], [], []
    for row, bag in enumerate(bags):
        for word, count in bag.items():
            if word in column:
                rows.append(row)
                columns.append(column[word])
                values.append((1 + np.log(count)) * np.log(len(shown) / spread[word]))
    matrix = scipy.sparse.csr_matrix((values, (rows, columns)), shape=(len(shown), len(column)))
    length = np.sqrt(np.asarray(matrix.multiply(matrix).sum(1))).ravel()
    matrix = scipy.sparse.diags(1 / np.maximum(length, 1e-12)) @ matrix
    start = np.random.default_rng(config.seed).normal(size=min(matrix.shape))
    left, size, right = scipy.sparse.linalg.svds(matrix, k=config.dim, v0=start)
    item = np.zeros((len(texts), config.dim), np.float32)
    # Largest direction first, and each with its largest entry positive: svds fixes neither.
    left = left[:, ::-1] * size[::-1]
    signs = np.sign(left[np.abs(left).argmax(0), np.arange(config.dim)])
    item[shown] = left * signs
    weights = np.log(len(shown) / np.array([spread[word] for word in column]))
    return TextSpace(item, (column, weights, right[::-1].T * signs))


def _user_means(
    splits: Splits, item: Float32[np.ndarray, "items dim"]
) -> Float32[np.ndarray, "users dim"]:
    users, items = splits.train_interactions()
    ones = np.ones(len(users), np.float32)
    shape = splits.catalogue.num_users, splits.catalogue.num_items
    history = scipy.sparse.csr_matrix((ones, (users, items)), shape=shape)
    known = np.asarray(history @ item.any(1).astype(np.float32))
    return (history @ item / np.maximum(known, 1)[:, None]).astype(np.float32)
