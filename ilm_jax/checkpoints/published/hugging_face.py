"""A Hugging Face folder of safetensors: any slice of any tensor, without loading the file.

The format is a little-endian 64-bit header size, a JSON header {name: dtype, shape, data_offsets},
and the bytes in C order (huggingface.co/docs/safetensors). The `safetensors` package gives the same
slices, but maps the file into memory, and touched pages count as the process's own: with plain
reads the memory that a read needs is the slice that it returns.
"""

import io
import json
import math
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ilm_jax.checkpoints.published.shards import CONFIG, INDEX, SINGLE, find_tensors
from ilm_jax.errors import UserError
from ilm_jax.files import atomic_dir
from ilm_jax.safetensors_files import Tensor, write
from ilm_jax.strict_json import parse_object

Index = tuple[slice, ...]

SHARD_BYTES = 5 * 10**9


class SafetensorsFolder:
    """The tensors of a folder with `model.safetensors`, or with shards and their index.

    Attributes:
      where: the folder, for messages.
      config: what config.json says.
      bytes_read: of tensors, so far.
      notes: lines for a person, of what the folder holds and is not read as it stands.
      cheap_rows: parts of a tensor's first dimension are cheap to read.
    """

    cheap_rows = True

    def __init__(self, folder: str | os.PathLike) -> None:
        """Reads the headers.

        Raises:
          UserError: as `find_tensors`, or for a config.json that is none.
        """
        self._folder = pathlib.Path(folder)
        self.where = str(folder)
        self.bytes_read = 0
        self.config: dict[str, Any] = {}
        if (self._folder / CONFIG).is_file():
            file = self._folder / CONFIG
            self.config = parse_object(file.read_bytes(), str(file))
        self._tensors, self.notes = find_tensors(self._folder)

    def names(self) -> list[str]:
        """Names of all tensors."""
        return list(self._tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor."""
        return self._tensors[name].shape

    def dtype(self, name: str) -> np.dtype:
        """Type of its numbers as stored."""
        return self._tensors[name].dtype

    def read(self, name: str, index: Index = ()) -> np.ndarray:
        """The part of a tensor that `index` names (all of it by default), in its stored type.

        Args:
          name: of the tensor.
          index: a slice with step 1 per dimension; dimensions left out are whole.
        """
        tensor = self._tensors[name]
        ranges = resolve(index, tensor.shape)
        out = np.empty([stop - start for start, stop in ranges], tensor.dtype)
        # Bytes follow each other from the last dimension that is cut; before it, each row is
        # apart.
        cut = [stop - start < n for (start, stop), n in zip(ranges, tensor.shape, strict=True)]
        last = max((axis for axis, is_cut in enumerate(cut) if is_cut), default=0)
        offsets = np.zeros((), np.int64)
        for axis, (start, stop) in enumerate(ranges):
            step = math.prod(tensor.shape[axis + 1 :]) * tensor.dtype.itemsize
            places = np.arange(start, stop if axis < last else min(stop, start + 1))
            offsets = offsets[..., None] + places * step
        rows = memoryview(out.reshape(-1).view(np.uint8))
        size = len(rows) // max(1, offsets.size)
        with open(tensor.file, "rb", buffering=0) as stream:
            for i, offset in enumerate(offsets.reshape(-1).tolist()):
                stream.seek(tensor.offset + offset)
                self._fill(stream, rows[i * size : (i + 1) * size])
        return out

    def _fill(self, stream: io.FileIO, view: memoryview) -> None:
        while view:
            count = stream.readinto(view)
            if not count:
                raise UserError(f"{stream.name} ended while it was read: is it being written?")
            self.bytes_read += count
            view = view[count:]


def resolve(index: Sequence[slice], shape: Sequence[int]) -> list[tuple[int, int]]:
    """[start, stop) of every dimension."""
    whole = [*index, *[slice(None)] * (len(shape) - len(index))]
    return [part.indices(n)[:2] for part, n in zip(whole, shape, strict=True)]


def write_folder(
    folder: str | os.PathLike,
    tensors: Mapping[str, Tensor],
    config: Mapping[str, Any],
    copies: Mapping[str, bytes] | None = None,
    texts: Mapping[str, str] | None = None,
    shard_bytes: int = SHARD_BYTES,
    progress: Callable[[str], None] = lambda name: None,
) -> None:
    """Writes a Hugging-Face-style folder, one tensor in memory at a time, and whole or not at all.

    Args:
      folder: to be made.
      tensors: by name; in shards with an index where they are more than `shard_bytes`.
      config: of config.json.
      copies: further files, such as the tokenizer's.
      texts: further files {name: text}.
      shard_bytes: largest file, unless one tensor is larger.
      progress: called with the name of each tensor that was written.
    """
    shards: list[dict[str, Tensor]] = [{}]
    filled = 0
    for name, tensor in tensors.items():
        size = tensor.nbytes
        if shards[-1] and filled + size > shard_bytes:
            shards.append({})
            filled = 0
        shards[-1][name] = tensor
        filled += size
    with atomic_dir(folder) as temporary:
        files = [SINGLE]
        if len(shards) > 1:
            total = len(shards)
            files = [f"model-{i + 1:05d}-of-{total:05d}.safetensors" for i in range(total)]
            names = {name: file for file, part in zip(files, shards, strict=True) for name in part}
            index = {"metadata": {"total_size": sum(tensor.nbytes for tensor in tensors.values())}}
            (temporary / INDEX).write_text(json.dumps({**index, "weight_map": names}, indent=1))
        for file, part in zip(files, shards, strict=True):
            with open(temporary / file, "wb") as stream:
                write(stream, part, {"format": "pt"}, progress)
        (temporary / CONFIG).write_text(json.dumps(config, indent=1) + "\n")
        for name, data in (copies or {}).items():
            (temporary / name).write_bytes(data)
        for name, text in (texts or {}).items():
            (temporary / name).write_text(text)
