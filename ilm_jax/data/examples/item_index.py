"""Item indexing after OpenP5 (Xu et al. 2023): which string is an item's id.

Every kind reads training interactions only, so that an id says nothing of held-out ones; items
without any are numbered behind the others in the order of a hash. (Numbered over whole sequences,
as OpenP5 publishes them, sequential ids give the answer away: on Beauty "last id + 1" is the
held-out item of 2.4 % of users. By training alone it is that of 0.7 %, which is the taste that
neighbours in the walk share: ids made by other users alone give the same; by lot it is 0.01 %.)

  random         item_1042: the order of the hashes of raw ids; knows nothing of interactions.
  sequential     item_1042: the order in which a walk over the users meets the items.
  collaborative  item_<CI3><CI17>: clusters of items that the same users chose.
  semantic       <a_17><b_3><c_201><d_0>: codes of the items' vectors, from a file.
"""

import functools
import hashlib
import pathlib
from collections import deque
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int64

from ilm_jax.data.catalogue.splits import Splits
from ilm_jax.data.examples.item_codes import ItemCodes
from ilm_jax.data.examples.prompt_settings import PromptSettings
from ilm_jax.errors import UserError

if TYPE_CHECKING:
    import scipy.sparse

FIRST_ITEM_NUMBER, FIRST_USER_NUMBER = 1001, 1
# Spectral clustering takes minutes on large catalogues and is asked for by several tasks.
_known: dict[tuple, list[str]] = {}


def item_names(splits: Splits, settings: PromptSettings) -> list[str]:
    """The id string of every item of the catalogue, such as "item_1042"; all different.

    Raises:
      UserError: for semantic ids without a file of codes, or with one of other items.
    """
    if settings.item_index == "semantic":
        return item_codes(settings, splits).names
    if settings.item_index == "collaborative":
        sizes = settings.cluster_tokens, settings.cluster_split
        key = (splits.fingerprint, settings.seed, *sizes)
        if key not in _known:
            tokens = collaborative(splits, *sizes, settings.seed)
            _known[key] = ["item_" + "".join(map(cluster_token, row)) for row in tokens]
        return _known[key]
    if settings.item_index == "sequential":
        numbers = sequential_numbers(splits, settings.index_order, settings.seed)
    else:
        numbers = random_numbers(
            splits.catalogue.item_ids, FIRST_ITEM_NUMBER, settings.seed, "item"
        )
    return [f"item_{number}" for number in numbers.tolist()]


def user_names(splits: Splits, settings: PromptSettings) -> list[str]:
    """The id string of every user, such as "user_7": random numbers, by hash."""
    ids = splits.catalogue.user_ids
    numbers = random_numbers(ids, FIRST_USER_NUMBER, settings.seed, "user")
    return [f"user_{number}" for number in numbers.tolist()]


def cluster_token(number: int) -> str:
    """Spelling of a cluster."""
    return f"<CI{number}>"


def vocabulary(settings: PromptSettings, item_index: str | None = None) -> list[str]:
    """The strings that a tokenizer trained for these ids keeps whole.

    Args:
      settings: of the ids.
      item_index: another kind of ids than the settings', if given; "" for none.

    Raises:
      UserError: for semantic ids without a file of codes.
    """
    kind = settings.item_index if item_index is None else item_index
    if kind == "semantic":
        return item_codes(settings).words
    if kind == "collaborative":
        return [cluster_token(number) for number in range(settings.cluster_tokens)]
    return []


def item_codes(settings: PromptSettings, splits: Splits | None = None) -> ItemCodes:
    """The codes that the settings name.

    Raises:
      UserError: if they name none, or codes of other items than the splits'.
    """
    if not settings.item_codes:
        raise UserError(
            "semantic ids need a file of codes: make it by `ilm semantic_ids`, and name it by "
            "TaskSettings.item_codes (of a recipe: --gin.ITEM_CODES=FILE; of a verb: "
            """--settings='{"item_codes": "FILE"}')"""
        )
    path = pathlib.Path(settings.item_codes).expanduser()
    stamp = (path.stat().st_size, path.stat().st_mtime_ns) if path.is_file() else None
    codes = _codes_of(path, stamp)
    if splits is not None:
        codes.check(splits, path)
    return codes


# Read by every stream of a run, for its tokenizer and for its prompts.
@functools.lru_cache(maxsize=4)
def _codes_of(path: pathlib.Path, stamp: tuple[int, int] | None) -> ItemCodes:
    return ItemCodes.load(path)


def random_numbers(
    ids: Sequence[str], first: int, seed: int, kind: str
) -> Int64[np.ndarray, " rows"]:
    """A random number for each id, from `first` up without gaps: the order of their hashes."""
    numbers = np.empty(len(ids), np.int64)
    numbers[_hash_order(ids, seed, kind)] = np.arange(first, first + len(ids))
    return numbers


