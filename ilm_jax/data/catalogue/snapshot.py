"""A catalogue on disk: arrays that are mapped, ids and texts included, and a small JSON.

catalogue.json                    names, small fields, sources, and a digest of every file
offsets.npy, items.npy, …         the interactions
item_ids.npy, item_ids.bounds.npy  texts, end to end; user_ids, titles and texts alike
item_ids.order.npy                rows by id; user_ids alike
content.npy, content.bounds.npy   pairs of numbers, and which are whose
categories.npy, …                 texts, their bounds, and which are whose
"""

import json
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ilm_jax.data.catalogue.places import sorted_rows
from ilm_jax.data.catalogue.strings import Lists, Strings
from ilm_jax.errors import UserError
from ilm_jax.files import atomic_dir, sha256_file, sha256_json

if TYPE_CHECKING:
    from ilm_jax.data.catalogue.catalogue import Catalogue

FORMAT = "ilm_jax.catalogue/2"
HEADER = "catalogue.json"
IDS = ("item_ids", "user_ids")
TEXTS = (*IDS, "titles", "texts")
VECTORS = ("offsets", "items", "ratings", "timestamps")
SMALL = ("name", "version", "ties", "extras")


def save(catalogue: "Catalogue", path: str | os.PathLike, sources: Mapping[str, str]) -> None:
    """Writes the folder under another name and renames it, in the place of an older one."""
    header: dict[str, Any] = {
        "format": FORMAT,
        "fingerprint": catalogue.fingerprint,
        "sources": dict(sources),
        **{name: getattr(catalogue, name) for name in SMALL},
        "ties": int(catalogue.ties),
    }
    with atomic_dir(path) as folder:
        files = {}
        for name, array in _arrays(catalogue):
            np.save(folder / f"{name}.npy", array, allow_pickle=False)
            files[name] = sha256_file(folder / f"{name}.npy")
        header["files"] = files
        header["digest"] = sha256_json(header)
        with open(folder / HEADER, "w", encoding="utf-8") as stream:
            json.dump(header, stream, ensure_ascii=False)


def _arrays(catalogue: "Catalogue") -> Iterator[tuple[str, np.ndarray]]:
    for name in VECTORS:
        yield name, getattr(catalogue, name)
    for name in TEXTS:
        texts = Strings.of(getattr(catalogue, name))
        yield name, texts.data
        yield f"{name}.bounds", texts.bounds
        if name in IDS:
            yield f"{name}.order", sorted_rows(texts)
    spans = Lists.of_pairs(catalogue.content)
    assert isinstance(spans.values, np.ndarray)
    yield "content", spans.values
    yield "content.bounds", spans.bounds
    lists = Lists.of_texts(catalogue.categories)
    assert isinstance(lists.values, Strings)
    yield "categories", lists.values.data
    yield "categories.of", lists.values.bounds
    yield "categories.bounds", lists.bounds


def header_of(path: str | os.PathLike) -> dict[str, Any]:
    """What catalogue.json of a folder says.

    Raises:
      UserError: if it is absent, of another format, damaged or changed by hand.
    """
    file = pathlib.Path(path) / HEADER
    try:
        plain = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{file}: no such catalogue; prepare the dataset first") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file}: not valid JSON ({error}); delete the folder") from error
    if not isinstance(plain, dict) or plain.get("format") != FORMAT:
        raise UserError(f"{file}: not of format {FORMAT}; delete the folder, it is made again")
    if sha256_json({k: v for k, v in plain.items() if k != "digest"}) != plain.get("digest"):
        raise UserError(f"{file}: content differs from its fingerprint; delete the folder")
    return plain


def fields(folder: pathlib.Path, header: Mapping[str, Any], check: bool) -> dict[str, Any]:
    """The fields of the saved catalogue, and under "orders" the rows of its ids by id.

    Args:
      folder: the snapshot.
      header: of `header_of`.
      check: whether every file is read through, and compared with its digest.

    Raises:
      UserError: if a file is absent, damaged or changed by hand.
    """

    def array(name: str) -> np.ndarray:
        """One file, mapped."""
        file = folder / f"{name}.npy"
        try:
            if check and sha256_file(file) != header["files"].get(name):
                raise UserError(f"{file}: content differs from its fingerprint; delete the folder")
            return np.asarray(np.load(file, mmap_mode="r", allow_pickle=False))
        except (OSError, KeyError, TypeError, ValueError, EOFError) as error:
            raise UserError(f"{folder}: damaged catalogue ({error}); delete the folder") from error

    found: dict[str, Any] = {name: header[name] for name in SMALL}
    found |= {name: array(name) for name in VECTORS}
    found |= {name: Strings(array(name), array(f"{name}.bounds")) for name in TEXTS}
    found["content"] = Lists(array("content"), array("content.bounds"))
    words = Strings(array("categories"), array("categories.of"))
    found["categories"] = Lists(words, array("categories.bounds"))
    found["orders"] = {name: array(f"{name}.order") for name in IDS}
    return found
