"""The folder between this machine and Beam's workers, where they share no file system.

Catalogue and tokenizer are copied into it, parts out of it, through Beam's file systems: gs://,
s3://, hdfs:// or a path. Files get their names when they are whole.
"""

import contextlib
import dataclasses
import functools
import json
import pathlib
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems

from ilm_jax.data.examples.settings_json import settings_from
from ilm_jax.data.examples.task_keys import tokenizer_path
from ilm_jax.data.sources.prepare import catalogue_dir
from ilm_jax.data.streams import task_cache
from ilm_jax.tasks.caching import Caching, Part, Plan, opened

_ENDS = (".array_record", ".json")  # the last says that the part is whole


def files_of(plan: Plan, part: Part) -> list[pathlib.Path]:
    """The files of a part where this process writes them."""
    caching, jobs = opened(plan)
    folder = task_cache.staging(caching.path(jobs[part.job], part.split))
    return [folder / f"part-{part.number:05d}{end}" for end in _ENDS]


def _inside(plan: Plan, file: pathlib.Path) -> str:
    return file.relative_to(plan.cache_dir).as_posix()


def _inputs(caching: Caching, plan: Plan) -> list[pathlib.Path]:
    """What workers read: the catalogue's snapshot and the tokenizer."""
    settings = settings_from(json.loads(plan.settings))
    folder = catalogue_dir(plan.dataset, plan.cache_dir)
    found = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    fingerprint = caching.splits.catalogue.fingerprint
    tokenizer = tokenizer_path(plan.dataset, settings, fingerprint, plan.cache_dir)
    if settings.tokenizer:
        return found  # by a name that means the same to the workers
    return [*found, tokenizer]


def share_inputs(caching: Caching, plan: Plan, between: str) -> None:
    """Copies them into the folder between, which is named by what they are."""
    names = [_inside(plan, path) for path in _inputs(caching, plan)]
    for name in names:
        _upload(pathlib.Path(plan.cache_dir, name), FileSystems.join(between, name))
    listed = "".join(f"{name}\n" for name in names).encode()
    with _created(FileSystems.join(between, "inputs.txt")) as stream:
        stream.write(listed)


@functools.lru_cache(maxsize=1)
def local_plan(plan: Plan, between: str) -> Plan:
    """The plan on a worker that does not see CACHE_DIR: its inputs are fetched once."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="ilm-cache-"))
    with FileSystems.open(FileSystems.join(between, "inputs.txt")) as stream:
        names = stream.read().decode().splitlines()
    for name in names:
        _download(FileSystems.join(between, name), folder / name)
    return dataclasses.replace(plan, cache_dir=str(folder))


def fetch(caching: Caching, plan: Plan, parts: Sequence[Part], between: str) -> None:
    """Brings the parts that are whole in the folder between into CACHE_DIR."""
    jobs = plan.jobs()
    for part in parts:
        folder = task_cache.staging(caching.path(jobs[part.job], part.split))
        files = [folder / f"part-{part.number:05d}{end}" for end in _ENDS]
        there = [FileSystems.join(between, _inside(plan, file)) for file in files]
        if FileSystems.exists(there[-1]):
            for source, file in zip(there, files, strict=True):
                _download(source, file)


def upload_part(plan: Plan, part: Part, between: str) -> None:
    """Copies a part that this process wrote into the folder between."""
    for file in files_of(plan, part):
        _upload(file, FileSystems.join(between, _inside(plan, file)))


def _upload(file: pathlib.Path, target: str) -> None:
    with open(file, "rb") as source, _created(target) as stream:
        shutil.copyfileobj(source, stream)


@contextlib.contextmanager
def _created(target: str) -> Iterator[Any]:
    """A file in a folder between; it has its name when it is whole."""
    with contextlib.suppress(OSError):  # it is there already
        FileSystems.mkdirs(target.rpartition("/")[0])
    temporary = f"{target}.tmp-{time.time_ns()}-{threading.get_ident()}"
    with FileSystems.create(temporary, compression_type=CompressionTypes.UNCOMPRESSED) as stream:
        yield stream
    FileSystems.rename([temporary], [target])


def _download(source: str, file: pathlib.Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f"{file.name}.tmp-{time.time_ns()}")
    with (
        FileSystems.open(source, compression_type=CompressionTypes.UNCOMPRESSED) as stream,
        open(temporary, "wb") as target,
    ):
        shutil.copyfileobj(stream, target)
    temporary.replace(file)
