"""Which examples share a row: planned as far as rows are asked for.

Nothing is waited for but the examples of the rows that are read, and a few more; yet a row is as
much a pure function of its number as an example is.
"""

import contextlib
import dataclasses
import operator
import pathlib
import threading
from array import array
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ilm_jax.data import draws
from ilm_jax.errors import UserError
from ilm_jax.files import atomic_write, read_arrays

# Rows that are kept open for further examples.
OPEN_ROWS = 64
# Rows by which a plan judges how many there will be.
JUDGED = 256
# Examples that are placed before a plan is stored; then it is whenever it has doubled.
FIRST_STORED = 4096

Size = tuple[int, int, int]


@dataclasses.dataclass(frozen=True)
class Room:
    """Limits of a row: positions, target tokens, slots and examples."""

    positions: int
    targets: int
    entities: int
    examples: int


class Plan:
    """Rows of examples by number, each made when it or a later one is first asked for.

    Examples are placed in a random order, each in the first open row with room for it. Where none
    has, a row is opened; where as many as may be are open, the fullest is closed for it. Rows count
    in the order in which they are closed, those left open last, so what row k holds depends on the
    examples placed before it was closed and never on when it is asked for. Several threads may ask.
    """

    def __init__(
        self,
        size: Callable[[int], Size],
        examples: int,
        room: Room,
        seed: int,
        file: pathlib.Path | None = None,
    ) -> None:
        """Takes up the plan that lies in a file, else a new one; nothing is placed yet.

        Args:
          size: (positions, target tokens, slots) of an example.
          examples: how many there are.
          room: of a row.
          seed: of the order in which examples are placed.
          file: where the plan is stored as it grows; None: nowhere. It may only be readable.
        """
        self._arguments = size, examples, room, seed, file
        self._size, self._limits, self._file = size, dataclasses.astuple(room), file
        self._room, self._lock = room, threading.Lock()
        seed = draws.integer(2**31, seed, "packing")
        self._order = np.random.default_rng(seed).permutation(examples)
        self._closed, self._starts = array("q"), array("q", [0])
        self._open: list[list[int]] = []
        self._left: list[list[int]] = []
        self._placed = self._stored = 0
        if file is not None:
            self._load(file)

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process plans for itself, from what is stored on: less to send than a plan."""
        return Plan, self._arguments

    @property
    def placed(self) -> int:
        """Examples that have a row so far."""
        return self._placed

    def row(self, number: int) -> list[int] | None:
        """The examples of a row; None past the last one.

        Raises:
          UserError: if an example alone is more than a row holds.
        """
        with self._lock:
            while number >= len(self._starts) - 1 and self._more():
                pass
            if number >= len(self._starts) - 1:
                return None
            return self._closed[self._starts[number] : self._starts[number + 1]].tolist()

    def rows(self, show: Callable[[int], None] = lambda placed: None) -> int:
        """How many rows there are: places all examples.

        Args:
          show: is told how many are placed.
        """
        more = True
        while more:
            with self._lock:
                more = self._more()
            show(self._placed)
        return len(self._starts) - 1

    def about(self) -> float:
        """How many rows there will be, judged by the first of them; exact where these are all."""
        if self.row(JUDGED - 1) is None:
            return float(len(self._starts) - 1)
        return len(self._order) * JUDGED / self._starts[JUDGED]

    def _more(self) -> bool:
        """Places an example; False if there was none left, and then no row is open."""
        if self._placed == len(self._order):
            for _ in range(len(self._open)):
                self._close(0)
            self._store()
            return False
        self._place(int(self._order[self._placed]))
        self._placed += 1
        if self._placed >= max(FIRST_STORED, 2 * self._stored):
            self._store()
        return True

    def _place(self, example: int) -> None:
        needs = positions, targets, slots = self._size(example)
        # A few small numbers for each open row: compared faster by Python than as arrays.
        fits = (
            at
            for at, left in enumerate(self._left)
            if left[0] >= positions and left[1] >= targets and left[2] >= slots and left[3]
        )
        at = next(fits, None)
        if at is None:
            at = self._opened(example, (*needs, 1))
        self._open[at].append(example)
        self._left[at] = [*map(operator.sub, self._left[at], (*needs, 1))]

    def _opened(self, example: int, needs: tuple[int, ...]) -> int:
        """The number of a row that is opened for an example."""
        if not all(map(operator.ge, self._limits, needs)):
            raise UserError(f"example {example} needs {needs}, a row has {self._room}")
        if len(self._open) == OPEN_ROWS:  # the fullest will hardly take another
            self._close(min(range(OPEN_ROWS), key=lambda row: self._left[row][0]))
        self._open.append([])
        self._left.append([*self._limits])
        return len(self._open) - 1

    def _close(self, at: int) -> None:
        self._closed.extend(self._open.pop(at))
        self._starts.append(len(self._closed))
        del self._left[at]

    def _store(self) -> None:
        if self._file is None or self._stored == self._placed:
            return
        self._stored = self._placed
        with contextlib.suppress(OSError), atomic_write(self._file, "wb") as stream:
            np.savez(
                stream,
                starts=np.asarray(self._starts),
                order=np.asarray(self._closed),
                held=np.array([example for row in self._open for example in row], np.int64),
                lengths=np.array([len(row) for row in self._open], np.int64),
                left=np.array(self._left, np.int64).reshape(-1, len(self._limits)),
            )

    def _load(self, file: pathlib.Path) -> None:
        """Takes up what is stored, if it is whole and of these examples in this order."""
        try:
            found = read_arrays(file)
            starts, order, held, lengths, left = (
                found[name] for name in ("starts", "order", "held", "lengths", "left")
            )
        except (OSError, KeyError, ValueError):
            return
        placed = np.concatenate([order, held])
        fits = starts[-1] == len(order) and lengths.sum() == len(held) and len(left) == len(lengths)
        if not fits or not _same_set(placed, self._order[: len(placed)], len(self._order)):
            return
        self._starts, self._closed = array("q", starts.tolist()), array("q", order.tolist())
        ends = np.cumsum(lengths)
        self._open = [held[end - n : end].tolist() for n, end in zip(lengths, ends, strict=True)]
        self._left, self._placed, self._stored = left.tolist(), len(placed), len(placed)


def _same_set(numbers: np.ndarray, want: np.ndarray, limit: int) -> bool:
    """Whether both name the same of the numbers below `limit`, each once."""
    if len(numbers) != len(want) or (
        len(numbers) and not 0 <= numbers.min() <= numbers.max() < limit
    ):
        return False
    there = np.zeros(limit, bool)
    there[numbers] = True
    return bool(there[want].all()) and int(there.sum()) == len(want)


def plan(sizes: Sequence[Size], room: Room, seed: int) -> list[list[int]]:
    """All rows of examples of these sizes; arguments and errors as `Plan`."""
    planned = Plan(lambda example: sizes[example], len(sizes), room, seed)
    return [planned.row(number) or [] for number in range(planned.rows())]
