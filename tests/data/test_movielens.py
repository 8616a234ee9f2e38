"""GroupLens' formats are read to the letter, and whatever does not fit names its file and line."""

import os
import pathlib
import re

import numpy as np
import pytest

from ilm_jax.data.sources import movie_text, movielens, movielens_files
from ilm_jax.errors import UserError

ROOT = pathlib.Path(__file__).parents[2]
DATA = pathlib.Path(os.environ.get("ILM_TEST_DATA", ROOT.parent / "shared/data"))
REAL = DATA / "ml-latest-small"


@pytest.mark.parametrize("release", ["latest_small", "25m", "32m"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_csv_releases_become_a_catalogue(tmp_path, release, end, raw_files):
    found = movielens.read(release, raw_files.csv(tmp_path, end=end))
    assert found.name == f"movielens/{release}"
    assert found.item_ids == ["10", "11", "13"]  # 12 has no ratings
    assert found.user_ids == ["5", "7"]
    assert found.titles == ["Blue Hill (1999)", "Fog, The (2001)", "Nameless"]
    assert found.categories == [["Drama", "War"], [], ["Comedy"]]
    assert found.sequence(0).tolist() == [2, 0]
    assert found.sequence(1).tolist() == [0, 1, 2]  # the tie of 11 and 13 keeps file order
    assert found.ties == 1
    assert found.ratings.tolist() == [2.0, 5.0, 4.0, 3.5, 0.5]
    assert found.timestamps.tolist() == [40, 50, 90, 100, 100]
    assert found.extras.pop("notes") == [
        f"ratings.csv: 5 ratings; movielens/{release} was published with "
        f"{movielens.RELEASES[release].size:,}"
    ]
    assert found.extras == {
        "years": [1999, 2001, None],
        "tags": [["slow burn", "art", "war"], ['a, "b"'], []],
        "unrated_movies": 1,
        "empty_tags": 0,
    }


@pytest.mark.parametrize("release", ["1m", "100k"])
def test_older_releases_become_a_catalogue(tmp_path, release, raw_files):
    found = movielens.read(release, raw_files.older(tmp_path, release))
    assert found.titles == ["Blue Hill (1999)", "Fog, The (2001)", "Café"]
    assert found.categories == [["Drama", "War"], [], ["Comedy"]]
    assert [found.sequence(user).tolist() for user in (0, 1)] == [[2, 0], [0, 1, 2]]
    assert found.ratings.tolist() == [2, 5, 4, 3, 1]


def test_spans_mark_the_values_and_nothing_else():
    text, spans = movie_text.describe("Fog, The (2001)", ["Drama", "War"], ["sea", "slow burn"])
    values = [text[start:end] for start, end in spans]
    assert values == ["Fog, The", "2001", "Drama", "War", "sea", "slow burn"]
    bare, spans = movie_text.describe("Nameless", [], [])
    assert [bare[start:end] for start, end in spans] == ["Nameless"]
    assert bare.endswith(".")


@pytest.mark.parametrize(
    "title, wanted",
    [
        ("Toy Story (1995)", ("Toy Story", 1995)),
        ("Death Note (2006–2007) ", ("Death Note", 2006)),
        ("Serial (1994-)", ("Serial", 1994)),
        ("Twice (1990) (1991)", ("Twice (1990)", 1991)),
        ("Babylon 5", ("Babylon 5", None)),
        ("(500) Days", ("(500) Days", None)),
    ],
)
def test_year_is_taken_off_the_title(title, wanted):
    assert movie_text.name_and_year(title) == wanted


@pytest.mark.parametrize(
    "row, message",
    [
        ("7,10,four,90", "rating 'four'"),
        ("7,10,nan,90", "rating 'nan'"),
        ("7,10,inf,90", "rating 'inf'"),
        ("7,10,1e1,90", "rating '1e1'"),
        ("7,10,50,90", "rating '50'"),
        ("7,10,-1,90", "rating '-1'"),
        ("7,10,,90", "rating ''"),
        ("7,10,4.0", "3 columns instead of 4"),
        ("7,10,4.0,90,1", "5 columns instead of 4"),
        ("", "an empty line"),
        ("7,1_0,4.0,90", "movieId '1_0'"),
        ("seven,10,4.0,90", "userId 'seven'"),
        ("7,10,4.0,9.5", "timestamp '9.5'"),
        ("7,12345,4.0,90", "movie 12345 is not in the movie file"),
        ("7,11,4.0,90", "user 7 rates movie 11 again"),
    ],
)
def test_a_bad_rating_is_named_by_file_and_line(tmp_path, row, message, raw_files):
    raw_files.csv(tmp_path, ratings=raw_files.replaced(raw_files.ratings, 1, row))
    with pytest.raises(UserError, match=re.escape(f"ratings.csv:3: {message}")) as caught:
        movielens.read("latest_small", tmp_path)
    assert ";" in str(caught.value)  # a remedy follows
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "row, message",
    [
        ("10,Again (1999),Drama", "movies.csv:3: movie id 10 was given before"),
        ("x,Title,Drama", "movies.csv:3: movie id 'x'"),
        ("11,Fog, The,Drama", "movies.csv:3: 4 columns instead of 3"),
        ('11,"Fog" The,Drama', "movies.csv:3: not valid CSV"),
        ("11, ,Drama", "movies.csv:3: movie 11 has no title"),
    ],
)
def test_a_bad_movie_is_named_by_file_and_line(tmp_path, row, message, raw_files):
    raw_files.csv(tmp_path, movies=raw_files.replaced(raw_files.movies, 1, row))
    with pytest.raises(UserError, match=re.escape(message)):
        movielens.read("latest_small", tmp_path)


@pytest.mark.parametrize(
    "row, message",
    [
        ("7,99,dull,1", "tags.csv:3: movie 99 is not in the movie file"),
        ("7,10,dull,soon", "tags.csv:3: timestamp 'soon'"),
        ("7,10,dull", "tags.csv:3: 3 columns"),
    ],
)
def test_a_bad_tag_is_named_by_file_and_line(tmp_path, row, message, raw_files):
    raw_files.csv(tmp_path, tags=raw_files.replaced(raw_files.tags, 1, row))
    with pytest.raises(UserError, match=re.escape(message)):
        movielens.read("latest_small", tmp_path)


@pytest.mark.parametrize("release", ["1m", "100k"])
def test_older_formats_are_as_strict(tmp_path, release, raw_files):
    names = movielens.RELEASES[release]
    for name in (names.ratings, names.movies):
        path = raw_files.older(tmp_path, release) / name
        data = path.read_bytes()
        path.write_bytes(b"x" + data)
        with pytest.raises(UserError, match=f"{name}:1: "):
            movielens.read(release, tmp_path)
        path.write_bytes(data.replace(b"\n", b"0" + names.separator.encode() + b"\n", 1)[:-1])
        with pytest.raises(UserError, match=f"{name}:(1|3|5): "):
            movielens.read(release, tmp_path)


def test_bad_flag_of_a_genre(tmp_path, raw_files):
    path = raw_files.older(tmp_path, "100k") / "u.item"
    path.write_bytes(path.read_bytes().replace(b"|1|", b"|2|", 1))
    with pytest.raises(UserError, match="u.item:1: genre Drama is '2'"):
        movielens.read("100k", tmp_path)


def test_a_file_cut_off_within_its_last_line(tmp_path, raw_files):
    path = raw_files.csv(tmp_path) / "ratings.csv"
    path.write_bytes(path.read_bytes()[:-2])  # "5,13,2.0,4" reads well and is wrong
    with pytest.raises(UserError, match="ratings.csv:6: .*cut off"):
        movielens.read("latest_small", tmp_path)


def test_bad_utf8(tmp_path, raw_files):
    path = raw_files.csv(tmp_path) / "movies.csv"
    path.write_bytes(path.read_bytes().replace(b"Fog", b"F\xffg"))
    with pytest.raises(UserError, match="movies.csv:3: not utf-8 at byte 6"):
        movielens.read("latest_small", tmp_path)


def test_a_missing_column_a_missing_file_and_no_ratings(tmp_path, raw_files):
    path = raw_files.csv(tmp_path) / "ratings.csv"
    path.write_text("userId,movieId,timestamp\n7,10,90\n")
    with pytest.raises(UserError, match=r"ratings.csv:1: no column 'rating'.*header is"):
        movielens.read("latest_small", tmp_path)
    path.write_text("userId,movieId,rating,timestamp\n")
    with pytest.raises(UserError, match="ratings.csv: no ratings"):
        movielens.read("latest_small", tmp_path)
    path.unlink()
    with pytest.raises(UserError, match=r"ratings.csv: no such file"):
        movielens.source_hashes("latest_small", tmp_path)


@pytest.mark.skipif(not REAL.is_dir(), reason=f"no ml-latest-small at {REAL} (set ILM_TEST_DATA)")
def test_real_latest_small_has_its_published_size():
    found = movielens.read("latest_small", REAL)
    assert (found.num_items, found.num_users, len(found.items)) == (9724, 610, 100836)
    assert found.ties == 94
    assert found.texts[0] == (
        "The film Toy Story came out in 1995 and belongs to Adventure, Animation, Children, "
        "Comedy, Fantasy. Viewers tag it as pixar, fun."
    )
    assert np.isfinite(found.ratings).all()
    assert max(len(tags) for tags in found.extras["tags"]) == movielens_files.MAX_TAGS
