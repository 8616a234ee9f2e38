"""Which examples are measured: a fixed sample, by a hash of ids.

The `size` users (or texts) whose ids have the smallest hashes: the same ones for every model, every
task, any order of the file and any number of others, and a larger sample holds the smaller ones.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Int64

from ilm_jax.data.examples.example import Example

SEED = "ilm_jax sample 1"


@functools.cache
def _seeded() -> "hashlib._Hash":
    return hashlib.sha256(f"{SEED}\0".encode())


def mark(*ids: str) -> bytes:
    """What ids are ordered by: eight bytes of a hash of each."""
    found = b""
    for raw in ids:
        digest = _seeded().copy()
        digest.update(raw.encode("utf-8", "surrogatepass"))
        found += digest.digest()[:8]
    return found


def user_mark(example: Example) -> bytes:
    """Of the example's user, so that a user is chosen with all its examples."""
    return mark(str(example.get("user") or example["key"]))


def text_mark(example: Example, item_ids: Sequence[str]) -> bytes:
    """Of the example's user, else its item; examples of one are told apart by their keys."""
    row = int(example.get("target_item", -1))
    subject = example.get("user") or (item_ids[row] if row >= 0 else example["key"])
    return mark(str(subject), str(example["key"]))


@dataclasses.dataclass(frozen=True, eq=False)
class Sample:
    """Examples that are measured.

    Attributes:
      numbers: of the examples, ascending.
      measured, total: users (or texts) that they are of, and that there are.
    """

    numbers: Int64[np.ndarray, " sample"]
    measured: int
    total: int

    def __str__(self) -> str:
        if self.measured == self.total:
            return str(self.total)
        share = 100 * self.measured / self.total
        return f"{self.measured}, a fixed sample of {self.total} ({share:.3g} %) by a hash of ids"


def sample_examples(marks: Sequence[bytes], size: int | None) -> Sample:
    """The examples of the `size` smallest different marks; all if None or not below them all.

    Raises:
      ValueError: for a size below 1.
    """
    if size is not None and size < 1:
        raise ValueError(f"a sample of {size}: give at least 1, or None for all")
    different = sorted(set(marks))
    kept = set(different[:size])
    numbers = [number for number, mark in enumerate(marks) if mark in kept]
    return Sample(np.array(numbers, np.int64), len(kept), len(different))


def fingerprint(examples: Iterable[Example], item_ids: Sequence[str] | None = None) -> str:
    """Of what was measured, in order: keys, users and right answers.

    Args:
      examples: the measured ones.
      item_ids: given where answers are items, which count by id however a task calls them.
    """
    digest = hashlib.sha256()
    for example in examples:
        if item_ids is None:
            answer = example["target_text"]
        else:
            answer = item_ids[int(example["target_item"])]
        words = "\0".join((str(example["key"]), str(example.get("user", "")), str(answer)))
        digest.update(f"{words}\n".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()[:16]


def candidates_fingerprint(examples: Iterable[Example], item_ids: Sequence[str]) -> str:
    """Of the lists of candidates that these examples name, as sets, whatever they came from.

    Args:
      examples: the measured ones, in order.
      item_ids: of the catalogue.
    """
    digest = hashlib.sha256()
    for example in examples:
        names = sorted(item_ids[int(row)] for row in example["candidates"])
        words = "\0".join((str(example["key"]), *names))
        digest.update(f"{words}\n".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()[:16]
