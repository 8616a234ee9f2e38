"""Notes of readers on data that they accept: counted facts, one line each.

A catalogue keeps them (`extras["notes"]`), so that `ilm inspect` shows them whenever it is asked;
whoever prepares the catalogue sees them once, on stderr.
"""

import contextlib
import contextvars
import sys
from collections.abc import Iterator, Sequence

from ilm_jax.data.catalogue.catalogue import Catalogue

PREFIX = "ilm: note: "
_FOUND: contextvars.ContextVar[list[str] | None] = contextvars.ContextVar("notes", default=None)


def say(text: str) -> None:
    """Notes one line; on stderr where nobody collects it."""
    found = _FOUND.get()
    if found is None:
        print(PREFIX + text, file=sys.stderr, flush=True)
    elif text not in found:
        found.append(text)


def count(number: int, total: int, what: str) -> None:
    """Notes "NUMBER of TOTAL WHAT", unless the number is 0."""
    if number:
        say(f"{number} of {total} {what}")


@contextlib.contextmanager
def collected() -> Iterator[list[str]]:
    """The notes of what runs inside, in order, each once."""
    found: list[str] = []
    token = _FOUND.set(found)
    try:
        yield found
    finally:
        _FOUND.reset(token)


def kept(catalogue: Catalogue, said: Sequence[str]) -> Catalogue:
    """The catalogue with its notes; one without any is left as it is, fingerprint included."""
    if said:
        catalogue.extras["notes"] = list(said)
    return catalogue
