"""A dataset source: what its datasets are called, what they are read from, and who reads them."""

import dataclasses
import os
import pathlib
import re
from typing import Protocol

from ilm_jax.data.catalogue.catalogue import Catalogue
from ilm_jax.errors import UserError
from ilm_jax.files import sha256_file


class Read(Protocol):
    """Reads a folder as a catalogue."""

    def __call__(self, folder: str, dataset: str, /) -> Catalogue:
        """The catalogue; raises UserError for what is absent or malformed, with file and line."""


class Sources(Protocol):
    """What a dataset would be read from."""

    def __call__(self, folder: str, release: str, /) -> dict[str, str]:
        """SHA-256 of every raw file by name; raises UserError if one is absent."""


class Fetch(Protocol):
    """Gets a release from its publisher."""

    def __call__(self, release: str, folder: pathlib.Path, /) -> pathlib.Path:
        """The folder with its raw files, in `folder`; UserError if they cannot be had."""


def folder_hashes(folder: str, release: str = "") -> dict[str, str]:
    """SHA-256 of every file that lies in the folder, hidden ones aside.

    Raises:
      UserError: if there is no such folder.
    """
    del release
    path = pathlib.Path(folder).expanduser()
    if not path.is_dir():
        raise UserError(f"data_dir={folder}: no such folder")
    files = (file for file in path.iterdir() if file.is_file() and file.name[0] != ".")
    return {file.name: sha256_file(file) for file in sorted(files)}


@dataclasses.dataclass(frozen=True)
class DatasetSource:
    """Datasets of one kind; their names are "<name>" or "<name>/<release>".

    Attributes:
      name: of the source: small letters, digits and "_".
      version: of what it reads, such as "1.0.0": raised whenever the catalogue of unchanged files
        changes.
      read: makes the catalogue of a folder.
      sources: of a folder.
      releases: names behind "<name>/"; empty where a pattern says.
      pattern: what they look like; "" is the source's bare name. Its group, if it has one, is the
        release, "0" without one.
      generated: read from nothing: `read` gets the folder "".
      examples: what messages show.
      short: what stands before the release where prompts call the dataset by one word.
      fetch: gets the raw files of a release where no folder is given; None: there is none to ask.
      custom_format: whether the folder has the files of "custom", which `ilm inspect` explains.
      first_look: tasks of which `ilm inspect` shows an example where a folder is given.

    Raises:
      UserError: for a name or version of another form.
    """

    name: str
    version: str
    read: Read | None = None
    sources: Sources = folder_hashes
    releases: tuple[str, ...] = ()
    pattern: str = ""
    generated: bool = False
    examples: tuple[str, ...] = ()
    short: str = ""
    fetch: Fetch | None = None
    custom_format: bool = False
    first_look: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9_]*", self.name):
            raise UserError(f"dataset {self.name!r}: give a name of a-z, 0-9 and _")
        if not re.fullmatch(r"\d+\.\d+\.\d+", self.version):
            raise UserError(f"dataset {self.name}: version {self.version!r}: give one like 1.0.0")

    def release(self, dataset: str) -> str | None:
        """What a dataset's name says behind the source's; None if it is none of these datasets."""
        source, _, rest = dataset.partition("/")
        if source != self.name:
            return None
        if rest in self.releases:
            return rest
        bare = not rest and "/" in dataset  # "custom/" is no name
        match = None if self.releases or bare else re.fullmatch(self.pattern, rest)
        if match is None:
            return None
        return (match[1] or "0") if match.re.groups else rest

    def hashes(self, dataset: str, data_dir: str | os.PathLike | None) -> dict[str, str]:
        """What the dataset would be read from; {} if no folder is given.

        Raises:
          UserError: if a raw file is absent, or a folder is given that nothing is read from.
        """
        if data_dir is None:
            return {}
        if self.generated:
            raise UserError(f"data_dir={data_dir}: {dataset} is generated; leave data_dir out")
        return self.sources(str(data_dir), self.release(dataset) or "")

    def names(self) -> tuple[str, ...]:
        """Its datasets, or an example of the pattern."""
        if self.examples:
            return self.examples
        return tuple(f"{self.name}/{release}" for release in self.releases) or (self.name,)
