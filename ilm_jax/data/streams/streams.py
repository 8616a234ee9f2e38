"""Streams: an endless or a finite sequence of examples, each a pure function of its number.

Grain's shuffle and mix compute where example i comes from without visiting those before it, so
resuming anywhere costs the same as starting, and any number of processes read the same stream.
"""

import bisect
import dataclasses
import functools
import itertools
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from ilm_jax.checks import Count, Positive, check
from ilm_jax.data import draws
from ilm_jax.data.examples.example import Example
from ilm_jax.errors import UserError

if TYPE_CHECKING:
    import grain


class Source(Protocol):
    """A source of examples: a `CachedTask`, or anything with a length and random access."""

    def __len__(self) -> int:
        """Number of examples."""

    def __getitem__(self, index: int) -> Example:
        """Example `index`, always the same."""


@runtime_checkable
class Uncounted(Source, Protocol):
    """A source that takes long to count, and is read and mixed without being counted."""

    def about(self) -> float:
        """About how many examples there are."""

    def endless(self, seed: int | None) -> Source:
        """Examples without end, in an order of each epoch's own; None: in the source's order."""


@dataclasses.dataclass(frozen=True)
class Mixture:
    """A mixture of tasks, in T5's terms (Raffel et al. 2020, section 3.5.2).

    Attributes:
      rates: relative rate of each task; None stands for its number of examples, at most `cap`.
      temperature: a size-based rate is raised to 1 / temperature. Given rates stay as they are.
      cap: limit on the number of examples; None for no limit.
    """

    rates: Mapping[str, Positive | None]
    temperature: Positive = 1.0
    cap: Count | None = None

    def __post_init__(self) -> None:
        check(self)

    def weights(self, sizes: Mapping[str, float]) -> dict[str, float]:
        """Share of each task, summing to 1.

        Args:
          sizes: number of examples of each task.

        Raises:
          UserError: if there is no task, a rate is not positive, or a task has no size.
        """
        if not self.rates:
            raise UserError("a mixture without tasks; name at least one")
        weights = {}
        for name, rate in self.rates.items():
            if name not in sizes:
                raise UserError(f"mixture task {name!r} is not among {', '.join(sizes)}")
            if rate is None:
                try:
                    rate = min(sizes[name], self.cap or sizes[name]) ** (1 / self.temperature)
                except OverflowError as error:
                    raise UserError(
                        f"mixture temperature={self.temperature} is too low for {name} of "
                        f"{sizes[name]} examples"
                    ) from error
            weights[name] = float(rate)
        total = sum(weights.values())
        return {name: weight / total for name, weight in weights.items()}


