"""Each item's nearest item of the training fold, by who chose it or by its words."""

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int64

from ilm_jax.data.catalogue.splits import TRAIN, Splits
from ilm_jax.data.catalogue.word_pattern import word

if TYPE_CHECKING:
    import scipy.sparse

_BLOCK = 512
_known: dict[tuple[str, str], np.ndarray] = {}


def nearest(splits: Splits, space: str) -> Int64[np.ndarray, " items"]:
    """Row of the nearest training item; -1 where nothing is alike.

    Neighbours are items of the training fold, so that naming one gives no held-out words away.

    Args:
      splits: of the catalogue; only training interactions, and words of the training fold, decide
        what is near to what.
      space: "cf", the cosine of the sets of users that chose the items in training, or "text", the
        cosine of TF-IDF vectors of their texts.
    """
    key = (splits.fingerprint, space)
    if key not in _known:
        vectors = _by_users(splits) if space == "cf" else _by_words(splits)
        _known[key] = _best(vectors, splits.item_fold == TRAIN)
    return _known[key]


def _by_users(splits: Splits) -> "scipy.sparse.csr_array":
    import scipy.sparse

    users, items = splits.train_interactions()
    pairs = np.unique(np.stack([items, users], 1), axis=0)
    shape = splits.catalogue.num_items, splits.catalogue.num_users
    return _unit(scipy.sparse.csr_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape))


def _by_words(splits: Splits) -> "scipy.sparse.csr_array":
    from sklearn.feature_extraction.text import TfidfVectorizer

    texts = splits.catalogue.texts
    model = TfidfVectorizer(token_pattern=word().pattern, sublinear_tf=True)
    model.fit([texts[row] for row in splits.items_in(TRAIN)])
    return _unit(model.transform(texts))


def _unit(vectors: "scipy.sparse.sparray | scipy.sparse.spmatrix") -> "scipy.sparse.csr_array":
    import scipy.sparse

    vectors = scipy.sparse.csr_array(vectors)
    lengths = np.sqrt(np.asarray(vectors.multiply(vectors).sum(1)).ravel())
    scale = scipy.sparse.diags_array(1 / np.where(lengths > 0, lengths, 1))
    return scipy.sparse.csr_array(scale @ vectors)


def _best(vectors: "scipy.sparse.csr_array", allowed: np.ndarray) -> Int64[np.ndarray, " items"]:
    count = vectors.shape[0]
    best = np.full(count, -1, np.int64)
    for start in range(0, count, _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, count))
        alike = (vectors[rows] @ vectors.T).toarray()
        alike[:, ~allowed] = 0
        alike[np.arange(len(rows)), rows] = 0
        # Rounded, so that sums of equal terms tie everywhere alike; the lower row wins.
        alike = np.round(alike, 9)
        best[rows] = np.where(alike.max(1) > 0, alike.argmax(1), -1)
    return best
