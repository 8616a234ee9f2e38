"""One example as bytes: the record of a task cache.

    byte 0    format of the record, 1
    then, for each feature in the order that info.json lists:
      ints    uint32 count, then so many int32
      int     int32
      text    uint32 length in bytes, then so much UTF-8
All numbers are little-endian.
"""

import array
import numbers
import struct
from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np

from ilm_jax.data.examples.example import Example

RECORD_FORMAT = 1
_COUNT = struct.Struct("<I")
_INT = struct.Struct("<i")
Features = Sequence[tuple[str, str]]


def encode_record(features: Features, example: Example) -> bytes:
    """Bytes of an example.

    Args:
      features: (name, kind) in order; kind is "ints", "int" or "text".
      example: an int32 array (or list), an integer or a string for each feature.

    Raises:
      ValueError: for what is no whole number or none of int32, an array that has not rank 1, and
        what is no text.
    """
    parts = [bytes([RECORD_FORMAT])]
    for name, kind in features:
        value = example[name]
        if kind == "int":
            parts.append(_INT.pack(_int(name, value)))
        elif kind == "text":
            text = _text(name, value).encode()
            parts += [_COUNT.pack(len(text)), text]
        else:
            ints = _int32(name, value)
            parts += [_COUNT.pack(len(ints)), ints.astype("<i4").tobytes()]
    return b"".join(parts)


def _bad(name: str, value: object) -> NoReturn:
    raise ValueError(f"feature {name}: {value!r} does not fit int32")


def as_decoded(features: Features, example: Example) -> Example:
    """What `decode_record` gives of `encode_record`'s bytes, without the bytes.

    Raises:
      ValueError: as `encode_record`.
    """
    decoded: Example = {}
    for name, kind in features:
        value = example[name]
        if kind == "text":
            decoded[name] = _text(name, value)
        elif kind == "int":
            decoded[name] = _int(name, value)
        else:
            decoded[name] = _int32(name, value)
    return decoded


_NOTHING = np.zeros(0, np.int32)
_NOTHING.flags.writeable = False


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"feature {name}: {value!r} is no text")
    if not value.isascii():
        value.encode()  # raises what half a character raises where it is written
    return value


def _int(name: str, value: Any) -> int:
    whole = isinstance(value, numbers.Integral)  # Python's and NumPy's, no float that is cut
    return int(value) if whole and -(2**31) <= value < 2**31 else _bad(name, value)


def _int32(name: str, value: Any) -> np.ndarray:
    """A copy; NumPy would cut floats, parse texts and wrap its own wider numbers in silence."""
    if type(value) is list:  # nearly all; NumPy's way takes four to ten times as long
        if not value:
            return _NOTHING
        try:
            whole = array.array("i", value)
        except (OverflowError, TypeError):
            _bad(name, value)
        return np.frombuffer(whole.tobytes(), np.int32)
    try:
        found = np.asarray(value)
    except (OverflowError, TypeError, ValueError) as error:
        raise ValueError(f"feature {name}: {value!r} does not fit int32") from error
    if found.ndim != 1:
        _bad(name, value)
    if not found.size:
        return _NOTHING
    if found.dtype.kind not in "iub":
        _bad(name, value)
    if not np.can_cast(found.dtype, np.int32) and not (
        -(2**31) <= int(found.min()) and int(found.max()) < 2**31
    ):
        _bad(name, value)
    copy = np.array(found, np.int32)
    copy.flags.writeable = False
    return copy


def decode_record(features: Features, record: bytes) -> Example:
    """The example again: read-only int32 arrays, integers and strings.

    Raises:
      ValueError: if the record has another format or another length.
    """
    if not record or record[0] != RECORD_FORMAT:
        raise ValueError(f"record format {record[:1]!r}, expected {RECORD_FORMAT}")
    example: Example = {}
    place = 1
    try:
        for name, kind in features:
            if kind == "int":
                (example[name],) = _INT.unpack_from(record, place)
                place += 4
                continue
            (count,) = _COUNT.unpack_from(record, place)
            place += 4
            if kind == "text":
                example[name] = record[place : place + count].decode()
                place += count
            else:
                example[name] = np.frombuffer(record, "<i4", count, place)
                place += 4 * count
    except (struct.error, ValueError) as error:
        raise ValueError(f"damaged record: {error}") from error
    if place != len(record):
        raise ValueError(f"record of {len(record)} bytes, expected {place}")
    return example
