"""MovieLens' files: ratings, movies and tags, checked line by line."""

import array
import collections
import dataclasses
import pathlib
import re
from collections.abc import Iterator
from typing import NoReturn

import numpy as np
from jaxtyping import Float32, Int32, Int64

from ilm_jax.data import spill
from ilm_jax.data.formats import columnar, encodings, raw_lines
from ilm_jax.data.formats.coded import Coded, Coder
from ilm_jax.errors import UserError

MAX_TAGS = 8
NO_GENRE = "(no genres listed)"
# The columns of u.item after the link, in the order of the published u.genre.
GENRES_100K = (
    "unknown",
    "Action",
    "Adventure",
    "Animation",
    "Children's",
    "Comedy",
    "Crime",
    "Documentary",
    "Drama",
    "Fantasy",
    "Film-Noir",
    "Horror",
    "Musical",
    "Mystery",
    "Romance",
    "Sci-Fi",
    "Thriller",
    "War",
    "Western",
)
_RATING_COLUMNS = ("userId", "movieId", "rating", "timestamp")
_ID, _RATING = re.compile(r"\d{1,18}", re.ASCII), re.compile(r"\d(?:\.\d+)?", re.ASCII)


@dataclasses.dataclass(frozen=True)
class Release:
    """One published archive: where it is, what it holds, how its lines look, how many ratings."""

    url: str
    ratings: str
    movies: str
    tags: str | None
    separator: str
    size: int
    encoding: str = encodings.UTF_8

    @property
    def files(self) -> tuple[str, ...]:
        """The files that are read."""
        return tuple(name for name in (self.ratings, self.movies, self.tags) if name)

    @property
    def folder(self) -> str:
        """The folder inside the archive."""
        return self.url.rsplit("/", 1)[1].removesuffix(".zip")


@dataclasses.dataclass(frozen=True, eq=False)
class Ratings:
    """The ratings in file order; row i stands in line `first_line + i` of `path`.

    Attributes:
      path: the file.
      first_line: of the ratings.
      user_ids, movie_ids: those that there are, ascending.
      users, movies: place of each rating's among them.
      rating: from 0.5 to 5.
      timestamp: seconds.
    """

    path: pathlib.Path
    first_line: int
    user_ids: Int64[np.ndarray, " users"]
    movie_ids: Int64[np.ndarray, " movies"]
    users: Int32[np.ndarray, " ratings"]
    movies: Int32[np.ndarray, " ratings"]
    rating: Float32[np.ndarray, " ratings"]
    timestamp: Int64[np.ndarray, " ratings"]

    @classmethod
    def of(
        cls,
        path: pathlib.Path,
        first_line: int,
        users: Coded,
        movies: Coded,
        rating: Float32[np.ndarray, " ratings"],
        timestamp: Int64[np.ndarray, " ratings"],
    ) -> "Ratings":
        """From ids as the file writes them, in ASCII digits."""
        (user_ids, user), (movie_ids, movie) = map(_ascending, (users, movies))
        return cls(path, first_line, user_ids, movie_ids, user, movie, rating, timestamp)


def _ascending(ids: Coded) -> tuple[Int64[np.ndarray, " different"], Int32[np.ndarray, " rows"]]:
    numbers = np.array(list(map(int, ids.values)), np.int64)
    different, place = np.unique(numbers, return_inverse=True)  # "7" may be written "07" as well
    return different, spill.mapped(ids.codes, place.astype(np.int32))


def read_ratings(release: Release, path: pathlib.Path) -> Ratings:
    """The ratings file of a release: user, movie, rating, seconds.

    Raises:
      UserError: on anything but whole numbers and a rating from 0.5 to 5; on an empty file.
    """
    found = columnar.attempt(path, lambda: read_by_columns(release, path))
    return found or read_strictly(release, path)


def read_by_columns(release: Release, path: pathlib.Path) -> Ratings:
    """`read_ratings` of a plain file.

    Raises:
      NotPlainError, UserError, pyarrow.ArrowException: where `read_strictly` has to judge.
    """
    if len(release.separator) > 1:
        raise columnar.NotPlainError("cells are set apart by several characters")
    lines = columnar.lines_of(path)
    header = release.separator == ","
    if header:
        first = next(raw_lines.lines(path, release.encoding), (1, ""))[1]
        raw_lines.check_header(path, first.split(","), _RATING_COLUMNS)
    columns = columnar.Texts(), columnar.Texts()
    ratings, times = spill.Growing(np.float32), spill.Growing(np.int64)
    for batch in columnar.batches(path, release.separator, 4, range(4), header=header):
        for column, cells in zip(columns, batch.columns, strict=False):
            column.append(cells)
        seconds, given = (
            columnar.whole_numbers(batch.column(3)),
            batch.column(2).dictionary_encode(),
        )
        known = given.dictionary.to_pylist()
        if seconds is None or not all(map(_is_rating, known)):
            raise columnar.NotPlainError("a rating or a time")
        times.append(seconds)
        ratings.append(np.array(known, np.float32)[given.indices.to_numpy()])
    users, movies = (column.coded() for column in columns)
    ids = (*users.values, *movies.values)
    if not len(users) == len(movies) == lines - header or not all(map(_ID.fullmatch, ids)):
        raise columnar.NotPlainError("ids, or the number of rows")
    return Ratings.of(path, 1 + header, users, movies, ratings.done(), times.done())


