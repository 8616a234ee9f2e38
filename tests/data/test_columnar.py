"""What is read by columns is what the strict reader reads; what is not plain is left to it."""

import datetime
import gzip
import math

import numpy as np
import pyarrow.parquet
import pytest

from ilm_jax.data import spill
from ilm_jax.data.catalogue.strings import Strings
from ilm_jax.data.formats import (
    columnar,
    columnar_interactions,
    interaction_files,
    record_columns,
    record_reading,
)
from ilm_jax.data.formats.coded import Coded
from ilm_jax.data.formats.columns import Columns
from ilm_jax.data.formats.record_rows import Rows
from ilm_jax.data.sources import (
    amazon,
    amazon2023,
    custom,
    goodreads,
    movielens,
    movielens_files,
    ordering,
    yelp,
)
from ilm_jax.errors import UserError
from tests.data import damaged_files as damaged

RATINGS = movielens.RELEASES["25m"]
# By name: the file, what reads it strictly, what reads it by columns.
READERS = {
    form: (
        name,
        lambda path: interaction_files.read_strictly(path, Columns()),
        lambda path: columnar_interactions.read(path, Columns()),
    )
    for form, name in (
        ("csv", "interactions.csv"),
        ("dates", "interactions.csv"),
        ("inter", "x.inter"),
        ("pairs", "interactions.txt"),
        ("sequences", "user_sequence.txt"),
    )
}
READERS["ratings"] = (
    "ratings.csv",
    lambda path: movielens_files.read_strictly(RATINGS, path),
    lambda path: movielens_files.read_by_columns(RATINGS, path),
)
READERS["reviews"] = ("reviews.json", amazon.reviews_strictly, amazon.reviews_by_columns)
for _form, _name, _corpus in (
    ("amazon2023", "x.jsonl", amazon2023.CORPUS),
    ("amazon2023 csv", "x.csv", amazon2023.CORPUS),
    ("goodreads", "g.json", goodreads.CORPUS),
    ("yelp", "review.json", yelp.CORPUS),
):
    READERS[_form] = (
        _name,
        lambda path, form=_corpus.interactions: record_reading.read_strictly([path], form),
        lambda path, form=_corpus.interactions: record_columns.read([path], form),
    )
FORMS = {form: (name, damaged.RAW[form]) for form, (name, *_) in READERS.items()}


def strictly(form, path):
    """What the strict reader gives, or the line that it refuses with."""
    try:
        return shown(READERS[form][1](path))
    except UserError as error:
        return str(error)


def by_columns(form, path):
    """What the other reader gives; None where it leaves the file to the strict one."""
    found = columnar.attempt(path, lambda: READERS[form][2](path))
    return None if found is None else shown(found)


def shown(found):
    """All that a reader gives, as plain values."""
    values = []
    for name, value in vars(found).items():
        if hasattr(value, "codes"):
            value = (value.codes.tolist(), list(value.values))
        elif isinstance(value, np.ndarray | range):
            value = (str(np.asarray(value).dtype), repr(np.asarray(value).tolist()))
        values.append((name, value))
    return values


@pytest.fixture(autouse=True)
def however_small(monkeypatch):
    monkeypatch.setattr(columnar, "FROM", 0)


def agree(form, folder, kind, seed):
    """Damages the form's file; which of the readers take it."""
    name, raw = FORMS[form]
    damaged.DRAW = np.random.default_rng(seed)
    (folder / name).write_bytes(damaged.MUTATIONS[kind](raw.encode()))
    fast = by_columns(form, folder / name)
    strict = strictly(form, folder / name)
    if fast is not None:
        assert fast == strict, (form, kind, seed)
    return fast is not None, not isinstance(strict, str)


