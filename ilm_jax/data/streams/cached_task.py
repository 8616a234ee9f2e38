"""Reads the task caches that task_cache.py writes: by index, and without TensorFlow."""

import contextlib
import json
import os
import pathlib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from ilm_jax.data.examples.example import Example
from ilm_jax.data.examples.task_keys import CACHE_FORMAT
from ilm_jax.data.streams.records import decode_record
from ilm_jax.errors import UserError
from ilm_jax.files import sha256_json

if TYPE_CHECKING:
    from array_record.python.array_record_data_source import ArrayRecordDataSource

# A split of at most so many bytes on disk is held in memory once it is read from: a single record
# costs ArrayRecord more than 100 microseconds, whatever its size.
IN_MEMORY_BYTES = 64 << 20


class CachedTask:
    """One split of a cached task by random access; example i is a pure function of i.

    Attributes:
      path: the folder.
      info: parsed info.json.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        """Opens the folder.

        Raises:
          UserError: if it holds no cache of our format.
        """
        self.path = pathlib.Path(path)
        file = self.path / "info.json"
        try:
            self.info = json.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise UserError(f"{file}: no such task cache; run ilm cache_tasks") from None
        except ValueError as error:
            raise UserError(f"{file}: not JSON ({error}); delete the folder") from error
        if not isinstance(self.info, dict) or self.info.get("format") != CACHE_FORMAT:
            raise UserError(f"{file}: not of format {CACHE_FORMAT}; delete the folder")
        told = {name: value for name, value in self.info.items() if name != "sha256"}
        if self.info.get("sha256", "") not in ("", sha256_json(told)):
            raise UserError(f"{file}: changed since it was written; delete the folder")
        self._features = [tuple(feature) for feature in self.info["features"]]
        self._files = sorted(str(part) for part in self.path.glob("part-*.array_record"))
        self._source: ArrayRecordDataSource | None = None
        self._held: list[bytes] | None = None
        size = sum(os.path.getsize(part) for part in self._files)
        self._hold = size <= IN_MEMORY_BYTES
        with self._readable():
            found = len(self._reader) if self._files else 0
        if found != len(self):
            raise UserError(
                f"{self.path}: {found} records where info.json says {len(self)}; delete the folder"
            )

    @property
    def _reader(self) -> "ArrayRecordDataSource":
        if self._source is None:
            from array_record.python.array_record_data_source import ArrayRecordDataSource

            self._source = ArrayRecordDataSource(self._files)
        return self._source

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_source": None, "_held": None}

    def __len__(self) -> int:
        return int(self.info["size"])

    def __repr__(self) -> str:
        return f"CachedTask({self.name!r}, {self.info.get('split')!r}, {len(self)} examples)"

    @property
    def name(self) -> str:
        """Registered name of the task."""
        return self.info.get("task", self.path.parent.name)

    @property
    def catalogue(self) -> str:
        """Name of the catalogue that local rows count in."""
        return self.info.get("dataset", "")

    def __getitem__(self, index: int) -> Example:
        """Example `index`: read-only int32 arrays, integers, strings, and "catalogue".

        Raises:
          IndexError: outside 0 to len - 1.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"{self!r} has no example {index}")
        if self._hold:
            return self._decode(self._records[index])
        with self._readable():
            record = self._reader[int(index)]
        return self._decode(record)

    def __getitems__(self, indices: Iterable[int]) -> list[Example]:
        """Several examples at once, in the order asked for."""
        wanted = [int(index) for index in indices]
        if self._hold:
            return [self._decode(self._records[index]) for index in wanted]
        with self._readable():
            records = self._reader.__getitems__(wanted)
        return [self._decode(record) for record in records]

    @property
    def _records(self) -> list[bytes]:
        if self._held is None:
            held: list[bytes] = []
            for start in range(0, len(self), 4096):
                stop = min(start + 4096, len(self))
                with self._readable():
                    held += self._reader.__getitems__(list(range(start, stop)))
            self._held = held
        return self._held

    def _decode(self, record: bytes) -> Example:
        with self._readable():
            example = decode_record(self._features, record)
        example["catalogue"] = self.catalogue
        return example

    @contextlib.contextmanager
    def _readable(self) -> Iterator[None]:
        """ArrayRecord has checksums, and says of a damaged file what its libraries say."""
        try:
            yield
        except (ValueError, RuntimeError, OSError, IndexError) as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(
                f"{self.path}: a damaged task cache ({reason}); delete the folder"
            ) from error

    def __iter__(self) -> Iterator[Example]:
        for start in range(0, len(self), 1024):
            yield from self.__getitems__(range(start, min(start + 1024, len(self))))
