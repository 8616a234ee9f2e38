"""Small MovieLens files in every published format, for the reader's and the builder's tests."""

import types

import pytest

from ilm_jax.data.sources import movielens, movielens_files

MOVIES = [
    "10,Blue Hill (1999),Drama|War",
    '11,"Fog, The (2001)",(no genres listed)',
    "12,Unseen (2002),Comedy",
    "13,Nameless,Comedy",
]
RATINGS = ["7,11,3.5,100", "7,10,4.0,90", "7,13,0.5,100", "5,10,5.0,50", "5,13,2.0,40"]
TAGS = ["7,10,Slow  burn,1", "5,10,slow burn,2", "5,10,war,3", "5,10,art,3", '5,11,"a, ""b""",4']


def write_csv(folder, movies=MOVIES, ratings=RATINGS, tags=TAGS, end="\n"):
    files = {
        "movies.csv": ["movieId,title,genres", *movies],
        "ratings.csv": ["userId,movieId,rating,timestamp", *ratings],
        "tags.csv": ["userId,movieId,tag,timestamp", *tags],
    }
    for name, rows in files.items():
        (folder / name).write_bytes("".join(row + end for row in rows).encode())
    return folder


def write_older(folder, release):
    """The CSV fixture in one of the older formats (latin-1, no tags)."""
    titles = {10: "Blue Hill (1999)", 11: "Fog, The (2001)", 13: "Café"}
    genres = {10: ["Drama", "War"], 11: [], 13: ["Comedy"]}
    ratings = [(7, 11, 3, 100), (7, 10, 4, 90), (7, 13, 1, 100), (5, 10, 5, 50), (5, 13, 2, 40)]
    if release == "1m":
        movies = [f"{m}::{t}::{'|'.join(genres[m])}" for m, t in titles.items()]
        lines = ["::".join(map(str, row)) for row in ratings]
    else:
        movies = []
        for movie, title in titles.items():
            flags = [str(int(name in genres[movie])) for name in movielens_files.GENRES_100K]
            flags[0] = str(int(not genres[movie]))
            movies.append("|".join([str(movie), title, "01-Jan-1999", "", "http://x", *flags]))
        lines = ["\t".join(map(str, row)) for row in ratings]
    names = movielens.RELEASES[release]
    (folder / names.movies).write_bytes("".join(f"{m}\n" for m in movies).encode("latin-1"))
    (folder / names.ratings).write_bytes("".join(f"{r}\n" for r in lines).encode("latin-1"))
    return folder


def replaced(rows, number, row):
    return [*rows[:number], row, *rows[number + 1 :]]


@pytest.fixture(scope="session")
def raw_files():
    """`csv(folder, …)` and `older(folder, release)` write files; the rows of the former."""
    return types.SimpleNamespace(
        csv=write_csv,
        older=write_older,
        replaced=replaced,
        movies=MOVIES,
        ratings=RATINGS,
        tags=TAGS,
    )
