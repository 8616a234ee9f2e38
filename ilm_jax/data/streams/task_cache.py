"""Task caches on disk: one folder per task and split, written part by part (cached_task.py reads).

    <cache_dir>/tasks/<task>-<key>/<split>/info.json
    <cache_dir>/tasks/<task>-<key>/<split>/part-00000.array_record …

The key is a hash of everything the bytes depend on, so a cache is never stale: other settings mean
another folder. Part files hold a fixed number of records (records.py) each, one per
ArrayRecord group, so any worker can write any part and the bytes are the same. Parts are collected
in `<split>.parts` until all are there: what was interrupted goes on with the missing ones.
"""

import contextlib
import dataclasses
import itertools
import json
import os
import pathlib
import shutil
import sys
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ilm_jax.data.examples.example import Example
from ilm_jax.data.examples.task_keys import CACHE_FORMAT
from ilm_jax.data.streams.records import Features, encode_record
from ilm_jax.files import atomic_write, sha256_json, temporary_name

if TYPE_CHECKING:
    from array_record.python.array_record_module import ArrayRecordWriter

# Parts hold at least so many records, and more where there would be too many files.
RECORDS_PER_PART = 4096
MOST_PARTS = 256
_INFO = "info.json"
_WRITER_OPTIONS = "group_size:1"


