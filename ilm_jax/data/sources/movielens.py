"""MovieLens as GroupLens publishes it -> Catalogue. Strict, and free of TensorFlow.

Formats: CSV (`latest_small`, `25m`: ratings.csv, movies.csv, tags.csv), "::" (`1m`: ratings.dat,
movies.dat) and tabs and bars (`100k`: u.data, u.item). Terms of use and citation (Harper and
Konstan 2015) are in each archive's README.
"""

import array
import collections
import dataclasses
import os
import pathlib
import re
from collections.abc import Iterator
from typing import NoReturn

import numpy as np
from jaxtyping import Float32, Int64

from ilm_jax.data.catalogue.catalogue import Catalogue, count_ties
from ilm_jax.data.formats import encodings, notes, published, raw_lines, text_checks
from ilm_jax.data.sources import movie_text
from ilm_jax.data.sources.dataset_source import DatasetSource
from ilm_jax.errors import UserError
from ilm_jax.files import sha256_file

VERSION = "1.0.0"
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


_SITE = "https://files.grouplens.org/datasets/movielens/"
_CSV = ("ratings.csv", "movies.csv", "tags.csv", ",")
RELEASES = {
    "latest_small": Release(_SITE + "ml-latest-small.zip", *_CSV, 100_836),
    "25m": Release(_SITE + "ml-25m.zip", *_CSV, 25_000_095),
    "1m": Release(
        _SITE + "ml-1m.zip", "ratings.dat", "movies.dat", None, "::", 1_000_209, encodings.LATIN_1
    ),
    "100k": Release(
        _SITE + "ml-100k.zip", "u.data", "u.item", None, "\t", 100_000, encodings.LATIN_1
    ),
}
# Releases by their number of ratings, those too that have no name here.
_SIZES = {kind.size: f"movielens/{name}" for name, kind in RELEASES.items()} | {
    10_000_054: "MovieLens 10M",
    20_000_263: "MovieLens 20M",
    32_000_204: "MovieLens 32M",
}


@dataclasses.dataclass(frozen=True, eq=False)
class Ratings:
    """The ratings in file order; row i stands in line `first_line + i` of `path`."""

    path: pathlib.Path
    first_line: int
    user: Int64[np.ndarray, " ratings"]
    movie: Int64[np.ndarray, " ratings"]
    rating: Float32[np.ndarray, " ratings"]
    timestamp: Int64[np.ndarray, " ratings"]


def source_hashes(release: str, folder: str | os.PathLike) -> dict[str, str]:
    """SHA-256 of every raw file of `release` in `folder`, and the movie file's encoding if unusual.

    Raises:
      UserError: if a file is absent.
    """
    hashes = {}
    for name in RELEASES[release].files:
        path = pathlib.Path(folder) / name
        if not path.is_file():
            raise UserError(
                f"{path}: no such file; --data_dir is the folder that holds "
                f"{', '.join(RELEASES[release].files)} of movielens/{release}"
                + published.explain(pathlib.Path(folder), RELEASES[release].files)
            )
        hashes[name] = sha256_file(path)
    movies = pathlib.Path(folder) / RELEASES[release].movies
    with notes.collected() as said:
        codec = encodings.decide(movies, RELEASES[release].encoding)
    return hashes | ({f"encoding of {movies.name}": codec} if said else {})


def read(release: str, folder: str | os.PathLike) -> Catalogue:
    """Reads one release from the folder that holds its raw files.

    Items are the rated movies, in the order of the movie file; users rise by id; interactions are
    in time order, ties in file order. `extras`: years [per item, None if unknown], tags [per item,
    most frequent first], unrated_movies and empty_tags (left out, counted).

    Args:
      release: a key of `RELEASES`.
      folder: where the files lie.

    Raises:
      UserError: with file and line, for whatever does not fit the published format.
    """
    with notes.collected() as said:
        found = _read(release, pathlib.Path(folder))
    return notes.kept(found, said)


