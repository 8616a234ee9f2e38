"""One example as bytes: the record of a task cache.

    byte 0    format of the record, 1
    then, for each feature in the order that info.json lists:
      ints    uint32 count, then so many int32
      int     int32
      text    uint32 length in bytes, then so much UTF-8
All numbers are little-endian.
"""

import struct
from collections.abc import Sequence

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
      ValueError: for a number outside int32 or an array that has not rank 1.
    """
    parts = [bytes([RECORD_FORMAT])]
    for name, kind in features:
        value = example[name]
        if kind == "int":
            parts.append(_INT.pack(value) if -(2**31) <= value < 2**31 else _bad(name, value))
        elif kind == "text":
            text = value.encode()
            parts += [_COUNT.pack(len(text)), text]
        else:
            array = np.asarray(value)
            if array.ndim != 1 or (array.size and not np.can_cast(array.dtype, np.int32)):
                limits = np.iinfo(np.int32)
                inside = array.ndim == 1 and np.issubdtype(array.dtype, np.integer)
                if not inside or array.min() < limits.min or array.max() > limits.max:
                    _bad(name, value)
            parts += [_COUNT.pack(len(array)), array.astype("<i4").tobytes()]
    return b"".join(parts)


def _bad(name: str, value: object) -> bytes:
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
            decoded[name] = value
        elif kind == "int":
            decoded[name] = int(value) if -(2**31) <= value < 2**31 else _bad(name, value)
        else:
            decoded[name] = _int32(name, value)
    return decoded


_NOTHING = np.zeros(0, np.int32)
_NOTHING.flags.writeable = False


def _int32(name: str, value: np.ndarray | Sequence[int]) -> np.ndarray:
    if isinstance(value, np.ndarray):  # NumPy refuses to wrap Python's integers, not its own
        value = value.tolist()
    if not len(value):
        return _NOTHING
    try:
        array = np.array(value, np.int32)
    except (OverflowError, TypeError, ValueError) as error:
        raise ValueError(f"feature {name}: {value!r} does not fit int32") from error
    if array.ndim != 1:
        _bad(name, value)
    array.flags.writeable = False
    return array


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