def part_size(total: int) -> int:
    """Records of each part but the last of a split of `total` examples."""
    return max(RECORDS_PER_PART, -(-total // MOST_PARTS))


def parts(total: int) -> list[range]:
    """The numbers of the examples of every part; none for an empty split."""
    size = part_size(total)
    return [range(start, min(start + size, total)) for start in range(0, total, size)]


def staging(path: str | os.PathLike) -> pathlib.Path:
    """Folder in which the parts of a split are collected."""
    path = pathlib.Path(path)
    return path.with_name(f"{path.name}.parts")


def has_part(path: str | os.PathLike, number: int) -> bool:
    """Whether a part of the split at `path` has been written."""
    return (staging(path) / f"part-{number:05d}.json").exists()


def write_part(
    path: str | os.PathLike, number: int, features: Features, examples: Iterable[Example]
) -> None:
    """Writes one part of the split at `path`; whoever writes it, the bytes are the same.

    The file of counts comes last, and only whole files get their names. Where another process
    finishes the split meanwhile, this part is in it, and nothing is left of the second one.
    """
    try:
        _write_part(path, number, features, examples)
    except (FileNotFoundError, RuntimeError):  # ArrayRecord's, for a folder that is gone
        if not _is_finished(path):
            raise
    if (pathlib.Path(path) / _INFO).exists():
        shutil.rmtree(staging(path), ignore_errors=True)


def _is_finished(path: str | os.PathLike) -> bool:
    """Whether the split is there, or whole and about to get its name."""
    # In this order: it moves from the one to the other.
    return any((pathlib.Path(at) / _INFO).exists() for at in (staging(path), path))


def _write_part(
    path: str | os.PathLike, number: int, features: Features, examples: Iterable[Example]
) -> None:
    folder = staging(path)
    folder.mkdir(parents=True, exist_ok=True)
    final = folder / f"part-{number:05d}"
    lengths = {name: _Lengths() for name, kind in features if kind == "ints"}
    temporary = temporary_name(final)
    count = 0
    try:
        with contextlib.closing(_open_writer(temporary)) as writer:
            for example in examples:
                writer.write(encode_record(features, example))
                for name, statistic in lengths.items():
                    statistic.add(len(example[name]))
                count += 1
        os.replace(temporary, f"{final}.array_record")
    finally:
        temporary.unlink(missing_ok=True)
    counts = {name: dataclasses.asdict(statistic) for name, statistic in lengths.items()}
    with atomic_write(f"{final}.json") as stream:
        json.dump({"size": count, "lengths": counts}, stream)


def finish(
    path: str | os.PathLike, features: Features, info: Mapping[str, Any], total: int
) -> dict[str, Any]:
    """Makes the split of its parts and returns its info.

    Args:
      path: the split's folder.
      features: (name, kind) in the order of the record.
      info: JSON-able fields of info.json beside those counted here (format, features, size,
        lengths).
      total: number of examples.

    Raises:
      ValueError: if a part is missing or of another size.
    """
    path, folder = pathlib.Path(path), staging(path)
    lengths = {name: _Lengths() for name, kind in features if kind == "ints"}
    for number, rows in enumerate(parts(total)):
        file = folder / f"part-{number:05d}.json"
        found: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {"size": "no"}
        if found["size"] != len(rows):
            raise ValueError(f"{file}: {found['size']} examples instead of {len(rows)}")
        for name, statistic in lengths.items():
            statistic.join(_Lengths(**found["lengths"][name]))
    folder.mkdir(parents=True, exist_ok=True)
    full = {
        **info,
        "format": CACHE_FORMAT,
        "features": [list(feature) for feature in features],
        "size": total,
        "lengths": {name: statistic.summary() for name, statistic in lengths.items()},
    }
    full["sha256"] = sha256_json(full)
    text = json.dumps(full, indent=1, sort_keys=True, ensure_ascii=False)
    # First, so that a process whose file is taken away below sees that the split is whole.
    with atomic_write(folder / _INFO) as stream:
        stream.write(text + "\n")
    _clear(folder)
    shutil.rmtree(path, ignore_errors=True)
    os.replace(folder, path)
    _clear(path)  # of what another process began in between
    return full


def _clear(folder: pathlib.Path) -> None:
    """Takes away counts of parts, and files of those who write parts that are there."""
    for extra in [*folder.glob("part-*.json"), *folder.glob("*.tmp-*")]:
        extra.unlink(missing_ok=True)


def write(
    path: str | os.PathLike,
    features: Features,
    examples: Iterable[Example],
    info: Mapping[str, Any],
    total: int | None = None,
) -> dict[str, Any]:
    """Writes one split in one go, or nothing, and returns its info; see `finish`.

    Args:
      path: the split's folder.
      features: (name, kind) in the order of the record.
      examples: in order.
      info: as `finish`.
      total: expected number of examples, for the progress line and as a check; None: all of them,
        in one part.

    Raises:
      ValueError: if the number of examples is not `total`.
    """
    path = pathlib.Path(path)
    shutil.rmtree(staging(path), ignore_errors=True)
    found = list(examples) if total is None else examples
    expected = len(found) if total is None and isinstance(found, list) else int(total or 0)
    shown = Progress(path, expected)
    rest = iter(found)
    try:
        for number, rows in enumerate(parts(expected)):
            _write_part(path, number, features, itertools.islice(rest, len(rows)))
            shown.show(rows.stop)
        if next(rest, None) is not None:
            raise ValueError(f"{path}: more than {expected} examples")
        full = finish(path, features, info, expected)
    finally:
        shutil.rmtree(staging(path), ignore_errors=True)
    shown.done(expected)
    return full


def _open_writer(path: pathlib.Path) -> "ArrayRecordWriter":
    from array_record.python.array_record_module import ArrayRecordWriter

    return ArrayRecordWriter(str(path), _WRITER_OPTIONS)


@dataclasses.dataclass
class _Lengths:
    count: int = 0
    total: int = 0
    longest: int = 0

    def add(self, length: int) -> None:
        """Counts one example of so many tokens."""
        self.count += 1
        self.total += length
        self.longest = max(self.longest, length)

    def join(self, other: "_Lengths") -> None:
        """Adds another worker's examples."""
        self.count += other.count
        self.total += other.total
        self.longest = max(self.longest, other.longest)

    def summary(self) -> dict[str, float]:
        """Mean and maximum, in tokens, as the cache's JSON holds them."""
        return {"mean": round(self.total / max(self.count, 1), 3), "max": self.longest}


class Progress:
    """A bar on stderr, at most twice a second and only on a terminal; a last line always."""

    def __init__(self, path: pathlib.Path, total: int, what: str = "cache") -> None:
        self._what, self._total = f"{what}: {path.parent.name}/{path.name}", total
        self._start = self._last = time.monotonic()

    def show(self, count: int) -> None:
        """Says how far it is."""
        if not sys.stderr.isatty():
            return
        now = time.monotonic()
        if now - self._last >= 0.5:
            self._last = now
            full = 20 * count // max(self._total, 1)
            bar = f"[{'#' * full}{'.' * (20 - full)}] {count} of {self._total} examples"
            print(f"\r{self._what}: {bar}", end="", file=sys.stderr, flush=True)

    def done(self, count: int) -> None:
        """Says how long these examples took."""
        seconds = time.monotonic() - self._start
        rate = count / max(seconds, 1e-9)
        start = "\r" if sys.stderr.isatty() else ""
        line = f"{start}{self._what}: {count} examples in {seconds:.1f} s ({rate:.0f}/s)"
        print(line, file=sys.stderr, flush=True)
