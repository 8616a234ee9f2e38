"""Loops over what was found must not pass because nothing was found."""

from collections.abc import Collection, Iterable
from typing import TypeVar

T = TypeVar("T")


def some(found: Iterable[T]) -> Collection[T]:
    """What was given, which must hold at least one thing (iterators are read to a list)."""
    if not isinstance(found, Collection):
        found = list(found)
    assert len(found), "there is nothing to check"
    return found
