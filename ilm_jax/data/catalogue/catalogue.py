"""The catalogue: items with their texts, and every user's interactions in time order.

A catalogue is what a dataset builder produces and everything else reads. On disk it is a folder
with `catalogue.json` (texts and small fields) and `interactions.npz` (arrays, no pickle).
"""

import dataclasses
import functools
import hashlib
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float32, Int32, Int64

from ilm_jax.errors import UserError
from ilm_jax.files import atomic_dir, read_arrays, sha256_json

FORMAT = "ilm_jax.catalogue/1"
_ARRAYS = {"offsets": np.int64, "items": np.int32, "ratings": np.float32, "timestamps": np.int64}
_PLAIN = ("name", "version", "item_ids", "titles", "texts", "content", "categories", "user_ids")


@dataclasses.dataclass(frozen=True, eq=False)
class Catalogue:
    """Items, texts and interactions of one dataset; row i of every item list is `item_ids[i]`.

    Attributes:
      name: dataset name, such as "toy", "toy/world3" or "movielens/latest_small".
      version: version of the builder's output, such as "1.0.0".
      item_ids: raw item ids as the source spells them, unique.
      titles: one title per item.
      texts: one text per item.
      content: per item the [start, end) character spans of its text that carry information;
        what lies outside is template boilerplate. Sorted, disjoint.
      categories: per item its categories, general to special.
      user_ids: raw user ids, unique.
      offsets: user u's interactions are entries offsets[u] to offsets[u + 1] of the arrays below.
      items: item rows in time order (ties keep the source's order).
      ratings: NaN where the source has none.
      timestamps: seconds; -1 where the source has none.
      ties: number of users whose last two interactions share a timestamp.
      extras: JSON-able; what this dataset alone has.

    Raises:
      ValueError: if the parts do not fit together.
    """

    name: str
    version: str
    item_ids: list[str]
    titles: list[str]
    texts: list[str]
    content: list[list[tuple[int, int]]]
    categories: list[list[str]]
    user_ids: list[str]
    offsets: Int64[np.ndarray, " users+1"]
    items: Int32[np.ndarray, " interactions"]
    ratings: Float32[np.ndarray, " interactions"]
    timestamps: Int64[np.ndarray, " interactions"]
    ties: int
    extras: dict

    def __post_init__(self) -> None:
        for name in ("titles", "texts", "content", "categories"):
            if len(getattr(self, name)) != len(self.item_ids):
                raise ValueError(f"{name} has another length than item_ids")
        for name, dtype in _ARRAYS.items():
            array = getattr(self, name)
            if array.dtype != dtype or array.ndim != 1:
                raise ValueError(f"{name} must be a vector of {np.dtype(dtype).name}")
        total = len(self.items)
        if len(self.ratings) != total or len(self.timestamps) != total:
            raise ValueError("items, ratings and timestamps differ in length")
        steps = np.diff(self.offsets)
        if len(self.offsets) != len(self.user_ids) + 1 or self.offsets[0] != 0:
            raise ValueError("offsets must start at 0 and have one entry more than user_ids")
        if self.offsets[-1] != total or (steps < 0).any():
            raise ValueError("offsets must rise to the number of interactions")
        if total and not 0 <= int(self.items.min()) <= int(self.items.max()) < self.num_items:
            raise ValueError("an interaction names an item outside the catalogue")
        for name in ("item_ids", "user_ids"):
            if len(set(getattr(self, name))) != len(getattr(self, name)):
                raise ValueError(f"{name} holds an id twice")
        for row, (text, spans) in enumerate(zip(self.texts, self.content, strict=True)):
            bounds = [0, *(bound for span in spans for bound in span), len(text)]
            if bounds != sorted(bounds):
                raise ValueError(f"content spans of item {self.item_ids[row]} do not fit its text")

    @property
    def num_items(self) -> int:
        """Number of items, with or without interactions."""
        return len(self.item_ids)

    @property
    def num_users(self) -> int:
        """Number of users."""
        return len(self.user_ids)

    def sequence(self, user: int) -> Int32[np.ndarray, " length"]:
        """Item rows of user row `user`, oldest first (a view)."""
        return self.items[self.offsets[user] : self.offsets[user + 1]]

    @functools.cached_property
    def item_row(self) -> Mapping[str, int]:
        """Item row of every raw item id."""
        return {raw: row for row, raw in enumerate(self.item_ids)}

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hex SHA-256 of everything in the catalogue."""
        digest = hashlib.sha256(sha256_json(self._plain()).encode())
        for name, dtype in _ARRAYS.items():
            little = np.ascontiguousarray(getattr(self, name), np.dtype(dtype).newbyteorder("<"))
            digest.update(f"{name}:{len(little)}:".encode())
            digest.update(little.tobytes())
        return digest.hexdigest()

    def _plain(self) -> dict[str, Any]:
        plain = {name: getattr(self, name) for name in _PLAIN}
        return plain | {"ties": int(self.ties), "extras": self.extras}

    def save(self, path: str | os.PathLike, sources: Mapping[str, str] | None = None) -> None:
        """Writes the folder `path` atomically, replacing an older one.

        Args:
          path: the folder.
          sources: hash or version of each thing that the catalogue was made from, by name; read
            back by `stored_sources`. Not part of the fingerprint.
        """
        header = {"format": FORMAT, "fingerprint": self.fingerprint, "sources": dict(sources or {})}
        with atomic_dir(path) as folder:
            with open(folder / "catalogue.json", "w", encoding="utf-8") as stream:
                json.dump(header | self._plain(), stream, ensure_ascii=False)
            np.savez(folder / "interactions.npz", **{n: getattr(self, n) for n in _ARRAYS})

    @classmethod
    def load(cls, path: str | os.PathLike) -> "Catalogue":
        """Reads what `save` wrote.

        Raises:
          UserError: if the folder is absent, of another format, damaged or changed by hand.
        """
        folder = pathlib.Path(path)
        plain = _header(folder)
        try:
            arrays = read_arrays(folder / "interactions.npz")
            fields: dict[str, Any] = {name: arrays[name] for name in _ARRAYS}
            fields |= {name: plain[name] for name in (*_PLAIN, "ties", "extras")}
            fields["content"] = [[(s, e) for s, e in spans] for spans in fields["content"]]
            catalogue = cls(**fields)
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise UserError(f"{folder}: damaged catalogue ({error}); delete the folder") from error
        if catalogue.fingerprint != plain.get("fingerprint"):
            raise UserError(f"{folder}: content differs from its fingerprint; delete the folder")
        return catalogue


def _header(folder: pathlib.Path) -> dict[str, Any]:
    file = folder / "catalogue.json"
    try:
        plain = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{file}: no such catalogue; prepare the dataset first") from None
    except ValueError as error:
        raise UserError(f"{file}: not valid JSON ({error}); delete the folder") from error
    if not isinstance(plain, dict) or plain.get("format") != FORMAT:
        raise UserError(f"{file}: not of format {FORMAT}; delete the folder, it is made again")
    return plain


def stored_sources(path: str | os.PathLike) -> dict[str, str]:
    """The sources of the saved catalogue at folder `path` (see `Catalogue.save`).

    Raises:
      UserError: as `Catalogue.load`.
    """
    return _header(pathlib.Path(path)).get("sources", {})


def count_ties(
    offsets: Int64[np.ndarray, " users+1"], timestamps: Int64[np.ndarray, " interactions"]
) -> int:
    """Number of users whose last two interactions share a (known) timestamp."""
    ends = offsets[1:][np.diff(offsets) >= 2]
    last, before = timestamps[ends - 1], timestamps[ends - 2]
    return int(np.sum((last == before) & (last >= 0)))
