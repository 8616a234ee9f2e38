"""A Hugging Face folder of safetensors: any slice of any tensor, without loading the file.

The format is a little-endian 64-bit header size, a JSON header {name: dtype, shape, data_offsets},
and the bytes in C order (huggingface.co/docs/safetensors). The `safetensors` package gives the same
slices, but maps the file into memory, and touched pages count as the process's own: with plain
reads the memory that a read needs is the slice that it returns.
"""

import dataclasses
import json
import math
import os
import pathlib
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np

from ilm_jax.errors import UserError
from ilm_jax.files import atomic_dir

Index = tuple[slice, ...]

DTYPES: dict[str, np.dtype] = {
    "F64": np.dtype(np.float64), "F32": np.dtype(np.float32), "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16), "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2), "I64": np.dtype(np.int64),
    "I32": np.dtype(np.int32), "I16": np.dtype(np.int16), "I8": np.dtype(np.int8),
    "U8": np.dtype(np.uint8), "BOOL": np.dtype(np.bool_),
}  # fmt: skip
NAMES = {dtype: name for name, dtype in DTYPES.items()}
INDEX, SINGLE, CONFIG = "model.safetensors.index.json", "model.safetensors", "config.json"
PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json", "*.bin", "*.pt", "*.pth", "*.ckpt")
SHARD_BYTES = 5 * 10**9


@dataclasses.dataclass(frozen=True)
class _Tensor:
    file: pathlib.Path
    dtype: np.dtype
    shape: tuple[int, ...]
    offset: int


class SafetensorsFolder:
    """The tensors of a folder with `model.safetensors`, or with shards and their index.

    Attributes:
      where: the folder, for messages.
      config: what config.json says.
      bytes_read: of tensors, so far.
    """

    def __init__(self, folder: str | os.PathLike) -> None:
        """Reads the headers.

        Raises:
          UserError: for a folder without safetensors, a missing shard, or a truncated file.
        """
        self._folder = pathlib.Path(folder)
        self.where = str(folder)
        self.bytes_read = 0
        self.config: dict[str, Any] = {}
        if (self._folder / CONFIG).is_file():
            self.config = _json(self._folder / CONFIG)
        self._tensors: dict[str, _Tensor] = {}
        promised = self._promised()
        for file in sorted({self._folder / name for name in promised.values()} or self._single()):
            self._tensors |= _header(file)
        lacking = sorted(name for name in promised if name not in self._tensors)
        if lacking:
            raise UserError(
                f"{self._folder / INDEX} promises {lacking[0]} in {promised[lacking[0]]}, which "
                f"does not hold it ({len(lacking)} such tensors): download the folder again"
            )

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

    def _fill(self, stream: Any, view: memoryview) -> None:
        while view:
            count = stream.readinto(view)
            if not count:
                raise UserError(f"{stream.name} ended while it was read: is it being written?")
            self.bytes_read += count
            view = view[count:]

    def _promised(self) -> dict[str, str]:
        """{tensor: file} of the index, if there is one."""
        if not (self._folder / INDEX).is_file():
            return {}
        promised = _json(self._folder / INDEX)["weight_map"]
        files = sorted(set(promised.values()))
        missing = [name for name in files if not (self._folder / name).is_file()]
        if missing:
            raise UserError(
                f"{self._folder} lacks {len(missing)} of {len(files)} shards {missing[:4]} that "
                f"{INDEX} names: download them, or the folder again"
            )
        return promised

    def _single(self) -> list[pathlib.Path]:
        if (self._folder / SINGLE).is_file():
            return [self._folder / SINGLE]
        refuse_pickles(self._folder)
        raise UserError(f"{self._folder} holds neither {SINGLE} nor {INDEX}")


def refuse_pickles(folder: pathlib.Path) -> None:
    """Raises UserError with the remedy if a folder holds weights as pickles."""
    found = sorted({file.name for pattern in PICKLES for file in folder.glob(pattern)})
    if found:
        raise UserError(
            f"{folder} holds its weights as {found[0]}, a pickle, which can run any code when it "
            "is read: convert it to safetensors where you trust it (in Python with transformers: "
            "AutoModel.from_pretrained(DIR).save_pretrained(OUT, safe_serialization=True)), or "
            "download the model's safetensors"
        )