def _is_rating(text: str) -> bool:
    return bool(_RATING.fullmatch(text)) and 0.5 <= float(text) <= 5.0


def read_strictly(release: Release, path: pathlib.Path) -> Ratings:
    """`read_ratings`, line by line."""
    users, movies, seconds, rating = Coder(), Coder(), array.array("q"), array.array("f")
    cells = [_ID.pattern, _ID.pattern, _RATING.pattern, _ID.pattern]
    pattern = re.compile(re.escape(release.separator).join(f"({cell})" for cell in cells), re.ASCII)
    numbered = raw_lines.lines(path, release.encoding)
    first_line = 1
    if release.separator == ",":
        raw_lines.check_header(path, next(numbered, (1, ""))[1].split(","), _RATING_COLUMNS)
        first_line = 2
    for line, text in numbered:
        found = pattern.fullmatch(text)
        if found is None or not 0.5 <= float(found[3]) <= 5.0:
            _explain_rating(path, line, text.split(release.separator))
        users.append(found[1])
        movies.append(found[2])
        rating.append(float(found[3]))
        seconds.append(int(found[4]))
    if not users:
        raise UserError(f"{path}: no ratings in it; take the file from its publisher again")
    values, times = np.array(rating, np.float32), np.array(seconds, np.int64)
    return Ratings.of(path, first_line, users.done(), movies.done(), values, times)


def _explain_rating(path: pathlib.Path, line: int, row: list[str]) -> NoReturn:
    raw_lines.check_width(path, line, row, len(_RATING_COLUMNS))
    for name, text in zip(_RATING_COLUMNS, row, strict=True):
        if name != "rating":
            raw_lines.whole_number(path, line, name, text)
    raw_lines.fail(path, line, f"rating {row[2]!r} is not a number from 0.5 to 5")


def read_movies(release: Release, path: pathlib.Path) -> dict[int, tuple[str, list[str]]]:
    """The movie file: movie id -> (title as published, genres), in file order.

    Raises:
      UserError: on a bad id, an id given twice, an empty title or a wrong number of columns.
    """
    movies: dict[int, tuple[str, list[str]]] = {}
    for line, raw_id, title, genres in _movie_rows(release, path):
        movie = raw_lines.whole_number(path, line, "movie id", raw_id)
        if movie in movies:
            raw_lines.fail(path, line, f"movie id {movie} was given before")
        title = " ".join(title.split())
        if not title:
            raw_lines.fail(path, line, f"movie {movie} has no title")
        movies[movie] = (title, [g for g in genres if g and g not in (NO_GENRE, "unknown")])
    return movies


def _movie_rows(release: Release, path: pathlib.Path) -> Iterator[tuple[int, str, str, list[str]]]:
    if release.separator == ",":
        for line, row in raw_lines.csv_rows(path, ("movieId", "title", "genres")):
            yield line, row[0], row[1], row[2].split("|")
    elif release.separator == "::":
        for line, row in raw_lines.split_rows(path, "::", 3, release.encoding):
            yield line, row[0], row[1], row[2].split("|")
    else:
        width = 5 + len(GENRES_100K)
        for line, row in raw_lines.split_rows(path, "|", width, release.encoding):
            for name, flag in zip(GENRES_100K, row[5:], strict=True):
                if flag not in ("0", "1"):
                    raw_lines.fail(path, line, f"genre {name} is {flag!r}, not 0 or 1")
            flags = zip(GENRES_100K, row[5:], strict=True)
            yield line, row[0], row[1], [name for name, flag in flags if flag == "1"]


def read_tags(path: pathlib.Path, movies: dict[int, tuple]) -> tuple[dict[int, list[str]], int]:
    """tags.csv: (movie id -> at most `MAX_TAGS` tags, number of empty tags left out).

    Tags are compared in lower case, with runs of white space as one space; the most frequent come
    first, equally frequent ones by the alphabet.

    Raises:
      UserError: on a bad number, a movie that the movie file lacks or a wrong number of columns.
    """
    counts: dict[int, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    empty = 0
    for line, row in raw_lines.csv_rows(path, ("userId", "movieId", "tag", "timestamp")):
        for name, text in (("userId", row[0]), ("timestamp", row[3])):
            raw_lines.whole_number(path, line, name, text)
        movie = raw_lines.whole_number(path, line, "movieId", row[1])
        if movie not in movies:
            raw_lines.fail(
                path,
                line,
                f"movie {movie} is not in the movie file",
                "take all files from one and the same release",
            )
        tag = " ".join(row[2].lower().split())
        empty += not tag
        if tag:
            counts[movie][tag] += 1
    ranked = {}
    for movie, found in counts.items():
        by_count = sorted(found.items(), key=lambda pair: (-pair[1], pair[0]))
        ranked[movie] = [tag for tag, _ in by_count[:MAX_TAGS]]
    return ranked, empty
