"""Random draws keyed by what they are for, never by how many came before.

A sequential generator makes example k depend on examples 0..k-1, so shards and workers disagree.
Here every draw is a pure function of its keys: sha256 of their canonical JSON.
"""

import hashlib
import json
from collections.abc import Callable
from json.encoder import encode_basestring_ascii

import numpy as np
from jaxtyping import Float

# Making one takes longer than encoding a few keys.
_ENCODER = json.JSONEncoder(separators=(",", ":"))
Key = str | int | float | bool | np.integer | None


def _digest(keys: tuple[Key, ...]) -> bytes:
    if not keys:
        raise TypeError("a draw needs at least one key")
    # JSON keeps ("a", "bc") apart from ("ab", "c"), and "1" from 1.
    return hashlib.sha256(f"[{','.join(map(_json, keys))}]".encode()).digest()


def _json(key: Key) -> str:
    """A key as JSON has it; nearly all are integers and strings, which need no encoder."""
    if type(key) is int:
        return repr(key)
    if type(key) is str:
        return encode_basestring_ascii(key)
    return _ENCODER.encode(int(key) if isinstance(key, np.integer) else key)


def uniform(*keys: Key) -> float:
    """A float in [0, 1) with 53 random bits, the same for the same keys on every machine."""
    return (int.from_bytes(_digest(keys)[:8], "big") >> 11) * 2.0**-53


def uniform_behind(*keys: Key) -> Callable[..., float]:
    """`uniform` of these keys and further integers: uniform_behind(a)(1, 2) is uniform(a, 1, 2).

    For very many draws that share what stands first.
    """
    start = hashlib.sha256(f"[{','.join(map(_json, keys))}".encode())

    def draw(*integers: int) -> float:
        """A float in [0, 1)."""
        digest = start.copy()
        digest.update(("".join(f",{number}" for number in integers) + "]").encode())
        return (int.from_bytes(digest.digest()[:8], "big") >> 11) * 2.0**-53

    return draw


def integer(n: int, *keys: Key) -> int:
    """An integer in [0, n); the bias is below n / 2**128.

    Raises:
      ValueError: if n < 1.
    """
    if n < 1:
        raise ValueError(f"integer(n, …) needs n >= 1, got {n}")
    return int.from_bytes(_digest(keys)[:16], "big") * int(n) >> 128


def rng(*keys: Key) -> np.random.Generator:
    """A NumPy generator of its own for these keys (Philox, 128-bit key)."""
    return np.random.Generator(np.random.Philox(key=int.from_bytes(_digest(keys)[:16], "big")))


def uniforms(shape: int | tuple[int, ...], *keys: Key) -> Float[np.ndarray, "..."]:
    """Float64 values in [0, 1) taken from Philox's raw bits.

    NumPy promises stable streams for bit generators (NEP 19), not for `Generator`'s methods, so
    whatever is hashed and committed draws from here.
    """
    count = int(np.prod(shape))
    raw = np.random.Philox(key=int.from_bytes(_digest(keys)[:16], "big")).random_raw(count)
    return ((raw >> np.uint64(11)) * 2.0**-53).reshape(shape)


def normals(shape: int | tuple[int, ...], *keys: Key) -> Float[np.ndarray, "..."]:
    """Standard normal float64 values by Box-Muller over `uniforms` (stable like them)."""
    count = int(np.prod(shape))
    first, second = uniforms((2, count), *keys)
    return (np.sqrt(-2.0 * np.log1p(-first)) * np.cos(2.0 * np.pi * second)).reshape(shape)