@pytest.mark.parametrize("form", FORMS)
def test_whole_files_are_read_by_columns_as_strictly(tmp_path, form):
    name, raw = FORMS[form]
    for end in ("\n", "\r\n"):
        (tmp_path / name).write_bytes(raw.replace("\n", end).encode())
        found = by_columns(form, tmp_path / name)
        assert found is not None and found == strictly(form, tmp_path / name)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("count", [50, pytest.param(1000, marks=pytest.mark.slow)])
def test_damaged_files_are_taken_alike_or_left_to_the_strict_reader(tmp_path, form, count):
    kinds = list(damaged.MUTATIONS)
    taken = [agree(form, tmp_path, kinds[k % len(kinds)], k) for k in range(count)]
    fast, strict = np.sum(taken, axis=0)
    assert 0.05 * count < fast <= strict < 0.9 * count, (fast, strict)


TRICKY = {
    "a cell that is missing": "user,item,timestamp,rating\nu,a,1,3\nu,b,2\nu,c,3,4\n",
    "empty ratings": "user,item,timestamp,rating\nu,a,1,3\nu,b,2,\nu,c,3,4\n",
    "unread columns": "user,item,timestamp,text\nu,a,1,x y\nu,b,2,é\nv,a,2,\n",
    "letters": "user,item,timestamp\nü,a,1\nü,日本,2\nv,a,2\n",
    "a space that is no ASCII": "user,item,timestamp\nu,a\u2003b,1\nu,b,2\n",
    "floats": "user,item,timestamp\nu,a,2.5\nu,b,2\nu,c,100000000000000001\nv,a,1e3\n",
    "zeros": "user,item,timestamp,rating\nu,a,007,3\nu,b,0,1_0\nu,c,5,0x1\n",
    "signs": "user,item,timestamp\nu,a,+7\nu,b,1\n",
    "missing": "user,item,timestamp\nu,a,7\nu,nan,1\n",
    "dates among numbers": "user,item,timestamp\nu,a,7\nu,b,2020-01-01\n",
    "days": "user,item,date\nu,a,2020-01-02\nu,b,2020-01-01\nu,c,2020-01-01 00:00:00.5\n",
    "another separator": "user;item;timestamp\nu;a;7\nu;b;1\n",
    "quotes": 'user,item,timestamp\nu,"a",7\nu,b,1\n',
    "a column twice": "user,user,item,timestamp\nu,u,a,7\n",
    "no rows": "user,item,timestamp\n",
    "a comma at the end": "user,item,timestamp\nu,a,7,\nu,b,1,\n",
    "a long cell": f"user,item,timestamp,text\nu,a,7,{'x' * 140_000}\nu,b,1,x\n",
    "a carriage return": "user,item,timestamp\nu,a\rb,7\nu,b,1\n",
    "a carriage return for a line end": "user,item,timestamp\nu,a,7\ru,b,1\nu,c,2\n",
    "two carriage returns": "user,item,timestamp\nu,a,7\r\r\nu,b,1\n",
    "an empty line": "user,item,timestamp\nu,a,7\n\nu,b,1\n",
    "a byte order mark": "\ufeffuser,item,timestamp\nu,a,7\nu,b,1\n",
}


@pytest.mark.parametrize("name", TRICKY)
def test_odd_files_are_taken_alike_or_left_to_the_strict_reader(tmp_path, name):
    path = tmp_path / "interactions.csv"
    path.write_text(TRICKY[name], encoding="utf-8", newline="")
    fast = by_columns("csv", path)
    assert fast is None or fast == strictly("csv", path)
    taken = ("empty ratings", "unread columns", "letters", "floats", "signs", "days")
    assert (fast is not None) == (name in (*taken, "another separator"))