def _read(release: str, folder: pathlib.Path) -> Catalogue:
    kind = RELEASES[release]
    ratings = read_ratings(kind, folder / kind.ratings)
    _check_size(release, ratings)
    movies = read_movies(kind, folder / kind.movies)
    tags, empty_tags = read_tags(folder / kind.tags, movies) if kind.tags else ({}, 0)
    rated = set(np.unique(ratings.movie).tolist())
    ids = [movie for movie in movies if movie in rated]
    offsets, users, items, order = _sequences(ratings, ids)
    described = [movie_text.describe(*movies[movie], tags.get(movie, [])) for movie in ids]
    text_checks.check([movies[movie][0] for movie in ids], [text for text, _ in described])
    timestamps = ratings.timestamp[order]
    return Catalogue(
        name=f"movielens/{release}",
        version=VERSION,
        item_ids=[str(movie) for movie in ids],
        titles=[movies[movie][0] for movie in ids],
        texts=[text for text, _ in described],
        content=[spans for _, spans in described],
        categories=[movies[movie][1] for movie in ids],
        user_ids=[str(user) for user in users],
        offsets=offsets,
        items=items,
        ratings=ratings.rating[order],
        timestamps=timestamps,
        ties=count_ties(offsets, timestamps),
        extras={
            "years": [movie_text.name_and_year(movies[movie][0])[1] for movie in ids],
            "tags": [tags.get(movie, []) for movie in ids],
            "unrated_movies": len(movies) - len(ids),
            "empty_tags": empty_tags,
        },
    )


def _check_size(release: str, ratings: Ratings) -> None:
    """Several releases have the same form: their sizes tell them apart."""
    found, wanted = len(ratings.user), RELEASES[release].size
    if found != wanted and found in _SIZES:
        raise UserError(
            f"{ratings.path}: {found:,} ratings are those of {_SIZES[found]}, not of "
            f"movielens/{release}; give the folder of movielens/{release}, or the other name"
        )
    if found != wanted:
        notes.say(
            f"{ratings.path.name}: {found:,} ratings; movielens/{release} was published with "
            f"{wanted:,}"
        )


def _sequences(
    ratings: Ratings, ids: list[int]
) -> tuple[Int64[np.ndarray, " users+1"], list[int], np.ndarray, Int64[np.ndarray, " ratings"]]:
    """(offsets, user ids, item rows, order): all checks that need the whole file are here."""
    rows = np.argsort(np.array(ids, np.int64), kind="stable")
    known = np.append(np.array(ids, np.int64)[rows], -1)  # no movie is -1
    place = np.searchsorted(known[:-1], ratings.movie)
    unknown = np.flatnonzero(known[place] != ratings.movie)
    if len(unknown):
        first = int(unknown[0])
        what = f"movie {ratings.movie[first]} is not in the movie file"
        remedy = "take all files from one and the same release"
        raw_lines.fail(ratings.path, ratings.first_line + first, what, remedy)
    items = rows[place].astype(np.int32)
    users, user_rows = np.unique(ratings.user, return_inverse=True)
    pairs = np.lexsort((items, user_rows))
    again = (np.diff(items[pairs]) == 0) & (np.diff(user_rows[pairs]) == 0)
    if again.any():  # lexsort is stable, so the later one of two comes second
        row = int(pairs[1:][again].min())
        what = f"user {ratings.user[row]} rates movie {ratings.movie[row]} again"
        raw_lines.fail(ratings.path, ratings.first_line + row, what)
    order = np.lexsort((ratings.timestamp, user_rows))
    offsets = np.concatenate([[0], np.cumsum(np.bincount(user_rows))]).astype(np.int64)
    return offsets, users.tolist(), items[order], order


def read_ratings(release: Release, path: pathlib.Path) -> Ratings:
    """The ratings file of a release: user, movie, rating, seconds.

    Raises:
      UserError: on anything but whole numbers and a rating from 0.5 to 5; on an empty file.
    """
    user, movie, seconds = array.array("q"), array.array("q"), array.array("q")
    rating = array.array("f")
    pattern = re.compile(
        re.escape(release.separator).join(
            [r"(\d{1,18})", r"(\d{1,18})", r"(\d(?:\.\d+)?)", r"(\d{1,18})"]
        ),
        re.ASCII,
    )
    numbered = raw_lines.lines(path, release.encoding)
    first_line = 1
    if release.separator == ",":
        raw_lines.check_header(path, next(numbered, (1, ""))[1].split(","), _RATING_COLUMNS)
        first_line = 2
    for line, text in numbered:
        found = pattern.fullmatch(text)
        if found is None or not 0.5 <= float(found[3]) <= 5.0:
            _explain_rating(path, line, text.split(release.separator))
        user.append(int(found[1]))
        movie.append(int(found[2]))
        rating.append(float(found[3]))
        seconds.append(int(found[4]))
    if not user:
        raise UserError(f"{path}: no ratings in it; take the file from its publisher again")
    integers = [np.array(values, np.int64) for values in (user, movie, seconds)]
    return Ratings(
        path, first_line, integers[0], integers[1], np.array(rating, np.float32), integers[2]
    )


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


SOURCE = DatasetSource(
    "movielens",
    VERSION,
    sources=lambda folder, release: source_hashes(release, folder),
    releases=tuple(RELEASES),
    short="ml",
    builder="ilm_jax.data.sources.builders.movielens_builder:Movielens",
)
