"""MovieLens as GroupLens publishes it -> Catalogue. Strict, and free of TensorFlow.

Formats: CSV (`latest_small`, `25m`, `32m`: ratings.csv, movies.csv, tags.csv), "::" (`1m`:
ratings.dat, movies.dat) and tabs and bars (`100k`: u.data, u.item). Terms of use and citation
(Harper and Konstan 2015) are in each archive's README.
"""

import os
import pathlib

import numpy as np

from ilm_jax.data.catalogue.catalogue import Catalogue
from ilm_jax.data.formats import encodings, notes, published, raw_lines, text_checks
from ilm_jax.data.sources import downloads, movie_text
from ilm_jax.data.sources.dataset_source import DatasetSource
from ilm_jax.data.sources.movielens_files import (
    Ratings,
    Release,
    read_movies,
    read_ratings,
    read_tags,
)
from ilm_jax.data.sources.ordering import Arranged, Columns, arrange
from ilm_jax.errors import UserError
from ilm_jax.files import sha256_file

VERSION = "1.0.0"


_SITE = "https://files.grouplens.org/datasets/movielens/"
_CSV = ("ratings.csv", "movies.csv", "tags.csv", ",")
RELEASES = {
    "latest_small": Release(_SITE + "ml-latest-small.zip", *_CSV, 100_836),
    "25m": Release(_SITE + "ml-25m.zip", *_CSV, 25_000_095),
    "32m": Release(_SITE + "ml-32m.zip", *_CSV, 32_000_204),
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
}


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
    rated = set(ratings.movie_ids.tolist())
    ids = [movie for movie in movies if movie in rated]
    arranged = _arranged(ratings, ids)
    described = [movie_text.describe(*movies[movie], tags.get(movie, [])) for movie in ids]
    text_checks.check([movies[movie][0] for movie in ids], [text for text, _ in described])
    return Catalogue(
        name=f"movielens/{release}",
        version=VERSION,
        item_ids=[str(movie) for movie in ids],
        titles=[movies[movie][0] for movie in ids],
        texts=[text for text, _ in described],
        content=[spans for _, spans in described],
        categories=[movies[movie][1] for movie in ids],
        user_ids=[str(user) for user in ratings.user_ids.tolist()],
        offsets=arranged.offsets,
        items=arranged.items,
        ratings=arranged.ratings,
        timestamps=arranged.timestamps,
        ties=arranged.ties,
        extras={
            "years": [movie_text.name_and_year(movies[movie][0])[1] for movie in ids],
            "tags": [tags.get(movie, []) for movie in ids],
            "unrated_movies": len(movies) - len(ids),
            "empty_tags": empty_tags,
        },
    )


def _check_size(release: str, ratings: Ratings) -> None:
    """Several releases have the same form: their sizes tell them apart."""
    found, wanted = len(ratings.users), RELEASES[release].size
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


def _arranged(ratings: Ratings, ids: list[int]) -> Arranged:
    """By user and time; all checks that need the whole file are here."""
    row = {movie: row for row, movie in enumerate(ids)}
    rows = np.array([row.get(movie, -1) for movie in ratings.movie_ids.tolist()], np.int32)
    if (rows < 0).any():
        first = int(np.argmax(rows[ratings.movies] < 0))
        movie = ratings.movie_ids[ratings.movies[first]]
        what = f"movie {movie} is not in the movie file"
        remedy = "take all files from one and the same release"
        raw_lines.fail(ratings.path, ratings.first_line + first, what, remedy)
    columns = Columns(
        ratings.users, ratings.movies, ratings.rating, ratings.timestamp, ratings.timestamp
    )
    users = np.arange(len(ratings.user_ids), dtype=np.int32)
    found = arrange(columns, len(ids), users, rows)
    if (again := found.first_repeat) >= 0:
        user, movie = (
            ratings.user_ids[ratings.users[again]],
            ratings.movie_ids[ratings.movies[again]],
        )
        what = f"user {user} rates movie {movie} again"
        raw_lines.fail(ratings.path, ratings.first_line + again, what)
    return found


def fetched(release: str, folder: pathlib.Path) -> pathlib.Path:
    """The release's files from GroupLens, in `folder`; errors as `downloads.unpacked`."""
    kind = RELEASES[release]
    return downloads.unpacked(kind.url, folder) / kind.folder


SOURCE = DatasetSource(
    "movielens",
    VERSION,
    lambda folder, dataset: read(dataset.partition("/")[2], folder),
    lambda folder, release: source_hashes(release, folder),
    releases=tuple(RELEASES),
    short="ml",
    fetch=fetched,
)