RECORD = '{"reviewerID": "u", "asin": "a", "overall": 5, "unixReviewTime": 7%s}'
RECORDS = {
    "more fields": RECORD % ', "reviewText": "é \\u00e9 \\n", "style": {"Size:": [1, null]}',
    "a field twice": RECORD % ', "asin": "b"',
    "an unread field twice": RECORD % ', "x": 1, "x": 2',
    "no number": RECORD % ', "x": NaN',
    "half of a pair": RECORD % ', "x": "\\ud83d"',
    "an escaped sign of escape": RECORD % ', "x": "\\\\ud83d"',
    "a NUL": RECORD % ', "x": "\\u0000"',
    "another form": RECORD % ', "parent_asin": "b"',
    "a Python dictionary": "{'reviewerID': 'u', 'asin': 'a', 'overall': 5, 'unixReviewTime': 7}",
    "two in a line": RECORD % "" + RECORD % "",
    "a space before": " " + RECORD % "",
    "a space between": RECORD % "" + "\n \n" + RECORD % "",
    "one over two lines, two in one": '{"x":\n{"y": 1}, ' + RECORD[1:] % "" + RECORD % "",
    "a list": "[1]",
    "a missing field": '{"reviewerID": "u", "asin": "a", "overall": 5}',
    "null": RECORD.replace('"u"', "null") % "",
    "a text for a number": RECORD.replace("7", '"7"') % "",
    "a float for a time": RECORD.replace("7", "7.0") % "",
    "true": RECORD.replace("5", "true") % "",
    "far off": RECORD.replace("5", "6") % "",
    "two words": RECORD.replace('"u"', '"u v"') % "",
    "no ASCII": RECORD.replace('"u"', '"ü"') % "",
}


@pytest.mark.parametrize("name", RECORDS)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("packed", [False, True])
def test_odd_records_are_taken_alike_or_left_to_the_strict_reader(tmp_path, name, end, packed):
    text = "\n".join([RECORD % "", RECORDS[name], RECORD % "", ""]).replace("\n", end)
    path = tmp_path / ("reviews.json" + ".gz" * packed)
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    fast = by_columns("reviews", path)
    assert fast is None or fast == strictly("reviews", path)
    assert (fast is not None) == (
        name in ("more fields", "an unread field twice", "no number", "no ASCII")
    )
    if packed:
        path.write_bytes(path.read_bytes()[:-9])
        assert by_columns("reviews", path) is None


STAMP = datetime.datetime(2020, 1, 2, 3, 4, 5)
PARQUET = {
    "texts": {"rating": [1.5, None, 3.25], "timestamp": [3, 2, 2]},
    "numbers": {"user": [5, 5, -7], "item": [10**17, 2, 2], "timestamp": [3.5, 2.0, 2.0]},
    "dates": {"timestamp": [STAMP, STAMP, STAMP.replace(year=2019)], "rating": [1, 2, 3]},
    "spelled": {"timestamp": ["2020-01-02", "2020-01-02 00:00:01", "2019-01-01"]},
    "long": {"timestamp": [10**18, 2, 3]},
    "no times": {"timestamp": [1, None, 3]},
    "before 1970": {"timestamp": [1, -1, 3]},
    "not a number": {"rating": [1.0, math.nan, 2.0]},
    "true": {"rating": [True, False, True]},
    "no id": {"user": ["u", None, "v"]},
    "floats": {"user": [1.0, 2.0, 3.0]},
    "words": {"item": ["a b", "c", "d"]},
}


@pytest.mark.parametrize("name", PARQUET)
def test_parquet_is_taken_alike_or_left_to_the_strict_reader(tmp_path, name):
    plain = {"user": ["u", "u", "v"], "item": ["a", "b", "é"], "timestamp": [3, 2, 2]}
    path = tmp_path / "interactions.parquet"
    pyarrow.parquet.write_table(pyarrow.table(plain | PARQUET[name]), path)
    fast = by_columns("csv", path)
    assert fast is None or fast == strictly("csv", path)
    taken = ("texts", "numbers", "dates", "spelled", "long")
    assert (fast is not None) == (name in taken)


