"""Which file of a safetensors folder holds which tensor: the index decides, where there is one."""

import dataclasses
import math
import pathlib
import struct
from typing import Any

import numpy as np

from ilm_jax.errors import UserError
from ilm_jax.safetensors_files import DTYPES
from ilm_jax.strict_json import parse_object

INDEX, SINGLE, CONFIG = "model.safetensors.index.json", "model.safetensors", "config.json"
# An adapter beside a model, which other libraries add to it when they read the folder.
ADAPTERS = ("adapter_model.safetensors", "adapter_config.json")
PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json", "*.bin", "*.pt", "*.pth", "*.ckpt")
HEADER_BYTES = 100_000_000  # as the format's own library allows


@dataclasses.dataclass(frozen=True)
class Stored:
    """Place of a tensor's bytes in a file."""

    file: pathlib.Path
    dtype: np.dtype
    shape: tuple[int, ...]
    offset: int


def find_tensors(folder: pathlib.Path) -> tuple[dict[str, Stored], list[str]]:
    """({tensor: where it lies}, lines for a person) of a folder.

    With an index, its weight_map says which file a tensor is read from. A tensor that it does not
    name is read where one of its files alone holds it. Files that it does not name are not the
    model's: shards of an older save, or the model again in its maker's own form (consolidated.*).

    Raises:
      UserError: for a folder without safetensors, a missing shard, a tensor that is not where the
        index says, a file that is no safetensors file, or one model beside another.
    """
    if any((folder / name).is_file() for name in ADAPTERS):
        raise UserError(
            f"{folder} holds an adapter ({ADAPTERS[0]}) beside its model: merge it where it was "
            "made (in Python with peft: merge_and_unload), or move its files away"
        )
    if not (folder / INDEX).is_file():
        return _single(folder)
    index = parse_object((folder / INDEX).read_bytes(), str(folder / INDEX))
    promised = _promised(folder, index)
    headers = {name: read_header(folder / name) for name in sorted(set(promised.values()))}
    lacking = sorted(name for name, file in promised.items() if name not in headers[file])
    if lacking:
        raise UserError(
            f"{folder / INDEX} promises {lacking[0]} in {promised[lacking[0]]}, which "
            f"does not hold it ({len(lacking)} such tensors): download the folder again"
        )
    found = {name: headers[file][name] for name, file in promised.items()}
    notes = _unnamed(folder, headers, found)
    notes += _other_files(folder, set(headers))
    notes += _wrong_total(folder, index, found)
    return found, notes


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


def _single(folder: pathlib.Path) -> tuple[dict[str, Stored], list[str]]:
    if not (folder / SINGLE).is_file():
        refuse_pickles(folder)
        raise UserError(f"{folder} holds neither {SINGLE} nor {INDEX}")
    return read_header(folder / SINGLE), _other_files(folder, {SINGLE})


def _promised(folder: pathlib.Path, index: dict[str, Any]) -> dict[str, str]:
    """{tensor: file} of the index."""
    promised = index.get("weight_map")
    if not isinstance(promised, dict) or not promised:
        raise UserError(f"{folder / INDEX} has no weight_map: download it again")
    for name, file in promised.items():
        if not isinstance(file, str) or file in ("", ".", "..") or "/" in file or "\0" in file:
            raise UserError(f"{folder / INDEX} says {name} lies in {file!r}, which is no file here")
    files = sorted(set(promised.values()))
    missing = [name for name in files if not (folder / name).is_file()]
    if missing:
        raise UserError(
            f"{folder} lacks {len(missing)} of {len(files)} shards {missing[:4]} that "
            f"{INDEX} names: download them, or the folder again"
        )
    if (folder / SINGLE).is_file() and SINGLE not in files:
        raise UserError(
            f"{folder} holds {SINGLE} and an {INDEX} of other files, so two models: move away the "
            "one that is not meant"
        )
    return promised