def resolve(index: Sequence[slice], shape: Sequence[int]) -> list[tuple[int, int]]:
    """[start, stop) of every dimension."""
    whole = [*index, *[slice(None)] * (len(shape) - len(index))]
    return [part.indices(n)[:2] for part, n in zip(whole, shape, strict=True)]


def _json(file: pathlib.Path) -> Any:
    try:
        return json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{file} is not JSON ({error}): download it again") from error


def _header(file: pathlib.Path) -> dict[str, _Tensor]:
    """The tensors of one file, whose size must be what its header says."""
    size = file.stat().st_size
    with open(file, "rb") as stream:
        start = stream.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else size
        if 8 + length > size:
            raise UserError(f"{file} is truncated or no safetensors file: download it again")
        try:
            header = json.loads(stream.read(length))
        except ValueError as error:
            raise UserError(f"{file} is no safetensors file: its header is no JSON") from error
    header.pop("__metadata__", None)
    end = 8 + length + max((entry["data_offsets"][1] for entry in header.values()), default=0)
    if size != end:
        raise UserError(
            f"{file} is truncated: {size} bytes of {end} that its header names; download it again"
        )
    tensors = {}
    for name, entry in header.items():
        if entry["dtype"] not in DTYPES:
            raise UserError(f"{file}: {name} is of type {entry['dtype']}, which nothing here reads")
        begin, stop = entry["data_offsets"]
        tensor = _Tensor(file, DTYPES[entry["dtype"]], tuple(entry["shape"]), 8 + length + begin)
        if math.prod(tensor.shape) * tensor.dtype.itemsize != stop - begin:
            raise UserError(f"{file}: the bytes of {name} do not fit its shape {tensor.shape}")
        tensors[name] = tensor
    return tensors


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A tensor to be written: known in shape and type before it is read."""

    shape: tuple[int, ...]
    dtype: Any
    read: Callable[[], np.ndarray]


def write_folder(
    folder: str | os.PathLike,
    tensors: Mapping[str, Tensor],
    config: Mapping[str, Any],
    copies: Iterable[pathlib.Path] = (),
    texts: Mapping[str, str] | None = None,
    shard_bytes: int = SHARD_BYTES,
    progress: Callable[[str], None] = lambda name: None,
) -> None:
    """Writes a Hugging-Face-style folder, one tensor in memory at a time, and whole or not at all.

    Args:
      folder: to be made.
      tensors: by name; in shards with an index where they are more than `shard_bytes`.
      config: of config.json.
      copies: files to copy, such as the tokenizer's.
      texts: further files {name: text}.
      shard_bytes: largest file, unless one tensor is larger.
      progress: called with the name of each tensor that was written.
    """
    shards: list[dict[str, Tensor]] = [{}]
    filled = 0
    for name, tensor in tensors.items():
        size = _bytes(tensor)
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
            index = {"metadata": {"total_size": sum(map(_bytes, tensors.values()))}}
            (temporary / INDEX).write_text(json.dumps({**index, "weight_map": names}, indent=1))
        for file, part in zip(files, shards, strict=True):
            _write_file(temporary / file, part, progress)
        (temporary / CONFIG).write_text(json.dumps(config, indent=1) + "\n")
        for copy in copies:
            (temporary / copy.name).write_bytes(copy.read_bytes())
        for name, text in (texts or {}).items():
            (temporary / name).write_text(text)


def _bytes(tensor: Tensor) -> int:
    return math.prod(tensor.shape) * np.dtype(tensor.dtype).itemsize


def _write_file(
    file: pathlib.Path, tensors: Mapping[str, Tensor], progress: Callable[[str], None]
) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, tensor in tensors.items():
        kind = NAMES[np.dtype(tensor.dtype)]
        header[name] = {"dtype": kind, "shape": list(tensor.shape)}
        header[name]["data_offsets"] = [at, at := at + _bytes(tensor)]
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(file, "wb") as stream:
        stream.write(struct.pack("<Q", len(text)) + text)
        for name, tensor in tensors.items():
            value = np.ascontiguousarray(tensor.read(), dtype=tensor.dtype)
            assert value.shape == tensor.shape, name
            stream.write(value.reshape(-1).view(np.uint8).data)
            progress(name)
