"""From a dataset's name to its catalogue, prepared on demand in a process of its own.

`load_catalogue` reads a snapshot and never imports TensorFlow. If the snapshot is missing, or was
made by another version of the builder or from other raw files, it runs
`python -m ilm_jax.data.sources.prepare`: TFDS builder -> prepared dataset -> read back -> snapshot.
"""

import argparse
import importlib
import os
import pathlib
import shutil
import sys
from collections.abc import Sequence

from ilm_jax import subprocesses, user_modules
from ilm_jax.data.catalogue.catalogue import Catalogue, stored_sources
from ilm_jax.data.formats import notes
from ilm_jax.data.sources import stale
from ilm_jax.data.sources.registry import check_name, source_of
from ilm_jax.errors import UserError
from ilm_jax.files import trouble
from ilm_jax.locks import taking_turns

StrPath = str | os.PathLike


def default_cache_dir() -> pathlib.Path:
    """Environment variable ILM_CACHE, or ~/.cache/ilm_jax."""
    return pathlib.Path(os.environ.get("ILM_CACHE") or "~/.cache/ilm_jax").expanduser()


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
      cache_dir: where snapshots and prepared datasets lie; None: `default_cache_dir()`.

    Raises:
      UserError: if there is no such dataset, its raw files are absent or malformed, or the
        snapshot is damaged.
    """
    path = catalogue_dir(dataset, cache_dir)
    reason = why_stale(dataset, data_dir, path)
    if reason is not None:
        why = f" again ({reason})" if reason else ""
        print(f"preparing {dataset}{why} into {_root(cache_dir)} …", file=sys.stderr, flush=True)
        _prepare_in_subprocess(dataset, data_dir, _root(cache_dir))
    return Catalogue.load(path)


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
    wanted = _sources(dataset, data_dir)
    try:
        found = stored_sources(path)
    except UserError:  # absent, or in an older format
        return ""
    return stale.changed_sources(found, wanted) or None


def prepare(dataset: str, data_dir: StrPath | None, cache_dir: StrPath | None) -> None:
    """Prepares the TFDS dataset and writes the snapshot. Imports TensorFlow.

    Raises:
      UserError: as `load_catalogue`.
    """
    path = catalogue_dir(dataset, cache_dir)
    with taking_turns(path.with_name(f"{path.name}.lock")):
        if is_fresh(dataset, data_dir, path):  # another process was faster
            return
        builder = _builder(dataset, _root(cache_dir) / "tfds")
        # What lies there was made from other raw files.
        shutil.rmtree(builder.data_path, ignore_errors=True)
        _download_and_prepare(builder, data_dir)
        sources = {"builder": str(builder.version)} | builder.sources
        catalogue = builder.read()
        catalogue.save(path, sources)
        for note in catalogue.extras.get("notes", []):
            notes.say(note)


def _root(cache_dir: StrPath | None) -> pathlib.Path:
    return default_cache_dir() if cache_dir is None else pathlib.Path(cache_dir).expanduser()


def _sources(dataset: str, data_dir: StrPath | None) -> dict[str, str]:
    source = source_of(dataset)
    return {"builder": source.version} | source.hashes(dataset, data_dir)


def _builder(dataset: str, folder: pathlib.Path):  # noqa: ANN202 - its type needs TensorFlow
    name, release = check_name(dataset)
    module, _, attribute = source_of(dataset).builder.partition(":")
    kind = getattr(importlib.import_module(module), attribute)
    if not isinstance(kind, type):
        kind = kind(name)
    return kind(data_dir=str(folder), config=kind.config(release))


def _download_and_prepare(builder, data_dir: StrPath | None) -> None:
    import tensorflow_datasets as tfds

    tfds.disable_progress_bar()
    manual = None if data_dir is None else str(data_dir)
    config = tfds.download.DownloadConfig(manual_dir=manual, try_download_gcs=False)
    try:
        builder.download_and_prepare(download_config=config)
    except Exception as error:
        # TFDS wraps what a builder raises; what was meant for a person must stay one line.
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, UserError):
            cause = cause.__cause__ or cause.__context__
        if cause is None:
            raise
        raise UserError(str(cause.args[0])) from error


def _prepare_in_subprocess(dataset: str, data_dir: StrPath | None, root: pathlib.Path) -> None:
    words = ["ilm_jax.data.sources.prepare", f"--dataset={dataset}", f"--cache_dir={root}"]
    words += [] if data_dir is None else [f"--data_dir={data_dir}"]
    subprocesses.run(words, shown=[notes.PREFIX])


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs `prepare` from the command line; 0, or 2 after one line on stderr."""
    parser = argparse.ArgumentParser(
        prog="python -m ilm_jax.data.sources.prepare", description=__doc__
    )
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--data_dir", help="folder of the raw files; left out: download")
    parser.add_argument("--cache_dir", help="default: $ILM_CACHE or ~/.cache/ilm_jax")
    parser.add_argument(
        f"--{user_modules.FLAG}", help="module that registers datasets", action="append", default=[]
    )
    flags = parser.parse_args(arguments)
    try:
        user_modules.load(getattr(flags, user_modules.FLAG))
        prepare(flags.dataset, flags.data_dir, flags.cache_dir)
    except Exception as error:
        told = str(error) if isinstance(error, UserError) else trouble(error)
        if told is None:
            raise
        print(f"{subprocesses.ERROR}{told}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
