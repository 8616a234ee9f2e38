"""The fingerprint of a catalogue, taken in pieces: nothing is in memory twice."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ilm_jax.data.catalogue.strings import CHUNK


def fingerprint(plain: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> str:
    """Hex SHA-256 of a catalogue's fields.

    It is that of `sha256_json(plain)` with, behind it, "name:length:" and the little-endian bytes
    of each array.

    Args:
      plain: what JSON holds, and columns of texts and lists.
      arrays: vectors, in the order in which they count.
    """
    whole = hashlib.sha256()
    for piece in _json(plain):
        whole.update(piece.encode())
    digest = hashlib.sha256(whole.hexdigest().encode())
    for name, array in arrays.items():
        digest.update(f"{name}:{len(array)}:".encode())
        update(digest, array)
    return digest.hexdigest()


def update(digest: "hashlib._Hash", array: np.ndarray) -> None:
    """Feeds a vector's little-endian bytes to a digest of hashlib."""
    little = array.dtype.newbyteorder("<")
    for first in range(0, len(array), 1 << 20):
        digest.update(np.ascontiguousarray(array[first : first + (1 << 20)], little).data)


def _json(plain: Mapping[str, Any]) -> Iterator[str]:
    """The JSON that `sha256_json` hashes, piece by piece."""
    lead = "{"
    for name in sorted(plain):
        yield f"{lead}{_dumps(name)}:"
        value, lead = plain[name], ","
        if not isinstance(value, Sequence) or isinstance(value, str):
            yield _dumps(value)
            continue
        yield "["
        for first in range(0, len(value), CHUNK):
            part = _dumps(value[first : first + CHUNK])[1:-1]
            yield f",{part}" if first else part
        yield "]"
    yield "}" if plain else "{}"


def _dumps(value: object) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
