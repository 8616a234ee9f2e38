"""Writing safetensors files one tensor at a time: never whole in memory.

A file is a little-endian 64-bit header size, a JSON header {name: dtype, shape, data_offsets}, and
the bytes in C order (huggingface.co/docs/safetensors). The package's own writer takes the bytes of
all tensors at once.
"""

import dataclasses
import json
import math
import struct
from collections.abc import Callable, Mapping
from typing import IO, Any

import ml_dtypes
import numpy as np
from numpy.typing import DTypeLike

DTYPES: dict[str, np.dtype] = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
    "I64": np.dtype(np.int64),
    "I32": np.dtype(np.int32),
    "I16": np.dtype(np.int16),
    "I8": np.dtype(np.int8),
    "U8": np.dtype(np.uint8),
    "BOOL": np.dtype(np.bool_),
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A tensor to be written: known in shape and type before it is read."""

    shape: tuple[int, ...]
    dtype: DTypeLike
    read: Callable[[], np.ndarray]

    @property
    def nbytes(self) -> int:
        """Its size in the file."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


def write(
    stream: IO[bytes],
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str],
    progress: Callable[[str], None] = lambda name: None,
) -> None:
    """Writes a file.

    Args:
      stream: open for bytes.
      tensors: by name, in the order in which they are to lie.
      metadata: strings for the header.
      progress: is told the name of each tensor that is written.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    at = 0
    for name, tensor in tensors.items():
        header[name] = {"dtype": NAMES[np.dtype(tensor.dtype)], "shape": list(tensor.shape)}
        header[name]["data_offsets"] = [at, at := at + tensor.nbytes]
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    stream.write(struct.pack("<Q", len(text)) + text)
    for name, tensor in tensors.items():
        value = np.asarray(tensor.read(), dtype=tensor.dtype, order="C")
        assert value.shape == tensor.shape, name
        stream.write(value.reshape(-1).view(np.uint8).data)
        progress(name)
