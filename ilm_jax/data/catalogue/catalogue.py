"""The catalogue: items with their texts, and every user's interactions in time order.

A catalogue is what a dataset's reader produces and everything else reads. On disk it is a folder
(`snapshot`) that is mapped rather than read: lists and arrays are then taken from the files as they
are needed, and every process of a machine shares them.
"""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32, Int32, Int64

from ilm_jax.data.catalogue import digests, snapshot
from ilm_jax.data.catalogue.places import Places
from ilm_jax.data.catalogue.strings import distinct
from ilm_jax.errors import UserError

_ARRAYS = {"offsets": np.int64, "items": np.int32, "ratings": np.float32, "timestamps": np.int64}
_PLAIN = ("name", "version", "item_ids", "titles", "texts", "content", "categories", "user_ids")


@dataclasses.dataclass(frozen=True, eq=False)
class Catalogue:
    """Items, texts and interactions of one dataset; row i of every item list is `item_ids[i]`.

    Lists may be columns of a snapshot (`strings.Column`), which read like lists.

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
    item_ids: Sequence[str]
    titles: Sequence[str]
    texts: Sequence[str]
    content: Sequence[Sequence[tuple[int, int]]]
    categories: Sequence[Sequence[str]]
    user_ids: Sequence[str]
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
        for name in snapshot.IDS:
            if not distinct(getattr(self, name)):
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
    def user_row(self) -> Mapping[str, int]:
        """User row of every raw user id."""
        return {raw: row for row, raw in enumerate(self.user_ids)}

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hex SHA-256 of everything in the catalogue."""
        plain = {name: getattr(self, name) for name in _PLAIN}
        plain |= {"ties": int(self.ties), "extras": self.extras}
        return digests.fingerprint(
            plain,
            {
                name: getattr(self, name).astype(dtype, copy=False)
                for name, dtype in _ARRAYS.items()
            },
        )

    def save(self, path: str | os.PathLike, sources: Mapping[str, str] | None = None) -> None:
        """Writes the folder `path` atomically, replacing an older one.

        Args:
          path: the folder.
          sources: hash or version of each thing that the catalogue was made from, by name; read
            back by `stored_sources`. Not part of the fingerprint.
        """
        snapshot.save(self, path, sources or {})

    @classmethod
    def load(cls, path: str | os.PathLike, *, check: bool = True) -> "Catalogue":
        """Maps what `save` wrote.

        Args:
          path: the folder.
          check: whether every file is read through once, and compared with its digest.

        Raises:
          UserError: if the folder is absent, of another format, damaged or changed by hand.
        """
        folder = pathlib.Path(path)
        header = snapshot.header_of(folder)
        fields = snapshot.fields(folder, header, check)
        orders = fields.pop("orders")
        # Its parts fitted together when they were saved, and are the same bytes.
        catalogue = object.__new__(cls)
        catalogue.__dict__.update(fields, fingerprint=header["fingerprint"], _folder=str(folder))
        for name, found in (("item_row", "item_ids"), ("user_row", "user_ids")):
            catalogue.__dict__[name] = Places(fields[found], orders[found])
        return catalogue

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process maps the same files, if there are any."""
        folder = self.__dict__.get("_folder")
        if folder is not None:
            return _mapped_again, (folder, self.fingerprint)
        return Catalogue, tuple(getattr(self, field.name) for field in dataclasses.fields(self))


def _mapped_again(folder: str, fingerprint: str) -> Catalogue:
    catalogue = Catalogue.load(folder, check=False)
    if catalogue.fingerprint != fingerprint:
        raise UserError(f"{folder}: was made again while it was in use; start again")
    return catalogue


def stored_sources(path: str | os.PathLike) -> dict[str, str]:
    """The sources of the saved catalogue at folder `path` (see `Catalogue.save`).

    Raises:
      UserError: as `Catalogue.load`.
    """
    return snapshot.header_of(path).get("sources", {})


def count_ties(
    offsets: Int64[np.ndarray, " users+1"], timestamps: Int64[np.ndarray, " interactions"]
) -> int:
    """Number of users whose last two interactions share a (known) timestamp."""
    ends = offsets[1:][np.diff(offsets) >= 2]
    last, before = timestamps[ends - 1], timestamps[ends - 2]
    return int(np.sum((last == before) & (last >= 0)))
