"""Tasks whose examples are made when they are read, so that nothing is waited for but an index.

An example is a pure function of a few integers (`Examples.index`), so that what fills a task cache
also makes example i whenever i is read: the same values, bit for bit, without TensorFlow. What many
examples have in common (names of items, their tokens) is remembered by the task's code, in bounds
(`data/examples/memo.py`), and shared by all streams of a process.
"""

import collections
import pathlib
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from ilm_jax.data.catalogue.catalogue import Catalogue
from ilm_jax.data.catalogue.splits import SplitConfig, Splits, make_splits
from ilm_jax.data.examples.example import Example
from ilm_jax.data.examples.task_keys import effective
from ilm_jax.data.examples.task_settings import TaskSettings
from ilm_jax.data.examples.task_specs import Examples, TaskSpec
from ilm_jax.data.streams.records import as_decoded
from ilm_jax.data.tokenizers import Tokenizer

T = TypeVar("T")

# Tasks whose code, with what it remembers, is kept for the next stream that reads them.
KEPT = 16


class OnDemandTask:
    """One split of a task by random access; example i is a pure function of i.

    A pickled one opens the task again where it arrives (a reader process), from what lies on disk.

    Attributes:
      name: registered name of the task.
      path: where a cache of this split would lie; what is derived from all examples is kept there.
      size: number of examples.
    """

    def __init__(
        self,
        name: str,
        examples: Examples,
        split: str,
        path: pathlib.Path,
        again: Callable[[], Mapping[str, object]],
    ) -> None:
        """Makes the split's index.

        Args:
          name: registered name.
          examples: of the task, made with a tokenizer.
          split: which split.
          path: see above.
          again: opens the same task in another process: {name: task}.
        """
        self.name, self.path, self._split = name, path, split
        self._examples, self._again = examples, again
        index = examples.index(split)
        self._names, self._columns = tuple(index), tuple(index.values())
        self._features = examples.spec.features
        self.size = len(self._columns[0])

    def __reduce__(self) -> tuple[Any, ...]:
        return _only, (self._again,)

    def __len__(self) -> int:
        return self.size

    def __repr__(self) -> str:
        return f"OnDemandTask({self.name!r}, {self._split!r}, {self.size} examples)"

    @property
    def catalogue(self) -> str:
        """Name of the catalogue that local rows count in."""
        return self._examples.splits.catalogue.name

    def __getitem__(self, index: int) -> Example:
        """Example `index`, as `CachedTask` gives it.

        Raises:
          IndexError: outside 0 to len - 1.
        """
        if not 0 <= index < self.size:
            raise IndexError(f"{self!r} has no example {index}")
        integers = {
            name: int(column[index])
            for name, column in zip(self._names, self._columns, strict=True)
        }
        built = self._examples.build(self._split, **integers)
        example = as_decoded(self._features, built)
        example["catalogue"] = self.catalogue
        return example

    def __getitems__(self, indices: Iterable[int]) -> list[Example]:
        """Several examples, in the order asked for."""
        return [self[int(index)] for index in indices]

    def __iter__(self) -> Iterator[Example]:
        return (self[index] for index in range(self.size))


def _only(again: Callable[[], Mapping[str, T]]) -> T:
    (task,) = again().values()
    return task


_kept: collections.OrderedDict[str, Examples] = collections.OrderedDict()
_splits: collections.OrderedDict[SplitConfig, Splits] = collections.OrderedDict()
_lock = threading.Lock()


def splits_of(catalogue: Catalogue, config: SplitConfig) -> Splits:
    """`make_splits`, remembered: every stream of a run asks for them.

    Raises:
      UserError: as `make_splits`.
    """
    with _lock:
        found = _splits.get(config)
    if found is not None and found.catalogue is catalogue:
        return found
    found = make_splits(catalogue, config)
    with _lock:
        _splits[config] = found
        while len(_splits) > KEPT:
            _splits.popitem(last=False)
    return found


def examples_of(
    spec: TaskSpec, settings: TaskSettings, splits: Splits, tokenizer: Tokenizer, key: str
) -> Examples:
    """The examples of a task, the same object for the same task.

    Args:
      spec, settings, splits, tokenizer: see `MakeExamples`.
      key: of all that decides the examples (`task_keys.task_key`).
    """
    with _lock:
        found = _kept.get(key)
        if found is not None and found.spec is spec:
            _kept.move_to_end(key)
            return found
    made = spec.make(splits, effective(spec, settings), tokenizer, spec=spec)
    with _lock:
        _kept[key] = made
        while len(_kept) > KEPT:
            _kept.popitem(last=False)
    return made
