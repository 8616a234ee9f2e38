"""Open registries: what a framework ships, and what its users add from modules of their own.

An entry is a value, or "module:attribute" of one that is imported when it is asked for, so that a
registry can list what would be slow to import.
"""

import difflib
import importlib
from collections.abc import Iterator
from typing import Generic, TypeVar

from ilm_jax.errors import UserError

T = TypeVar("T")


class Registry(Generic[T]):
    """Entries of one kind by name, in the order in which they came."""

    def __init__(self, what: str) -> None:
        """An empty one.

        Args:
          what: is registered, in the singular, as messages say it: "task family".
        """
        self.what = what
        self._entries: dict[str, T | str] = {}

    def register(self, name: str, entry: T | str, *, again: bool = False) -> None:
        """Adds an entry, or "module:attribute" of one.

        Args:
          name, entry: of the kind.
          again: it takes the place of an earlier form of itself, if there is one.

        Raises:
          UserError: if another entry has this name. The same entry may come again, as it does when
            a module is imported anew.
        """
        if again:
            self._entries[name] = entry
        known = self._entries.setdefault(name, entry)
        if known is not entry and known != entry:
            raise UserError(
                f"there is a {self.what} {name!r} already: register yours under another name"
            )

    def __getitem__(self, name: str) -> T:
        """The entry of a name.

        Raises:
          UserError: if there is none; names the nearest.
        """
        if name not in self._entries:
            near = difflib.get_close_matches(name, self._entries, n=3) or list(self._entries)
            raise UserError(f"no {self.what} {name!r}; there are {', '.join(near)}")
        entry = self._entries[name]
        if isinstance(entry, str):
            module, _, attribute = entry.partition(":")
            entry = getattr(importlib.import_module(module), attribute)
        return entry

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)
