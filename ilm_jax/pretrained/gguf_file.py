"""GGUF files: metadata, and rows of tensors, without loading the file.

The format is a magic number, a version and two counts, {key: typed value}, {tensor: sizes, type,
offset}, and the tensors at multiples of `general.alignment`
(github.com/ggml-org/ggml, docs/gguf.md). Quantised types are blocks of 32 or 256 numbers along a
row; the package `gguf` turns them into float32. The files are read with plain reads: pages of a
mapped file would count as the process's own memory.
"""

import dataclasses
import functools
import math
import os
import pathlib
import re
import struct
from collections.abc import Mapping
from typing import IO, Any

import ml_dtypes
import numpy as np

from ilm_jax.errors import UserError

SUFFIX = ".gguf"
_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
# struct's formats of the scalar types; 8 is a text and 9 an array.
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q"}
_SCALARS[12] = "d"
_TEXT, _ARRAY = 8, 9
# Types whose numbers stand as they are; all others go through the package.
_PLAIN = {
    0: ("F32", np.dtype(np.float32)),
    1: ("F16", np.dtype(np.float16)),
    30: ("BF16", np.dtype(ml_dtypes.bfloat16)),
}
READ = "F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K"
# Bytes of float32 that are made at a time.
BLOCK_BYTES = 1 << 19


@dataclasses.dataclass(frozen=True)
class Quantisation:
    """Storage of the numbers of a type.

    Attributes:
      name: such as "Q4_K".
      block, size: so many numbers of a row take so many bytes.
      dtype: as they are read.
      number: of the type, in the format.
    """

    name: str
    block: int
    size: int
    dtype: np.dtype
    number: int

    def decode(self, data: np.ndarray) -> np.ndarray:
        """The numbers of whole rows of bytes [rows, bytes]."""
        if self.number in _PLAIN:
            return data.view(self.dtype)
        from gguf import GGMLQuantizationType
        from gguf.quants import dequantize

        return dequantize(data, GGMLQuantizationType(self.number))


@dataclasses.dataclass(frozen=True)
class Stored:
    """Place of a tensor's bytes in a file.

    Attributes:
      shape: outermost dimension first.
      kind: of its numbers.
      offset: in the file.
    """

    shape: tuple[int, ...]
    kind: Quantisation
    offset: int

    @property
    def row_bytes(self) -> int:
        """Of one index of all dimensions but the last."""
        return self.shape[-1] // self.kind.block * self.kind.size if self.shape else self.kind.size

    @property
    def size(self) -> int:
        """Bytes of the whole."""
        return math.prod(self.shape[:-1]) * self.row_bytes


@dataclasses.dataclass(frozen=True)
class GGUFFile:
    """The head of a GGUF file.

    Attributes:
      path: the file.
      metadata: {key: value}.
      tensors: by their names in the file.
    """

    path: str
    metadata: Mapping[str, Any]
    tensors: Mapping[str, Stored]

    def read_rows(self, name: str, first: int, last: int) -> np.ndarray:
        """Rows [first, last) of a tensor's first dimension, decoded.

        Raises:
          UserError: if the file ends before.
        """
        tensor = self.tensors[name]
        inner = tensor.shape[1:] if len(tensor.shape) > 1 else ()
        if len(tensor.shape) == 1:  # a row by itself, whose numbers are its "rows"
            whole = self._bytes(tensor.offset, tensor.row_bytes)
            return tensor.kind.decode(whole[None])[0][first:last]
        step = math.prod(tensor.shape[1:-1]) * tensor.row_bytes
        data = self._bytes(tensor.offset + first * step, (last - first) * step)
        rows = tensor.kind.decode(data.reshape(-1, tensor.row_bytes))
        return rows.reshape(last - first, *inner)

    def _bytes(self, offset: int, count: int) -> np.ndarray:
        out = np.empty(count, np.uint8)
        view = memoryview(out)
        with open(self.path, "rb", buffering=0) as stream:
            stream.seek(offset)
            while view:
                got = stream.readinto(view)  # type: ignore[attr-defined]
                if not got:
                    raise UserError(f"{self.path} ended while it was read: is it being written?")
                view = view[got:]
        return out


def is_gguf(path: str | os.PathLike) -> bool:
    """Whether a path is one of a GGUF file, by its name."""
    return os.fspath(path).endswith(SUFFIX) and pathlib.Path(path).is_file()


def open_gguf(path: str | os.PathLike) -> GGUFFile:
    """Reads a file's head.

    Raises:
      UserError: for a file that is none, a truncated one, a part of a split one, or a tensor of
        an unknown type; and where a quantised one needs the package `gguf`, which is not there.
    """
    stat = os.stat(path)
    return _opened(os.path.abspath(path), stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=4)
def _opened(path: str, size: int, changed: int) -> GGUFFile:
    """The vocabulary makes the head large, and a run opens it several times."""
    del changed
    with open(path, "rb") as stream:
        head = _Head(stream, path, size)
        metadata, tensors = head.parse()
    _check_whole(path, metadata)
    return GGUFFile(path, metadata, tensors)