class Stream:
    """Examples by number: `stream[i]` for any i >= 0, endless if `repeat`.

    Attributes:
      weights: share of each source.
    """

    def __init__(
        self,
        sources: Mapping[str, Source],
        mixture: Mixture | None = None,
        *,
        seed: int = 0,
        shuffle: bool = True,
        repeat: bool = True,
        block: int = 0,
        transform: Callable[[Example, np.random.Generator], Example] | None = None,
    ) -> None:
        """Makes the stream; nothing is read yet.

        Args:
          sources: by task name. Each is shuffled on its own, anew in each epoch.
          mixture: shares of the sources; None: by size. Only an endless stream is mixed; a finite
            one is the sources one after the other.
          seed: of the shuffle, together with the task's name.
          shuffle: False keeps the sources' order.
          repeat: False for evaluation: one pass.
          block: of an endless stream of several sources: so many examples of one follow each other,
            then as many of the next, by turns in the mixture's order (a small source starts over
            the sooner); 0: they are mixed one by one.
          transform: a cheap draw on an example, given a generator keyed by its number.

        Raises:
          UserError: if a source is empty or the mixture does not fit the sources, or says rates
            where sources take turns.
        """
        sizes = {name: _about(source) for name, source in sources.items()}
        for name, size in sizes.items():
            if not size:
                raise UserError(f"{name} has no examples in this split")
        mixture = mixture or Mixture(dict.fromkeys(sources))
        if block and len(set(mixture.rates.values())) > 1:
            raise UserError(
                f"a mixture with rates {dict(mixture.rates)} and block={block}: tasks that take "
                "turns have equal shares; leave the rates or the block out"
            )
        self.weights = mixture.weights(sizes)
        if block:
            self.weights = dict.fromkeys(self.weights, 1 / len(self.weights))
        self._sources = {name: sources[name] for name in self.weights}
        self._seed, self._repeat, self._block, self._transform = seed, repeat, block, transform
        self._names = list(self._sources)
        self._parts: list[Source] = []
        for name, source in self._sources.items():
            order = draws.integer(2**31, seed, "shuffle", name) if shuffle else None
            if repeat and isinstance(source, Uncounted):
                self._parts.append(source.endless(order))
            else:
                self._parts.append(Epochs(source, order))
        once = [] if repeat else [len(source) for source in self._sources.values()]
        self._starts = [0, *itertools.accumulate(once)]

    def __getstate__(self) -> dict[str, Any]:
        made = ("_mixed", "_drawn")
        return {name: value for name, value in self.__dict__.items() if name not in made}

    @property
    def len_epoch(self) -> int:
        """Examples in one pass over all sources."""
        return sum(len(source) for source in self._sources.values())

    @functools.cached_property
    def _mixed(self) -> "grain.MapDataset":
        """(source, number there) of every example, by the mixture's shares."""
        import grain

        places = [grain.MapDataset.source(_Places(which)) for which in range(len(self._parts))]
        return grain.MapDataset.mix(places, weights=list(self.weights.values()))

    @functools.cached_property
    def _drawn(self) -> "grain.MapDataset":
        """The examples with what is drawn of them."""
        import grain

        examples = grain.MapDataset.source(_Undrawn(self)).seed(self._seed)
        return examples.random_map(self._transform)

    def __len__(self) -> int:
        """Number of examples; for an endless stream, the largest number there is."""
        return sys.maxsize if self._repeat else self._starts[-1]

    def __getitem__(self, index: int) -> Example:
        """Example number `index`, with its task's name under "task".

        Raises:
          IndexError: if the index is negative or past the end of a finite stream.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"stream has no example {index}")
        return self._undrawn(int(index)) if self._transform is None else self._drawn[int(index)]

    def _undrawn(self, index: int) -> Example:
        which, place = self._place(index)
        return {**self._parts[which][place], "task": self._names[which]}

    def _place(self, index: int) -> tuple[int, int]:
        """Which source an example is of, and the how manieth of that source's."""
        if len(self._parts) == 1:
            return 0, index
        if not self._repeat:
            which = bisect.bisect_right(self._starts, index) - 1
            return which, index - self._starts[which]
        if self._block:
            turn, place = divmod(index, self._block)
            times, which = divmod(turn, len(self._parts))
            return which, times * self._block + place
        return self._mixed[index]

    def batch(self, indices: Sequence[int] | np.ndarray) -> list[Example]:
        """The examples of these numbers, in this order."""
        return [self[int(index)] for index in indices]


def _about(source: Source) -> float:
    return source.about() if isinstance(source, Uncounted) else len(source)


class Epochs:
    """A source without end, each epoch in an order of its own.

    The order is that of grain's `shuffle` and `repeat`, which record what passes through them and
    so take as long as an example takes to make.
    """

    def __init__(self, source: Source, seed: int | None) -> None:
        """Reads nothing.

        Args:
          source: not empty.
          seed: of the order; None: the source's.
        """
        self._source, self._seed = source, seed

    def __len__(self) -> int:
        return sys.maxsize

    def __getitem__(self, index: int) -> Example:
        length = len(self._source)
        epoch, place = divmod(index, length)
        if self._seed is not None:
            seed = (self._seed + epoch) % 2**32
            place = _shuffled()(place, max_index=length - 1, seed=seed, rounds=4)
        return self._source[place]


@functools.cache
def _shuffled() -> Callable[..., int]:
    from grain.experimental import index_shuffle  # takes a second

    return index_shuffle


class _Places:
    """The numbers of a source's examples, without end, in the place of these."""

    def __init__(self, which: int) -> None:
        self._which = which

    def __len__(self) -> int:
        return sys.maxsize

    def __getitem__(self, index: int) -> tuple[int, int]:
        return self._which, int(index)


class _Undrawn:
    """A stream before anything is drawn of its examples."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def __len__(self) -> int:
        return len(self._stream)

    def __getitem__(self, index: int) -> Example:
        return self._stream._undrawn(int(index))
