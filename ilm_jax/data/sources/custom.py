"""A user's own folder as a dataset: which files are in it, and what they hold.

interactions.csv|tsv|parquet|txt, *.inter, user_sequence.txt, …   who chose what, and when
items.csv|tsv|jsonl|parquet, *.item                               what it was (optional)
columns.gin                                                       names of columns (optional)

A file that is named like one of these and has another form is refused, not overlooked.
"""

import dataclasses
import os
import pathlib

from ilm_jax.data.catalogue.catalogue import Catalogue
from ilm_jax.data.formats import notes, published
from ilm_jax.data.formats.columns import FILE, ITEM_FIELDS, Columns, read_columns
from ilm_jax.data.formats.interaction_files import (
    SEQUENCE_FILES,
    interaction_columns,
    is_table,
    read_interactions,
)
from ilm_jax.data.formats.item_files import SUFFIXES, item_columns, read_items
from ilm_jax.data.sources.assemble import assemble
from ilm_jax.data.sources.dataset_source import DatasetSource
from ilm_jax.errors import UserError
from ilm_jax.files import sha256_file

VERSION = "1.2.0"
INTERACTION_FILES = (
    *(f"interactions.{end}" for end in ("csv", "tsv", "parquet", "inter", "txt")),
    *SEQUENCE_FILES,
)
_LAYOUT = (
    f"the folder holds one of {', '.join(INTERACTION_FILES)} or *.inter, and, for titles, "
    "items.csv, .tsv, .jsonl, .parquet or *.item"
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
        hint = published.explain(folder)
        raise UserError(f"{folder}: no such folder{hint}; {_LAYOUT}")
    there = sorted(path for path in folder.iterdir() if path.is_file())
    interactions = [p for p in there if p.name in INTERACTION_FILES or p.suffix == ".inter"]
    items = [
        p for p in there if (p.stem == "items" and p.suffix in SUFFIXES) or p.suffix == ".item"
    ]
    for path in there:
        known = path.name in INTERACTION_FILES or path in items
        if path.name.split(".")[0] in ("interactions", "items") and not known:
            raise UserError(f"{path}: of no form that is read, nor left unread{_unread(path)}")
    for what, found in (("interactions", interactions), ("items", items)):
        if len(found) > 1:
            names = ", ".join(path.name for path in found)
            raise UserError(f"{folder}: several files of {what} ({names}); leave one of them")
    if not interactions:
        names = ", ".join(path.name for path in there) or "nothing"
        hint = published.explain(folder, INTERACTION_FILES[:1])
        raise UserError(f"{folder}: no file of interactions among {names}{hint}; {_LAYOUT}")
    columns = folder / FILE
    return Recognised(
        interactions[0], items[0] if items else None, columns if columns.is_file() else None
    )


def source_hashes(folder: str | os.PathLike) -> dict[str, str]:
    """SHA-256 of every file that would be read; errors as `recognise`."""
    return {path.name: sha256_file(path) for path in recognise(folder).files}


def _unread(path: pathlib.Path) -> str:
    if path.suffix in (".gz", ".zip", ".bz2", ".xz", ".zst"):
        return "; unpack it"
    return f"; {_LAYOUT}: export it as one of them, or give it another name"


@dataclasses.dataclass(frozen=True)
class ReadAs:
    """How a file is read.

    Attributes:
      fields: the column of each field.
      unread: columns that are not read.
      categories: how those in one cell are cut; "" without any.
    """

    fields: dict[str, str]
    unread: list[str]
    categories: str = ""


def read_as(path: pathlib.Path, columns: Columns) -> ReadAs:
    """How a file is read; without fields if its form has no columns.

    Raises:
      UserError: as the readers, of the header.
    """
    cut = ""
    if path.stem == "items" or path.suffix == ".item":
        fields, header, cut = item_columns(path, columns)
        fields |= {name: name for name in columns.attributes}
    elif is_table(path):
        fields, header = interaction_columns(path, columns)
    else:
        return ReadAs({}, [])
    return ReadAs(fields, [name for name in header if name not in fields.values()], cut)


def read(folder: str | os.PathLike, name: str = "custom", *, core: int | None = None) -> Catalogue:
    """The folder as a catalogue, see `assemble`.

    `extras["notes"]` has what the readers say of the data, a line each, if they say anything.

    Args:
      folder: with the files.
      name: of the dataset.
      core: overrides that of `columns.gin`.

    Raises:
      UserError: as the readers, with file and line.
    """
    found = recognise(folder)
    columns: Columns = read_columns(found.interactions.parent)
    if found.items is None and found.columns is not None:
        columns.refuse(
            found.columns,
            (*ITEM_FIELDS, "attributes", "separator", "markup"),
            "the folder has no file of items",
        )
    with notes.collected() as said:
        items = read_items(found.items, columns) if found.items else None
        interactions = read_interactions(found.interactions, columns)
        core = columns.core if core is None else core
        catalogue = assemble(name, VERSION, interactions, items, core)
    return notes.kept(catalogue, said)


SOURCE = DatasetSource(
    "custom",
    VERSION,
    read,
    lambda folder, release: source_hashes(folder),
    pattern=r"[a-z0-9_]{0,40}",
    examples=("custom", "custom/<any name>"),
    custom_format=True,
    first_look=("openp5/sequential_random", "elm24/long_description"),
)