def _unnamed(
    folder: pathlib.Path, headers: dict[str, dict[str, Stored]], found: dict[str, Stored]
) -> list[str]:
    """Adds the tensors that the index does not name to `found`."""
    extra: dict[str, list[str]] = {}
    for file, header in headers.items():
        for name in header:
            if name not in found:
                extra.setdefault(name, []).append(file)
    for name, files in extra.items():
        if len(files) > 1:
            raise UserError(
                f"{folder}: {', '.join(files)} all hold {name}, and {INDEX} does not say which is "
                "meant: download the folder again"
            )
        found[name] = headers[files[0]][name]
    return [f"{folder}: {INDEX} does not name {_some(list(extra))} of its files"] if extra else []


def _other_files(folder: pathlib.Path, read: set[str]) -> list[str]:
    others = sorted(f.name for f in folder.glob("*.safetensors") if f.name not in read)
    if not others:
        return []
    return [f"{folder}: {_some(others)} {'is' if len(others) == 1 else 'are'} not read"]


def _wrong_total(
    folder: pathlib.Path, index: dict[str, Any], found: dict[str, Stored]
) -> list[str]:
    metadata = index.get("metadata")
    total = metadata.get("total_size") if isinstance(metadata, dict) else None
    held = sum(math.prod(t.shape) * t.dtype.itemsize for t in found.values())
    if total is None or total == held:
        return []
    return [f"{folder}: {INDEX} says total_size {total}, and its tensors have {held} bytes"]


def _some(names: list[str], limit: int = 3) -> str:
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" * (len(names) > limit))


def read_header(file: pathlib.Path) -> dict[str, Stored]:
    """The tensors of one file, whose size must be what its header says.

    Raises:
      UserError: for a file that is cut, or whose header does not describe its bytes.
    """
    size = file.stat().st_size
    with open(file, "rb") as stream:
        start = stream.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else size
        if 8 + length > size or length > HEADER_BYTES:
            raise UserError(f"{file} is truncated or no safetensors file: download it again")
        text = stream.read(length)
    try:
        header = parse_object(text, f"the header of {file}")
    except UserError as error:
        raise UserError(f"{file} is no safetensors file: {error}") from error
    header.pop("__metadata__", None)
    tensors = {}
    spans = []
    for name, entry in header.items():
        tensor, begin, stop = _described(file, name, entry, 8 + length)
        spans.append((begin, stop))
        tensors[name] = tensor
    end = 8 + length + max((stop for _, stop in spans), default=0)
    if size != end:
        raise UserError(
            f"{file} is truncated: {size} bytes of {end} that its header names; download it again"
        )
    at = 0
    for begin, stop in sorted(spans):
        if begin != at:
            raise UserError(f"{file}: bytes {at} to {begin} are of no tensor, or of two")
        at = stop
    return tensors


def _described(file: pathlib.Path, name: str, entry: object, start: int) -> tuple[Stored, int, int]:
    """(tensor, first byte, end) of one entry of a header."""

    def numbers(value: object) -> bool:
        """Whether it is a list of integers, none negative."""
        return isinstance(value, list) and all(type(n) is int and n >= 0 for n in value)

    if (
        not isinstance(entry, dict)
        or not numbers(entry.get("shape"))
        or not numbers(entry.get("data_offsets"))
        or len(entry["data_offsets"]) != 2
    ):
        raise UserError(f"{file}: its header does not say what {name} is: download it again")
    kind = entry.get("dtype")
    if not isinstance(kind, str) or kind not in DTYPES:
        raise UserError(f"{file}: {name} is of type {kind}, which nothing here reads")
    begin, stop = entry["data_offsets"]
    tensor = Stored(file, DTYPES[kind], tuple(entry["shape"]), start + begin)
    if math.prod(tensor.shape) * tensor.dtype.itemsize != stop - begin:
        raise UserError(f"{file}: the bytes of {name} do not fit its shape {tensor.shape}")
    return tensor, begin, stop
