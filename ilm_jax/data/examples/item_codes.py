"""Codes of items for semantic ids: their words, and the file that holds them.

An item's code is a short list of numbers, coarse to fine, found by quantising its vector level by
level (Rajput et al. 2023, arXiv 2305.05065, section 3.1); the last number sets apart items that
share all others. Level by level the numbers are words of their own, "<a_17><b_3><c_201><d_0>".

File format "ilm_jax.codes/1", a safetensors file. Tensors: `codes` I32[items, levels], and what
gives a vector its code (`cf/quantizer.py`), under names that begin with "quantizer/". The metadata
of the header hold, under the key "ilm_jax", one JSON object:

    format             "ilm_jax.codes/1"
    catalogue          dataset name, such as "movielens/1m"
    item_ids           raw ids, in the order of the rows
    split_fingerprint  of the split whose training interactions and texts made the vectors
    sizes              how many numbers each level has
    settings           how the codes were made
    statistics         what was counted of them
    sha256             of the tensors' bytes, in the order of their names
"""

import dataclasses
import functools
import hashlib
import json
import os
import pathlib
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors
import safetensors.numpy
from jaxtyping import Int32

from ilm_jax.data.catalogue.made_from import check_made_from
from ilm_jax.errors import UserError
from ilm_jax.files import atomic_write

if TYPE_CHECKING:
    from ilm_jax.data.catalogue.splits import Splits

FORMAT = "ilm_jax.codes/1"
MOST_LEVELS = 26
_REMAKE = "make it again with `ilm semantic_ids`"
_QUANTIZER = "quantizer/"
_WORD = re.compile(r"<([a-z])_(\d{1,9})>")
_FIELDS = ("catalogue", "item_ids", "split_fingerprint", "sizes", "settings", "statistics")


def code_word(level: int, number: int) -> str:
    """Spelling of a number of a level."""
    return f"<{chr(ord('a') + level)}_{number}>"


def code_of(name: str) -> tuple[int, ...] | None:
    """The numbers that a name spells, all of its levels in order; None for any other text."""
    found = list(_WORD.finditer(name))
    letters = "".join(match[1] for match in found)
    whole = "".join(match[0] for match in found) == name
    if not found or not whole or letters != "abcdefghijklmnopqrstuvwxyz"[: len(found)]:
        return None
    return tuple(int(match[2]) for match in found)


@dataclasses.dataclass(frozen=True, eq=False)
class ItemCodes:
    """Codes of one catalogue; row i of `codes` belongs to `item_ids[i]`.

    Attributes:
      catalogue: dataset name.
      item_ids: raw ids.
      codes: of every item, the last level included; all different.
      sizes: numbers of each level; codes are below them.
      split_fingerprint: `Splits.fingerprint` of the split that the vectors were made on.
      quantizer: arrays by name; what gives further vectors their codes.
      settings: JSON-able; how the codes were made.
      statistics: JSON-able.

    Raises:
      ValueError: if the parts do not fit together, or two items share a code.
    """

    catalogue: str
    item_ids: list[str]
    codes: Int32[np.ndarray, "items levels"]
    sizes: tuple[int, ...]
    split_fingerprint: str
    quantizer: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    statistics: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        codes = self.codes
        if (
            codes.ndim != 2
            or codes.dtype != np.int32
            or codes.shape
            != (
                len(self.item_ids),
                len(self.sizes),
            )
        ):
            sizes = f"{len(self.item_ids)} ids and {len(self.sizes)} levels"
            raise ValueError(f"codes {codes.dtype}{list(codes.shape)} of {sizes}")
        if not 1 <= len(self.sizes) <= MOST_LEVELS:
            raise ValueError(f"{len(self.sizes)} levels: from 1 to {MOST_LEVELS} have letters")
        if len(set(self.item_ids)) != len(self.item_ids):
            raise ValueError("item_ids holds an id twice")
        if len(codes) and ((codes < 0) | (codes >= np.array(self.sizes))).any():
            raise ValueError("a code is outside its level")
        if len(np.unique(codes, axis=0)) != len(codes):
            raise ValueError("two items share a code")

    @functools.cached_property
    def names(self) -> list[str]:
        """The name of every item, such as "<a_17><b_3><c_201><d_0>"."""
        rows = self.codes.tolist()
        return ["".join(code_word(level, n) for level, n in enumerate(row)) for row in rows]

    @property
    def words(self) -> list[str]:
        """All words of names, level by level."""
        return [code_word(level, n) for level, size in enumerate(self.sizes) for n in range(size)]

    def save(self, path: str | os.PathLike) -> None:
        """Writes the file atomically."""
        tensors = {"codes": np.ascontiguousarray(self.codes)}
        for name, array in self.quantizer.items():
            tensors[_QUANTIZER + name] = np.ascontiguousarray(array)
        header = {"format": FORMAT, **{name: getattr(self, name) for name in _FIELDS}}
        header["sha256"] = _digest(tensors)
        metadata = {"ilm_jax": json.dumps(header, ensure_ascii=False)}
        with atomic_write(path, "wb") as stream:
            stream.write(safetensors.numpy.save(tensors, metadata))

    @classmethod
    def load(cls, path: str | os.PathLike, splits: "Splits | None" = None) -> "ItemCodes":
        """Reads what `save` wrote.

        Args:
          path: the file.
          splits: if given, the codes must be of exactly this split's items.

        Raises:
          UserError: if the file is absent, truncated, of another format, inconsistent, or of
            another catalogue or split.
        """
        header, tensors = _read(pathlib.Path(path))
        try:
            if header["sha256"] != _digest(tensors):
                raise ValueError("its numbers are not those that were written")
            fields: dict[str, Any] = {name: header[name] for name in _FIELDS}
            fields["sizes"] = tuple(int(size) for size in header["sizes"])
            quantizer = {
                name.removeprefix(_QUANTIZER): array
                for name, array in tensors.items()
                if name.startswith(_QUANTIZER)
            }
            found = cls(codes=tensors["codes"], quantizer=quantizer, **fields)
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path}: damaged codes ({error}); {_REMAKE}") from error
        if splits is not None:
            found.check(splits, path)
        return found

    def check(self, splits: "Splits", path: str | os.PathLike = "item codes") -> None:
        """Raises UserError unless the codes are of `splits`; `path` is for the message."""
        check_made_from(
            path,
            self.catalogue,
            {"item": self.item_ids},
            self.split_fingerprint,
            splits,
            _REMAKE,
            if_more=" (--extends keeps the codes that are there)",
        )


def _digest(tensors: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode() + np.ascontiguousarray(tensors[name]).tobytes())
    return digest.hexdigest()


def _read(path: pathlib.Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    if not path.is_file():
        raise UserError(f"{path}: no such file of codes; make it with `ilm semantic_ids`")
    try:
        with safetensors.safe_open(path, framework="numpy") as stream:
            header = json.loads((stream.metadata() or {}).get("ilm_jax", "{}"))
            found = header.get("format") if isinstance(header, dict) else None
            if found != FORMAT:
                raise UserError(f"{path}: format {found!r} instead of {FORMAT!r}; {_REMAKE}")
            return header, {name: stream.get_tensor(name) for name in stream.keys()}
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise UserError(f"{path}: truncated or no safetensors file ({error}); {_REMAKE}") from error
