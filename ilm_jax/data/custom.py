"""A user's own folder as a dataset: which files are in it, and what they hold.

interactions.csv|tsv|parquet|txt, *.inter, user_sequence.txt, …   who chose what, and when
items.csv|tsv|jsonl, *.item                                       what it was (optional)
columns.gin                                                       names of columns (optional)
"""

import dataclasses
import os
import pathlib

from ilm_jax.data.assemble import assemble
from ilm_jax.data.catalogue import Catalogue
from ilm_jax.data.columns import FILE, Columns, read_columns
from ilm_jax.data.interaction_files import SEQUENCE_FILES, interaction_header, read_interactions
from ilm_jax.data.item_files import SUFFIXES, item_header, read_items
from ilm_jax.errors import UserError
from ilm_jax.files import sha256_file

VERSION = "1.1.0"
INTERACTION_FILES = (
    *(f"interactions.{end}" for end in ("csv", "tsv", "parquet", "inter", "txt")), *SEQUENCE_FILES,
)  # fmt: skip
_LAYOUT = (
    f"the folder holds one of {', '.join(INTERACTION_FILES)} or *.inter, and, for titles, "
    "items.csv, items.tsv, items.jsonl or *.item"
)


@dataclasses.dataclass(frozen=True)
class Recognised:
    """The files of a folder by what they are."""

    interactions: pathlib.Path
    items: pathlib.Path | None
    columns: pathlib.Path | None

    @property
    def files(self) -> list[pathlib.Path]:
        """All that are read."""
        return [path for path in (self.interactions, self.items, self.columns) if path]


def recognise(folder: str | os.PathLike) -> Recognised:
    """Finds the files.

    Raises:
      UserError: if there is no file of interactions, or more than one of a kind.
    """
    folder = pathlib.Path(folder).expanduser()
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; {_LAYOUT}")
    there = sorted(path for path in folder.iterdir() if path.is_file())
    interactions = [p for p in there if p.name in INTERACTION_FILES or p.suffix == ".inter"]
    items = [
        p for p in there
        if (p.stem == "items" and p.suffix in SUFFIXES) or p.suffix == ".item"
    ]  # fmt: skip
    for what, found in (("interactions", interactions), ("items", items)):
        if len(found) > 1:
            names = ", ".join(path.name for path in found)
            raise UserError(f"{folder}: several files of {what} ({names}); leave one of them")
    if not interactions:
        names = ", ".join(path.name for path in there) or "nothing"
        raise UserError(f"{folder}: no file of interactions among {names}; {_LAYOUT}")
    columns = folder / FILE
    return Recognised(
        interactions[0], items[0] if items else None, columns if columns.is_file() else None
    )


def source_hashes(folder: str | os.PathLike) -> dict[str, str]:
    """SHA-256 of every file that would be read; errors as `recognise`."""
    return {path.name: sha256_file(path) for path in recognise(folder).files}


def read_as(path: pathlib.Path, columns: Columns) -> tuple[dict[str, str], list[str]]:
    """(column of each field, columns that are not read) of a file; both empty without a header.

    Raises:
      UserError: as the readers, of the first row.
    """
    items = path.stem == "items" or path.suffix == ".item"
    if path.name in SEQUENCE_FILES or path.suffix == ".txt":
        return {}, []
    header = item_header(path) if items else interaction_header(path)
    fields = ("id", "title", "text", "categories") if items else (
        "user", "item", "timestamp", "rating"
    )  # fmt: skip
    read = {field: name for field in fields if (name := columns.find(field, header))}
    if items:
        read |= {name: name for name in columns.attributes if name in header}
    return read, [name for name in header if name not in read.values()]


def read(folder: str | os.PathLike, name: str = "custom", *, core: int | None = None) -> Catalogue:
    """The folder as a catalogue, see `assemble`.

    Args:
      folder: with the files.
      name: of the dataset.
      core: overrides that of `columns.gin`.

    Raises:
      UserError: as the readers, with file and line.
    """
    found = recognise(folder)
    columns: Columns = read_columns(found.interactions.parent)
    items = read_items(found.items, columns) if found.items else None
    interactions = read_interactions(found.interactions, columns)
    core = columns.core if core is None else core
    return assemble(name, VERSION, interactions, items, core)