def sequential_numbers(splits: Splits, order: str, seed: int) -> Int64[np.ndarray, " items"]:
    """Numbers from 1001 in the order of the first training interaction.

    Args:
      splits: gives the training interactions, users in the catalogue's order.
      order: "original", or users by the length of their training sequence ("short2long",
        "long2short"; equally long ones keep their order).
      seed: of the hash that orders items without training interactions.
    """
    users, items = splits.train_interactions()
    if order != "original":
        lengths = np.bincount(users, minlength=splits.catalogue.num_users)[users]
        items = items[np.argsort(lengths if order == "short2long" else -lengths, kind="stable")]
    found, first = np.unique(items, return_index=True)
    met = found[np.argsort(first)]
    rows = np.concatenate([met, _unmet(splits, seed)]).astype(np.int64)
    numbers = np.empty(len(rows), np.int64)
    numbers[rows] = np.arange(FIRST_ITEM_NUMBER, FIRST_ITEM_NUMBER + len(rows))
    return numbers


def collaborative(splits: Splits, tokens: int, parts: int, seed: int) -> list[tuple[int, ...]]:
    """Cluster numbers of every item, coarse to fine.

    The items of training are clustered by how often two of them occur with one user, into `parts`
    clusters, and these again, breadth first; clusters are numbered as they appear, modulo
    `tokens`. In a group of at most `tokens` items, an item's last number is its place. Items
    without training interactions get the shortest number strings that are still free.

    Args:
      splits: gives the training interactions.
      tokens: OpenP5's k, at least `parts`.
      parts: OpenP5's N, at least 2.
      seed: of the hash that orders items without training interactions.
    """
    counts = _co_occurrence(splits)
    met = np.flatnonzero(splits.train_counts())
    names: list[tuple[int, ...]] = [()] * splits.catalogue.num_items
    waiting: deque[tuple[np.ndarray, tuple[int, ...]]] = deque([(met, ())])
    number = 0
    while waiting:
        group, prefix = waiting.popleft()
        if len(group) <= tokens:
            for place, row in enumerate(group.tolist()):
                names[row] = (*prefix, place)
            continue
        for part in _clusters(counts[group][:, group], parts):
            waiting.append((group[part], (*prefix, number % tokens)))
            number += 1
    taken = set(names)
    free = (name for name in _count_up(tokens) if name not in taken)
    for row in _unmet(splits, seed).tolist():
        names[row] = next(free)
    return names


def _co_occurrence(splits: Splits) -> "scipy.sparse.csr_array":
    """[items, items]: users who chose both in training; the diagonal is zero."""
    import scipy.sparse

    users, items = splits.train_interactions()
    pairs = np.unique(np.stack([users, items], 1), axis=0)
    shape = splits.catalogue.num_users, splits.catalogue.num_items
    chosen = scipy.sparse.csr_array(
        (np.ones(len(pairs), np.float64), (pairs[:, 0], pairs[:, 1])), shape
    )
    counts = scipy.sparse.csr_array(chosen.T @ chosen)
    return scipy.sparse.csr_array(counts - scipy.sparse.diags_array(counts.diagonal()))


def _clusters(counts: "scipy.sparse.csr_array", parts: int) -> list[np.ndarray]:
    """At least two groups of rows: spectral clusters where there are any, else equal slices."""
    import warnings

    import scipy.sparse
    from sklearn.cluster import SpectralClustering

    model = SpectralClustering(
        parts,
        affinity="precomputed",
        assign_labels="cluster_qr",
        random_state=0,
        eigen_solver="lobpcg",
    )
    affinity = scipy.sparse.csr_matrix(counts)  # what scikit-learn 1.3 takes
    affinity.eliminate_zeros()
    affinity.indices, affinity.indptr = (
        affinity.indices.astype(np.int32),
        affinity.indptr.astype(np.int32),
    )
    with warnings.catch_warnings():  # parts that nothing connects are no fault here
        warnings.simplefilter("ignore")
        labels = model.fit_predict(affinity)
    groups = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    return groups if len(groups) > 1 else np.array_split(np.arange(counts.shape[0]), parts)


def _unmet(splits: Splits, seed: int) -> Int64[np.ndarray, " rows"]:
    """Rows of the items without training interactions, in the order of their hashes."""
    rows = np.flatnonzero(splits.train_counts() == 0)
    ids = [splits.catalogue.item_ids[row] for row in rows.tolist()]
    return rows[_hash_order(ids, seed, "item")]


def _hash_order(ids: Sequence[str], seed: int, kind: str) -> list[int]:
    digests = [hashlib.sha256(f"{seed}:{kind}:{raw}".encode()).digest() for raw in ids]
    return sorted(range(len(ids)), key=digests.__getitem__)


def _count_up(base: int) -> Iterator[tuple[int, ...]]:
    """All number strings, the short ones first."""
    length = 1
    while True:
        for number in range(base**length):
            yield tuple(number // base**place % base for place in reversed(range(length)))
        length += 1
