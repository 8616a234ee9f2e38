"""From a dataset's name to its catalogue: raw files are read once, and kept as a snapshot.

`load_catalogue` maps the snapshot. If it is missing, or was made by another version of the reader
or from other raw files, the dataset's source reads its folder first; TensorFlow takes no part.
"""

import os
import pathlib
import sys
from collections.abc import Mapping

from ilm_jax.data import spill
from ilm_jax.data.catalogue.catalogue import Catalogue, stored_sources
from ilm_jax.data.formats import notes
from ilm_jax.data.sources import stale
from ilm_jax.data.sources.registry import check_name, source_of
from ilm_jax.errors import UserError
from ilm_jax.files import default_cache_dir
from ilm_jax.locks import taking_turns

StrPath = str | os.PathLike


def catalogue_dir(dataset: str, cache_dir: StrPath | None = None) -> pathlib.Path:
    """The folder of the dataset's snapshot.

    Raises:
      UserError: if there is no such dataset.
    """
    check_name(dataset)
    return _root(cache_dir) / "catalogues" / dataset.replace("/", "_")


def load_catalogue(
    dataset: str, *, data_dir: StrPath | None = None, cache_dir: StrPath | None = None
) -> Catalogue:
    """The catalogue of `dataset`, prepared first if needed.

    Args:
      dataset: such as "toy", "movielens/25m", "openp5/beauty" or "custom"; see `registry`.
      data_dir: the folder that holds the raw files. None: take the snapshot that is there, else
        download.
      cache_dir: where snapshots lie; None: `default_cache_dir()`.

    Raises:
      UserError: if there is no such dataset, its raw files are absent or malformed, or the
        snapshot is damaged.
    """
    path = catalogue_dir(dataset, cache_dir)
    wanted = _sources(dataset, data_dir)
    reason = _differences(wanted, path, data_dir)
    if reason is None:
        try:
            found = Catalogue.load(path)
        except UserError:
            # Where another process puts its snapshot in the place of this one, files are of both.
            if (reason := _differences(wanted, path, data_dir)) is None:
                raise
        else:
            if (reason := _differences(wanted, path, data_dir)) is None:
                return found
    why = f" again ({reason})" if reason else ""
    print(f"preparing {dataset}{why} into {_root(cache_dir)} …", file=sys.stderr, flush=True)
    return _prepare(dataset, data_dir, path, wanted)


def is_fresh(dataset: str, data_dir: StrPath | None, path: StrPath) -> bool:
    """Whether the snapshot at `path` is there and was made from what would be read now.

    Raises:
      UserError: if `data_dir` lacks a raw file, or is given for a dataset that has none.
    """
    return why_stale(dataset, data_dir, path) is None


def why_stale(dataset: str, data_dir: StrPath | None, path: StrPath) -> str | None:
    """Differences to what would be read now; "" without a snapshot, None if it is fresh.

    Raises:
      UserError: as `is_fresh`.
    """
    return _differences(_sources(dataset, data_dir), path, data_dir)


def _differences(wanted: Mapping[str, str], path: StrPath, data_dir: StrPath | None) -> str | None:
    try:
        found = stored_sources(path)
    except UserError:  # absent, damaged, or in an older format
        return "its snapshot is of another format" if pathlib.Path(path).is_dir() else ""
    return stale.changed_sources(found, wanted, whole=data_dir is not None) or None


def prepare(dataset: str, data_dir: StrPath | None, cache_dir: StrPath | None) -> None:
    """Reads the raw files and writes the snapshot, unless there is a fresh one.

    Raises:
      UserError: as `load_catalogue`.
    """
    _prepare(dataset, data_dir, catalogue_dir(dataset, cache_dir), _sources(dataset, data_dir))


def _prepare(
    dataset: str, data_dir: StrPath | None, path: pathlib.Path, wanted: Mapping[str, str]
) -> Catalogue:
    """Writes the snapshot unless it is fresh, and maps it before another process may replace it."""
    source, name = source_of(dataset), check_name(dataset)
    path.parent.mkdir(parents=True, exist_ok=True)
    with taking_turns(path.with_name(f"{path.name}.lock")):
        if _differences(wanted, path, data_dir) is None:  # another process was faster
            return Catalogue.load(path)
        folder = "" if data_dir is None else str(data_dir)
        if data_dir is None and source.fetch is not None:
            folder = str(source.fetch(name[1], path.parent.parent / "downloads"))
            wanted = _sources(dataset, folder)
        elif data_dir is None and not source.generated:
            raise UserError(
                f"{dataset} is read from a folder with its raw files: give it as --data_dir"
            )
        assert source.read is not None
        with spill.into(path.parent):
            catalogue = source.read(folder, dataset)
            catalogue.save(path, wanted)
        for note in catalogue.extras.get("notes", []):
            notes.say(note)
        return Catalogue.load(path)


def _root(cache_dir: StrPath | None) -> pathlib.Path:
    return default_cache_dir() if cache_dir is None else pathlib.Path(cache_dir).expanduser()


def _sources(dataset: str, data_dir: StrPath | None) -> dict[str, str]:
    source = source_of(dataset)
    return {"builder": source.version} | source.hashes(dataset, data_dir)