def _check_whole(path: str, metadata: Mapping[str, Any]) -> None:
    if metadata.get("split.count", 0) > 1 or re.search(r"-\d{5}-of-\d{5}\.gguf$", path):
        raise UserError(
            f"{path} is one of several parts of a model: merge them "
            "(llama-gguf-split does) and give the whole"
        )


class _Head:
    """Parses what stands before the tensors."""

    def __init__(self, stream: IO[bytes], path: str, size: int) -> None:
        self._stream, self._path, self._size = stream, path, size

    def parse(self) -> tuple[dict[str, Any], dict[str, Stored]]:
        """Metadata, and each tensor's place; UserError for other files and versions."""
        magic = self._stream.read(4)
        if magic != _MAGIC:
            raise UserError(f"{self._path} is no GGUF file: it begins with {magic!r}")
        version = self._scalar("I")
        if version not in _VERSIONS:
            raise UserError(
                f"{self._path} is a GGUF file of version {version}: {_VERSIONS} are read (of "
                "little-endian machines); convert it anew"
            )
        tensors, pairs = self._scalar("Q"), self._scalar("Q")
        metadata: dict[str, Any] = {}
        for _ in range(pairs):
            key = self._name()
            metadata[key] = self._value(self._scalar("I"))
        infos = [self._info() for _ in range(tensors)]
        alignment = metadata.get("general.alignment", 32)
        if type(alignment) is not int or alignment < 1:
            raise UserError(f"{self._path}: general.alignment is {alignment!r}, which is none")
        start = -(-self._stream.tell() // alignment) * alignment
        found = {}
        for name, shape, kind, offset in infos:
            tensor = Stored(shape, _kind(kind, name, self._path), start + offset)
            if shape and shape[-1] % tensor.kind.block:
                raise UserError(
                    f"{self._path}: {name} has rows of {shape[-1]}, no multiple of "
                    f"{tensor.kind.name}'s {tensor.kind.block}: the file is damaged"
                )
            if tensor.offset + tensor.size > self._size:
                raise self._truncated(f"{name} ends at byte {tensor.offset + tensor.size}")
            found[name] = tensor
        return metadata, found

    def _info(self) -> tuple[str, tuple[int, ...], int, int]:
        name = self._name()
        dimensions = self._scalar("I")
        if dimensions > 8:
            raise UserError(f"{self._path}: {name} has {dimensions} dimensions: it is damaged")
        shape = tuple(self._scalar("Q") for _ in range(dimensions))[::-1]
        return name, shape, self._scalar("I"), self._scalar("Q")

    def _value(self, kind: int) -> Any:
        if kind == _TEXT:
            return self._text()
        if kind != _ARRAY:
            if kind not in _SCALARS:
                raise UserError(f"{self._path}: metadata of type {kind}, which there is not")
            return self._scalar(_SCALARS[kind])
        inner, count = self._scalar("I"), self._scalar("Q")
        if inner in _SCALARS:
            code = "<" + _SCALARS[inner]
            return np.frombuffer(self._read(count * struct.calcsize(code)), code).tolist()
        if inner != _TEXT:
            raise UserError(f"{self._path}: metadata of arrays of type {inner}, which there is not")
        if count > self._size:
            raise self._truncated(f"an array of {count} values is to come")
        return [self._value(inner) for _ in range(count)]

    def _name(self) -> str:
        """Of a key or a tensor."""
        name = self._text()
        if not name.isprintable() or len(name) > 256:
            raise UserError(f"{self._path} is damaged: it names something {name[:40]!r}")
        return name

    def _text(self) -> str:
        # Vocabularies hold bytes that are no UTF-8 by themselves.
        return self._read(self._scalar("Q")).decode("utf-8", errors="replace")

    def _scalar(self, code: str) -> Any:
        return struct.unpack("<" + code, self._read(struct.calcsize("<" + code)))[0]

    def _read(self, count: int) -> bytes:
        data = self._stream.read(count) if count <= self._size else b""
        if len(data) < count:
            raise self._truncated("its head does not end")
        return data

    def _truncated(self, what: str) -> UserError:
        return UserError(
            f"{self._path} is truncated: {what}, and it has {self._size} bytes: download it again"
        )


@functools.lru_cache(maxsize=64)
def _quantisation(number: int) -> Quantisation | None:
    """A type that the package decodes; None for one that it does not know."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
    from gguf.quants import dequantize

    try:
        kind = GGMLQuantizationType(number)
        block, size = GGML_QUANT_SIZES[kind]
        dequantize(np.zeros((1, size), np.uint8), kind)
    except (ValueError, KeyError, NotImplementedError):
        return None
    return Quantisation(kind.name, block, size, np.dtype(np.float32), number)


def _kind(number: int, tensor: str, path: str) -> Quantisation:
    if number in _PLAIN:
        name, dtype = _PLAIN[number]
        return Quantisation(name, 1, dtype.itemsize, dtype, number)
    try:
        found = _quantisation(number)
    except ImportError as error:
        raise UserError(f"{path} is quantised: pip install gguf ({error})") from error
    if found is None:
        raise UserError(
            f"{path}: {tensor} is quantised in a way that is not known here (type {number}): take "
            f"a file of {READ}"
        )
    return found
