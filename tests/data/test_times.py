"""Times of interactions: every digit sorts, and what still is one is counted as a tie."""

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from ilm_jax.data.formats import columnar, columnar_interactions, interaction_files
from ilm_jax.data.formats.columns import Columns
from ilm_jax.data.sources import amazon2023, custom, ordering
from ilm_jax.errors import UserError

STAMP = 1_609_459_200
NANOSECONDS = 10**9 * STAMP
# Times of the items a, b, c, … as cells; how they are sorted; whether the last two are a tie.
TIMES = {
    "nanoseconds": ([str(NANOSECONDS + k) for k in (5, 3, 4)], "bca", 0),
    "ticks of 100 nanoseconds": ([str(NANOSECONDS - 100 * k) for k in range(3)], "cba", 0),
    "the last number of 64 bits": ([str(2**63 - 1 - k) for k in range(3)], "cba", 0),
    "nanoseconds and a fraction": (
        [*(str(NANOSECONDS + k) for k in (5, 3, 4)), "1.5"],
        "dbca",
        0,
    ),
    "microseconds and fractions": (
        ["160945920000000005", "160945920000000003", "1.5", "1.25", "1.25", "1"],
        "fdecba",
        0,
    ),
    "fractions of a second": (["100.75", "100.25", "99"], "cba", 0),
    "parts of a second": (
        ["2021-03-04 10:00:00.000002", "2021-03-04 10:00:00.000001", "2021-03-03"],
        "cba",
        0,
    ),
    "one second": (["7", "7", "3"], "cab", 1),
    "one fraction": (["7.5", "7.5", "3"], "cab", 1),
    "one day": (["2021-03-04", "2021-03-04 00:00", "2021-03-03"], "cab", 1),
    "one nanosecond": ([str(NANOSECONDS + k) for k in (1, 1, 0)], "cab", 1),
}


@pytest.mark.parametrize("name", TIMES)
@pytest.mark.parametrize("by_columns", [False, True])
def test_every_digit_of_a_time_sorts_and_tells_apart(tmp_path, monkeypatch, name, by_columns):
    cells, wanted, ties = TIMES[name]
    rows = [f"u,{item},{cell}\n" for item, cell in zip("abcdefg", cells, strict=False)]
    path = tmp_path / "interactions.csv"
    path.write_text("".join(["user,item,timestamp\n", *rows]))
    monkeypatch.setattr(columnar, "FROM", 0 if by_columns else 1 << 40)
    if by_columns:
        fast = columnar_interactions.read(path, Columns())
        strict = interaction_files.read_strictly(path, Columns())
        assert fast.order.tolist() == strict.order.tolist()
        assert fast.timestamp.tolist() == strict.timestamp.tolist()
    found = custom.read(tmp_path)
    assert "".join(found.item_ids[row] for row in found.sequence(0)) == wanted
    assert found.ties == ties


@pytest.mark.parametrize("cell", [str(2**63), "9" * 19, "-1"])
@pytest.mark.parametrize("start", [0, 1 << 40])
def test_a_time_of_more_than_63_bits_is_refused_by_its_line(tmp_path, monkeypatch, cell, start):
    monkeypatch.setattr(columnar, "FROM", start)
    (tmp_path / "interactions.csv").write_text(f"user,item,timestamp\nu,a,1\nu,b,{cell}\n")
    with pytest.raises(UserError, match=f"interactions.csv:3: timestamp '{cell}' is neither"):
        custom.read(tmp_path)


def test_milliseconds_of_one_second_are_no_tie(tmp_path):
    start = 1_588_615_855_000
    rows = [
        f"u{u},i{k},5.0,{start + 10 * (k + u // 5 * (k == 3))}\n"
        for u in range(6)
        for k in range(5)
    ]
    (tmp_path / "X.csv").write_text("".join(["user_id,parent_asin,rating,timestamp\n", *rows]))
    found = amazon2023.CORPUS.read(str(tmp_path), "amazon2023/x")
    assert set(found.timestamps.tolist()) == {start // 1000} and found.ties == 1


MANY = 80_000  # rows, of which Arrow gives 65,536 at once


def parquet(folder, **columns):
    plain = {"user": [k // 4 for k in range(MANY)], "item": [k % 4 for k in range(MANY)]}
    numbers = {name: pyarrow.array(cells) for name, cells in plain.items()}
    pyarrow.parquet.write_table(pyarrow.table(numbers | columns), folder / "interactions.parquet")


def test_columns_of_categories_are_read_by_their_values(tmp_path, monkeypatch):
    monkeypatch.setattr(columnar, "FROM", 0)
    cells = [str(1 + k % 5) for k in range(MANY)]
    times = [str(10**9 + k) for k in range(MANY)]
    read = []
    for written in (pyarrow.array, lambda values: pyarrow.array(values).dictionary_encode()):
        parquet(tmp_path, timestamp=written(times), rating=written(cells))
        read.append(columnar_interactions.read(tmp_path / "interactions.parquet", Columns()))
        found = custom.read(tmp_path)
        assert found.ratings[:6].tolist() == [1, 2, 3, 4, 5, 1]
        assert found.timestamps[:3].tolist() == [10**9, 10**9 + 1, 10**9 + 2]
    assert read[0].order.tolist() == read[1].order.tolist()


def test_ids_of_categories_are_read_by_columns_as_strictly(tmp_path):
    ids = pyarrow.array(["u", "é", "u"]).dictionary_encode()
    times = pyarrow.array([3, 2, 2])
    path = tmp_path / "interactions.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"user": ids, "item": ids, "timestamp": times}), path)
    fast = columnar_interactions.read(path, Columns())
    assert list(fast.user) == list(interaction_files.read_strictly(path, Columns()).user)


@pytest.mark.parametrize(
    ("unit", "number"),
    [("s", 1000 * STAMP), ("ns", 10**9 * STAMP + 5), ("us", 10**18), ("ms", 10**18)],
)
@pytest.mark.parametrize("odd", [0, 70_000])
def test_a_time_that_python_has_no_value_for_is_refused_by_its_row(
    tmp_path, monkeypatch, unit, number, odd
):
    monkeypatch.setattr(columnar, "FROM", 0)
    times = np.full(MANY, STAMP, np.int64)
    times[odd] = number
    if unit == "ns":
        times[:odd] *= 10**9
    parquet(tmp_path, timestamp=pyarrow.array(times, pyarrow.timestamp(unit)))
    with pytest.raises(UserError, match=f"interactions.parquet:{odd + 1}: timestamp of type"):
        custom.read(tmp_path)


def test_places_beyond_31_bits_are_whole(monkeypatch):
    """A file of more than two thousand million rows, of which four are looked at."""
    start = 2**31 - 2
    everyone = np.broadcast_to(np.int32(0), start + 4)
    columns = ordering.Columns(everyone, everyone, everyone, everyone, None)
    part = (start, np.arange(4, dtype=np.int32), np.array([0, 4, 4]))
    monkeypatch.setattr(ordering, "_dealt", lambda *_: [part])
    ((place, rows, users),) = ordering._blocks(columns, np.array([0]), np.array([0, 4]), None)
    assert rows.tolist() == [start, start + 1, start + 2, start + 3]
    assert place == 0 and users.tolist() == [0, 0, 0, 0]
