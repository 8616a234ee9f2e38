"""A corpus that is published as files of records: where its files are, and a catalogue of them.

A corpus is a declaration, `RecordCorpus`; see `steam.py` for a short one.
"""

import dataclasses
import pathlib
from collections.abc import Sequence

from ilm_jax.data.catalogue.catalogue import Catalogue
from ilm_jax.data.formats import notes, published
from ilm_jax.data.formats.coded import Coded
from ilm_jax.data.formats.items import Item, ItemTableBuilder
from ilm_jax.data.formats.record_forms import InteractionForm, ItemForm
from ilm_jax.data.formats.record_reading import read_interactions, read_items
from ilm_jax.data.sources.assemble import assemble
from ilm_jax.data.sources.dataset_source import DatasetSource
from ilm_jax.errors import UserError
from ilm_jax.files import sha256_file

CORE = 5


@dataclasses.dataclass(frozen=True)
class Found:
    """The files of a folder that are read, and what lies there in another form and is not."""

    interactions: tuple[pathlib.Path, ...]
    items: pathlib.Path | None
    unread: tuple[str, ...] = ()

    @property
    def files(self) -> tuple[pathlib.Path, ...]:
        """All that are read."""
        return self.interactions + ((self.items,) if self.items else ())


@dataclasses.dataclass(frozen=True)
class RecordCorpus:
    """Datasets in one published form.

    Attributes:
      name, version: as `DatasetSource`'s.
      interactions, items: what the records hold.
      interaction_files: the files that hold all interactions together, one tuple for each form in
        which they are published, the one that is preferred first; "{release}" stands for what is
        behind the source's name. Upper and lower case are one; each may be gzip (".gz").
      item_files: names that the one file of items may have; it may be absent.
      literals: whether records may be Python dictionaries.
      core: users and items with fewer interactions are left out, iteratively.
    """

    name: str
    version: str
    interactions: InteractionForm
    items: ItemForm
    interaction_files: tuple[tuple[str, ...], ...]
    item_files: tuple[str, ...]
    literals: bool = False
    core: int = CORE

    def find(self, folder: str, release: str) -> Found:
        """The files of a release in a folder.

        Raises:
          UserError: if interactions are absent, in part or whole; if a file that would be read is
            there twice, such as packed and unpacked.
        """
        path = pathlib.Path(folder).expanduser()
        if not path.is_dir():
            raise UserError(
                f"{path}: no such folder{published.explain(path)}; {self._layout(release)}"
            )
        there: dict[str, list[pathlib.Path]] = {}
        for file in sorted(path.iterdir()):
            if file.is_file():
                there.setdefault(file.name.lower(), []).append(file)
        groups = [_named(there, names, release) for names in self.interaction_files]
        chosen = next((number for number, files in enumerate(groups) if any(files)), None)
        if chosen is None:
            found = sorted(file.name for files in there.values() for file in files)
            names = ", ".join(found[:12]) or "nothing"
            hint = published.explain(path, [names[0] for names in self._names(release)])
            raise UserError(f"{path}: found {names}{hint}; {self._layout(release)}")
        present = [_only(path, files) for files in groups[chosen] if files]
        if len(present) < len(groups[chosen]):
            absent = groups[chosen].index([])
            name = self.interaction_files[chosen][absent].format(release=release)
            raise UserError(f"{path}: {present[0].name} is there and {name} is not; give all")
        later = groups[chosen + 1 :]
        others = [file.name for group in later for files in group for file in files]
        items = [file for files in _named(there, self.item_files, release) for file in files]
        return Found(tuple(present), _only(path, items) if items else None, tuple(others))

    def hashes(self, folder: str, release: str) -> dict[str, str]:
        """SHA-256 of every file that is read; errors as `find`."""
        return {path.name: sha256_file(path) for path in self.find(folder, release).files}

    def read(self, folder: str, dataset: str) -> Catalogue:
        """The catalogue of a folder's files.

        `extras`: repeats_left_out, items_without_metadata, and as `assemble`.

        Raises:
          UserError: with file and line, for whatever does not fit the form.
        """
        found = self.find(folder, dataset.partition("/")[2])
        with notes.collected() as said:
            if found.unread:
                read = ", ".join(path.name for path in found.interactions)
                notes.say(f"interactions are read from {read}, not from {', '.join(found.unread)}")
            chosen, again = read_interactions(
                found.interactions, self.interactions, literals=self.literals
            )
            ids = Coded.of(chosen.item).values
            wanted = set(ids)
            known: dict[str, Item] = {}
            if found.items:
                known = read_items(found.items, self.items, wanted, literals=self.literals)
            items = ItemTableBuilder()
            for raw in ids:
                items.add(raw, known.get(raw, Item(raw)))
            catalogue = assemble(dataset, self.version, chosen, items.done(), self.core)
        catalogue.extras["repeats_left_out"] = again
        catalogue.extras["items_without_metadata"] = sum(
            raw not in known for raw in catalogue.item_ids
        )
        return notes.kept(catalogue, said)

    def source(self, pattern: str = "", examples: Sequence[str] = ()) -> DatasetSource:
        """The source under which its datasets are known; see `DatasetSource` for the arguments."""
        return DatasetSource(
            self.name,
            self.version,
            self.read,
            self.hashes,
            pattern=pattern,
            examples=tuple(examples),
        )

    def _names(self, release: str) -> list[list[str]]:
        return [
            [name.format(release=release) for name in names] for names in self.interaction_files
        ]

    def _layout(self, release: str) -> str:
        forms = " or ".join(" with ".join(names) for names in self._names(release))
        items = " or ".join(name.format(release=release) for name in self.item_files)
        dataset = f"{self.name}/{release}".rstrip("/")
        return f"{dataset} is {forms}, and for titles {items}, as published or as .gz"


def _named(
    there: dict[str, list[pathlib.Path]], names: Sequence[str], release: str
) -> list[list[pathlib.Path]]:
    """The files of each name, packed or not."""
    plain = [name.format(release=release).lower() for name in names]
    return [there.get(name, []) + there.get(f"{name}.gz", []) for name in plain]


def _only(folder: pathlib.Path, files: Sequence[pathlib.Path]) -> pathlib.Path:
    """The one file; UserError where there are several, for either may be the older or a part."""
    if len(files) > 1:
        names = ", ".join(file.name for file in files)
        raise UserError(f"{folder}: {names} are there for one file; leave one of them")
    return files[0]
