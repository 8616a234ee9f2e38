"""What is remembered of things that recur, within a bound: it starts over when it is full."""

from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")
# About a hundred megabytes of short token lists; the items of a large catalogue recur unevenly.
ENTRIES = 1 << 18


class Memo(dict[K, V], Generic[K, V]):
    """A dictionary of at most so many entries; any thread may read and add.

    Attributes:
      entries: how many there can be.
    """

    def __init__(self, entries: int = ENTRIES) -> None:
        """An empty one."""
        super().__init__()
        self.entries = entries

    def __setitem__(self, key: K, value: V) -> None:
        if len(self) >= self.entries:
            self.clear()
        super().__setitem__(key, value)

    def __reduce__(self) -> tuple[type["Memo[K, V]"], tuple[int]]:
        return Memo, (self.entries,)