def test_of_repeats_the_earliest_stays_and_ids_are_numbered_by_who_stays():
    users, items, times = "abaac", "xxxxy", np.array([9, 1, 5, 5, 2])
    columns = Coded.of(list(users)), Coded.of(list(items))
    rows = Rows(*columns, np.zeros(5, np.float32), times, np.arange(1, 6))
    kept = rows.kept(rows.earliest())
    assert list(kept.user) == ["b", "a", "c"] and list(kept.item) == ["x", "x", "y"]
    assert kept.user.values == ["b", "a", "c"] and kept.user.codes.tolist() == [0, 1, 2]
    assert kept.line.tolist() == [2, 3, 5] and kept.time.tolist() == [1, 5, 2]
    mapped = Coded(columns[0].codes, Strings.of(columns[0].values)).kept(rows.earliest())
    assert mapped.values == ["b", "a", "c"] and list(mapped) == ["b", "a", "c"]


def test_what_an_attempt_notes_is_said_once(tmp_path):
    (tmp_path / "interactions.csv").write_text("user;item;timestamp\nu;a;7\nu;b;1\nu;c;2\n")
    assert len(custom.read(tmp_path).extras["notes"]) == 1
    (tmp_path / "interactions.csv").write_text('user;item;timestamp\nu;a;7\nu;"b";1\nu;c;2\n')
    assert len(custom.read(tmp_path).extras["notes"]) == 1


def test_a_long_file_is_cut_and_joined_where_nothing_is_seen(tmp_path, monkeypatch):
    """Many parts, spilled to disk: the same as one."""
    draw = np.random.default_rng(0)
    rows = [
        f"u{draw.integers(900)},é{draw.integers(300)},{draw.integers(10**6)},{draw.integers(1, 6)}"
        for _ in range(20_000)
    ]
    path = tmp_path / "interactions.csv"
    path.write_text("\n".join(["user,item,timestamp,rating", *rows, ""]))
    whole = strictly("csv", path)
    monkeypatch.setattr(columnar, "_BLOCK", 1 << 12)
    monkeypatch.setattr(spill, "FROM", 1 << 10)
    with spill.into(tmp_path):
        assert by_columns("csv", path) == whole
    assert [file.name for file in tmp_path.iterdir()] == ["interactions.csv"]


@pytest.mark.parametrize("core", [0, 3])
def test_blocks_of_users_are_sorted_as_all_at_once(tmp_path, monkeypatch, core):
    draw = np.random.default_rng(1)
    lines = [
        f"u{draw.integers(90)},i{item},{draw.integers(30)},{draw.integers(1, 6)}"
        for item in (40 * draw.random(2_000) ** 2).astype(int)
    ]
    (tmp_path / "interactions.csv").write_text(
        "\n".join(["user,item,timestamp,rating", *lines, ""])
    )
    whole = custom.read(tmp_path, core=core)
    rows = [line.split(",") for line in lines]
    by_user: dict[str, list] = {}
    for number, (user, item, time, rating) in enumerate(rows):
        by_user.setdefault(user, []).append((int(time), number, item, float(rating)))
    if not core:
        assert whole.user_ids == list(by_user)
        for user, chosen in enumerate(by_user.values()):
            part = slice(*whole.offsets[user : user + 2])
            ordered = sorted(chosen)
            assert [whole.item_ids[k] for k in whole.items[part]] == [c[2] for c in ordered]
            assert whole.ratings[part].tolist() == [c[3] for c in ordered]
            assert whole.timestamps[part].tolist() == [c[0] for c in ordered]
        pairs = {(row[0], row[1]) for row in rows}
        assert whole.extras["repeats"] == len(rows) - len(pairs)
    monkeypatch.setattr(ordering, "BLOCK", 64)
    monkeypatch.setattr(ordering, "_CHUNK", 128)
    monkeypatch.setattr(spill, "FROM", 1 << 8)
    assert custom.read(tmp_path, core=core).fingerprint == whole.fingerprint
    assert not math.isnan(whole.ratings.sum())
