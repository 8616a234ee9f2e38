"""Tensors of a table in a safetensors file: written one by one, and mapped where they are large.

The file is a header (eight bytes with its length, JSON) and the tensors' bytes behind it
(huggingface.co/docs/safetensors), so that neither writing nor reading needs memory for the whole.
"""

import json
import os
import pathlib
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
import safetensors

from ilm_jax import safetensors_files
from ilm_jax.files import atomic_write

# Larger files are mapped and not read, so that pages come and go as memory allows.
MAPPED_BYTES = 1 << 28


def write(
    path: str | os.PathLike, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]
) -> None:
    """Writes the file atomically.

    Args:
      path: of the file.
      tensors: by name; mapped ones are copied page by page.
      metadata: strings for the header.
    """
    # Numbers of more bytes come first, so that each stands at a multiple of its size.
    names = sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name))
    found = {name: _tensor(tensors[name]) for name in names}
    with atomic_write(path, "wb") as stream:
        safetensors_files.write(stream, found, metadata)


def _tensor(array: np.ndarray) -> safetensors_files.Tensor:
    return safetensors_files.Tensor(array.shape, array.dtype, lambda: array)


def read(path: pathlib.Path) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    """(metadata, tensors); those of a file of `MAPPED_BYTES` are mapped, and read-only.

    Raises:
      ValueError: for tensors of other types.
      safetensors.SafetensorError, OSError: if it is no such file, or is cut.
    """
    with safetensors.safe_open(path, framework="numpy") as stream:  # judges header and length
        metadata = dict(stream.metadata() or {})
        if path.stat().st_size < MAPPED_BYTES:
            return metadata, {name: stream.get_tensor(name) for name in sorted(stream.keys())}
    with open(path, "rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        header = json.loads(stream.read(length))
    header.pop("__metadata__", None)
    return metadata, {name: _mapped(path, 8 + length, header[name]) for name in sorted(header)}


def _mapped(path: pathlib.Path, start: int, entry: Mapping[str, Any]) -> np.ndarray:
    kind, shape = safetensors_files.DTYPES.get(entry["dtype"]), tuple(entry["shape"])
    if kind is None:
        raise ValueError(f"a tensor of type {entry['dtype']}")
    if 0 in shape:
        return np.zeros(shape, kind)
    at = start + entry["data_offsets"][0]
    return np.asarray(np.memmap(path, kind, "r", at, shape))
