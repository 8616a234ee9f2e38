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

from ilm_jax.files import atomic_write

# Larger files are mapped and not read, so that pages come and go as memory allows.
MAPPED_BYTES = 1 << 28
_KINDS = {"F32": "<f4", "I64": "<i8", "U8": "|u1", "BOOL": "|b1"}
_NAMES = {np.dtype(kind): name for name, kind in _KINDS.items()}


def write(
    path: str | os.PathLike, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]
) -> None:
    """Writes the file atomically.

    Args:
      path: of the file.
      tensors: F32, I64, U8 or BOOL, by name; mapped ones are copied page by page.
      metadata: strings for the header.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    # Numbers of more bytes come first, so that each stands at a multiple of its size.
    names = sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name))
    at = 0
    for name in names:
        tensor = tensors[name]
        header[name] = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape)}
        header[name]["data_offsets"] = [at, at := at + tensor.nbytes]
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with atomic_write(path, "wb") as stream:
        stream.write(struct.pack("<Q", len(text)) + text)
        for name in names:
            stream.write(np.ascontiguousarray(tensors[name]).reshape(-1).view(np.uint8).data)


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
    if entry["dtype"] not in _KINDS:
        raise ValueError(f"a tensor of type {entry['dtype']}")
    kind, shape = np.dtype(_KINDS[entry["dtype"]]), tuple(entry["shape"])
    if 0 in shape:
        return np.zeros(shape, kind)
    at = start + entry["data_offsets"][0]
    return np.asarray(np.memmap(path, kind, "r", at, shape))
