"""Raw files of any size, generated: MovieLens' three, or a folder of one's own with text ids."""

import pathlib
from collections.abc import Iterator

import numpy as np
import pyarrow
import pyarrow.compute
import pyarrow.csv

from tests.benchmarks.bench_cf_memory import generated

_ROWS = 1 << 21
_GENRES = ("Action", "Comedy", "Drama", "Documentary", "Horror", "Romance", "War")


def movielens(folder: pathlib.Path, users: int, items: int, pairs: int) -> None:
    """ratings.csv of distinct pairs by user and movie, as published; movies.csv; a million tags."""
    folder.mkdir(parents=True)
    seen, draw = generated(users, items, pairs), np.random.default_rng(1)

    def parts() -> Iterator[pyarrow.RecordBatch]:
        """The ratings, some users at a time."""
        for first in range(0, pairs, _ROWS):
            part = slice(first, first + _ROWS)
            count = len(seen.items[part])
            who = np.searchsorted(seen.offsets, np.arange(first, first + count), side="right")
            yield _batch(
                userId=who,
                movieId=2 * seen.items[part] + 1,
                rating=draw.integers(1, 11, count).astype(np.float32) / 2,
                timestamp=draw.integers(8 * 10**8, 16 * 10**8, count),
            )

    _write(folder / "ratings.csv", parts())
    with open(folder / "movies.csv", "w", encoding="utf-8") as stream:
        stream.write("movieId,title,genres\n")
        for item in range(items):
            genres = "|".join(draw.choice(_GENRES, 1 + item % 3, replace=False))
            stream.write(f'{2 * item + 1},"Story {item}, The ({1930 + item % 90})",{genres}\n')
    with open(folder / "tags.csv", "w", encoding="utf-8") as stream:
        stream.write("userId,movieId,tag,timestamp\n")
        for item in draw.integers(0, items, pairs // 25):
            stream.write(f"7,{2 * item + 1},tag {item % 997 + draw.integers(5)},1100000000\n")


def custom(folder: pathlib.Path, users: int, items: int, pairs: int) -> None:
    """interactions.csv in no order, items.csv with titles; ids are texts, pairs may repeat."""
    folder.mkdir(parents=True)
    draw = np.random.default_rng(2)

    def parts() -> Iterator[pyarrow.RecordBatch]:
        """The interactions; a third of the items have a half of them."""
        for first in range(0, pairs, _ROWS):
            count = min(_ROWS, pairs - first)
            yield _batch(
                user_id=_ids("A", draw.integers(0, users, count)),
                parent_asin=_ids("B", (items * draw.random(count) ** 1.6).astype(np.int64)),
                rating=draw.integers(1, 6, count).astype(np.float32),
                timestamp=draw.integers(8 * 10**8, 17 * 10**8, count),
            )

    _write(folder / "interactions.csv", parts())

    def titles() -> Iterator[pyarrow.RecordBatch]:
        """Every item."""
        for first in range(0, items, _ROWS):
            rows = np.arange(first, min(first + _ROWS, items))
            yield _batch(parent_asin=_ids("B", rows), title=_ids("A thing called ", rows))

    _write(folder / "items.csv", titles())
    names = "".join(f'Columns.{field} = "parent_asin"\n' for field in ("item", "id"))
    (folder / "columns.gin").write_text(names)


def _ids(lead: str, numbers: np.ndarray) -> pyarrow.Array:
    mixed = pyarrow.array((numbers * 2_654_435_761 + 12_345) % 10**10)
    digits = pyarrow.compute.utf8_lpad(mixed.cast(pyarrow.string()), 10, "0")
    return pyarrow.compute.binary_join_element_wise(lead, digits, "")


def _batch(**columns: object) -> pyarrow.RecordBatch:
    arrays = [pyarrow.array(column) for column in columns.values()]
    return pyarrow.record_batch(arrays, names=list(columns))


def _write(path: pathlib.Path, parts: Iterator[pyarrow.RecordBatch]) -> None:
    options = pyarrow.csv.WriteOptions(include_header=False, quoting_style="none")
    writer = None
    with open(path, "wb") as stream:
        for part in parts:
            if writer is None:
                stream.write((",".join(part.schema.names) + "\n").encode())
                writer = pyarrow.csv.CSVWriter(stream, part.schema, write_options=options)
            writer.write_batch(part)
        if writer is not None:
            writer.close()
