"""A user's own folder, in every format that is read, becomes the same catalogue."""

import json

import numpy as np
import pytest

from ilm_jax.data.sources import custom, user_sequences
from ilm_jax.errors import UserError

ROWS = [  # user, item, rating, timestamp; u2 ties on 30
    ("u2", "b", 4.0, 30),
    ("u1", "a", 5.0, 10),
    ("u2", "a", 3.0, 30),
    ("u2", "c", 1.5, 20),
    ("u1", "c", 2.0, 12),
    ("u1", "b", 4.5, 11),
]
ITEMS = [("a", "Alpha, the", "x|y"), ("b", 'Beta "two"', ""), ("c", "", "z"), ("d", "Delta", "")]


def table(folder, name="interactions.csv", header="user,item,rating,timestamp", separator=","):
    lines = [header.replace(",", separator)]
    lines += [separator.join(map(str, row)) for row in ROWS]
    (folder / name).write_text("".join(line + "\n" for line in lines))


def items_csv(folder):
    lines = ["id,title,genres"]
    for raw, title, genres in ITEMS:
        quoted = title.replace('"', '""')
        lines.append(f'{raw},"{quoted}",{genres}')
    (folder / "items.csv").write_text("".join(line + "\n" for line in lines))


def parquet(folder):
    import pyarrow
    import pyarrow.parquet

    columns = zip(*ROWS, strict=True)
    names = ("user_id", "item_id", "rating", "timestamp")
    pyarrow.parquet.write_table(
        pyarrow.table(dict(zip(names, map(list, columns), strict=True))),
        folder / "interactions.parquet",
    )


FORMATS = {
    "csv": table,
    "tsv": lambda f: table(f, "interactions.tsv", separator="\t"),
    "other names": lambda f: table(f, header="reviewerID,asin,overall,unixReviewTime"),
    "recbole": lambda f: table(
        f, "my.inter", "user_id:token,item_id:token,rating:float,timestamp:float", "\t"
    ),
    "parquet": parquet,
}


@pytest.mark.parametrize("form", FORMATS)
def test_tables_with_times_are_sorted_by_time_and_ties_keep_their_order(tmp_path, form):
    FORMATS[form](tmp_path)
    items_csv(tmp_path)
    found = custom.read(tmp_path)
    assert found.user_ids == ["u2", "u1"]  # as the file first names them
    assert found.item_ids == ["a", "b", "c", "d"]  # all of them, also the one nobody chose
    assert [found.sequence(u).tolist() for u in (0, 1)] == [[2, 1, 0], [0, 1, 2]]
    assert found.ratings.tolist() == [1.5, 4.0, 3.0, 5.0, 4.5, 2.0]
    assert found.timestamps.tolist() == [20, 30, 30, 10, 11, 12]
    assert found.ties == 1 and not found.extras["untimed"]
    assert found.titles == ["Alpha, the", 'Beta "two"', "c", "Delta"]
    assert found.categories == [["x", "y"], [], ["z"], []]
    assert found.texts[0] == "The item Alpha, the belongs to x, y."
    assert [found.texts[0][s:e] for s, e in found.content[0]] == ["Alpha, the", "x", "y"]


@pytest.mark.parametrize("form", ["user_sequence.txt", "sequential_data.txt", "interactions.txt"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_files_in_time_order_keep_it(tmp_path, form, end):
    if form == "interactions.txt":  # SASRec
        lines = ["7 3", "8 3", "7 1", "7 2", "8 1"]
    else:
        lines = ["7 3 1 2", "8 3 1"]
    (tmp_path / form).write_bytes("".join(line + end for line in lines).encode())
    found = custom.read(tmp_path, "custom/mine")
    assert (found.name, found.user_ids, found.item_ids) == (
        "custom/mine",
        ["7", "8"],
        ["3", "1", "2"],
    )
    assert [found.sequence(u).tolist() for u in (0, 1)] == [[0, 1, 2], [0, 1]]
    assert found.titles == ["3", "1", "2"] and found.extras["untimed"]


def test_items_in_json_lines_and_in_recboles_format(tmp_path):
    table(tmp_path)
    rows = [
        {"asin": "a", "title": "A", "description": "A long  one.", "category": ["x", "y z"]},
        {"asin": "b", "brand": "Acme", "color": None},
        {"asin": "c", "title": 7},
    ]
    (tmp_path / "columns.gin").write_text(
        '# mine\nColumns.attributes = ("brand", "color")\nid = "asin"\n'
    )
    (tmp_path / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = custom.read(tmp_path)
    assert found.texts == ["A long one.", "The item b; its brand is Acme.", "The item 7."]
    assert found.categories[0] == ["x", "y z"] and found.content[0] == [(0, 11)]
    (tmp_path / "items.jsonl").unlink()
    (tmp_path / "columns.gin").unlink()
    (tmp_path / "my.item").write_text(
        'item_id:token\tmovie_title:token\tclass:token_seq\na\tA "1"\tx y\nb\tB\t\nc\tC\tz\n'
    )
    found = custom.read(tmp_path)
    assert found.titles == ['A "1"', "B", "C"] and found.categories == [["x", "y"], [], ["z"]]


def test_columns_go_by_the_names_that_are_given(tmp_path):
    table(tmp_path, header="who,what,mark,when")
    with pytest.raises(
        UserError, match=r"interactions.csv:1: no column for the user .*Columns.user"
    ):
        custom.read(tmp_path)
    (tmp_path / "columns.gin").write_text(
        'Columns.user = "who"\nColumns.item = "what"\nColumns.timestamp = "when"\n'
        'Columns.rating = "mark"\n'
    )
    found = custom.read(tmp_path)
    assert found.sequence(0).tolist() == [2, 0, 1] and found.ratings[0] == 1.5
    assert "columns.gin" in custom.source_hashes(tmp_path)


def test_columns_are_recognised_however_they_are_written(tmp_path):
    table(tmp_path, header="User ID,ITEM_ID,Rating,TimeStamp")
    (tmp_path / "items.csv").write_text(
        "ItemId,Movie Title\n" + "".join(f"{raw},{raw}!\n" for raw in "abc")
    )
    found = custom.read(tmp_path)
    assert found.titles == ["a!", "b!", "c!"] and found.sequence(0).tolist() == [2, 1, 0]


def test_dates_are_times(tmp_path):
    rows = [
        "1970-01-02",
        "1970-01-01 00:00:30",
        "1970-01-01T00:00:07.5",
        "1970-01-01T02:00:00Z",
        "1970-01-01 02:00:00+02:00",
    ]
    lines = [f"u,{raw},{when}\n" for raw, when in zip("abcde", rows, strict=True)]
    (tmp_path / "interactions.csv").write_text("user,item,date\n" + "".join(lines))
    found = custom.read(tmp_path)
    assert found.timestamps.tolist() == [0, 7, 30, 7200, 86400]
    assert [found.item_ids[i] for i in found.items] == ["e", "c", "b", "d", "a"]


def slow_core(pairs, core):
    """Iterative k-core with plain counters."""
    while True:
        users, items = ([pair[k] for pair in pairs] for k in (0, 1))
        kept = [p for p in pairs if users.count(p[0]) >= core and items.count(p[1]) >= core]
        if kept == pairs:
            return kept
        pairs = kept


@pytest.mark.parametrize("seed", range(5))
def test_the_core_is_that_of_counting_by_hand(tmp_path, seed):
    draw = np.random.default_rng(seed)
    chosen = {str(u): draw.permutation(14)[: draw.integers(1, 9)].tolist() for u in range(20)}
    lines = [" ".join([u, *map(str, items)]) for u, items in chosen.items()]
    (tmp_path / "user_sequence.txt").write_text("".join(line + "\n" for line in lines))
    pairs = slow_core([(u, str(i)) for u, items in chosen.items() for i in items], 3)
    found = custom.read(tmp_path, core=3)
    again = [
        (raw, found.item_ids[i]) for u, raw in enumerate(found.user_ids) for i in found.sequence(u)
    ]
    assert again == pairs and found.extras["left_out"]["users"] == 20 - len({u for u, _ in pairs})


def test_openp5_names_ten_datasets_and_says_whether_the_size_is_as_published(tmp_path):
    assert len(user_sequences.PUBLISHED) == 10
    lines = [" ".join([str(u), *(str(i) for i in range(1, 7))]) for u in range(6)]
    (tmp_path / "user_sequence.txt").write_text("".join(line + "\n" for line in lines))
    found = user_sequences.read(tmp_path, "openp5/beauty")
    assert (found.num_users, found.num_items) == (6, 6) and not found.extras["as_published"]


WRONG = [
    ("user,item,timestamp\nu,a,1\nu,b,x\n", r"csv:3: timestamp 'x' is neither .* nor a date"),
    ("user,item,timestamp\nu,a,2020-13-01\n", r"csv:2: timestamp '2020-13-01' .*\"none\""),
    ("user,item,timestamp\nu,a,1\nu,b,2020-12-01\n", r"csv:3: .*some are dates, others"),
    ("user;item,timestamp\nu;a,1\n", r"csv:1: no column for the user"),
    (",user,item,timestamp\n0,u,a,1\n", r"csv:1: column '' is empty.*index=False"),
    ("user,item,timestamp\nu,a,1\n\n", r"csv:3: an empty line; take it out"),
    ("", r"csv:1: no interactions in the file"),
    ("user,item,timestamp\nu,a,nan\n", r"csv:2: timestamp 'nan'"),
    ("user,item,timestamp\nu,a,-5\n", r"csv:2: timestamp '-5'"),
    ("user,item,rating,timestamp\nu,a,inf,1\n", r"csv:2: rating 'inf'"),
    ("user,item,timestamp\nu,a\n", r"csv:2: 2 columns instead of 3"),
    ("user,item,timestamp\nu,,1\n", r"csv:2: item ''"),
    ("user,item,timestamp\nu,z,1\n", r"csv:2: item 'z' is not in the file of items; add"),
    ("user,item,timestamp\nu,a,1", r"csv:2: the last line has no line end"),
    ("user,user,timestamp\nu,a,1\n", r"csv:1: column 'user' is empty or given twice"),
    ("user,item\nu,a\n", r"csv:1: no column for the timestamp"),
    ("user,item,timestamp\n", r"csv:1: no interactions"),
]


def test_nothing_left_is_an_error(tmp_path):
    (tmp_path / "user_sequence.txt").write_text("1 a b\n")
    with pytest.raises(UserError, match="nothing is left of it with core=2"):
        custom.read(tmp_path, core=2)


@pytest.mark.parametrize(("content", "message"), WRONG, ids=range(len(WRONG)))
def test_what_does_not_fit_is_refused_with_file_and_line(tmp_path, content, message):
    items_csv(tmp_path)
    (tmp_path / "interactions.csv").write_text(content)
    with pytest.raises(UserError, match=message):
        custom.read(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("items.csv", "id,title\na,A\na,B\n", "csv:3: item id 'a' was given in line 2"),
        ("items.csv", "name\nA\n", "csv:1: no column for the id among"),
        ("items.csv", "id,title\n", "csv:1: no items in the file; without titles, leave"),
        ("columns.gin", "Columns.user = 'who'\n", "csv:1: the column 'who' of columns.gin is not"),
        ("items.jsonl", '{"id": "a"}\n{"id": "b",}\n', "jsonl:2: not a JSON object"),
        ("items.jsonl", '{"id": "a", "id": "b"}\n', "jsonl:1: .*a key is given twice"),
        ("items.jsonl", '{"id": "a", "title": NaN}\n', "jsonl:1: .*NaN"),
        ("items.jsonl", '{"id": "a", "title": {"b": 1}}\n', "jsonl:1: title is"),
        ("items.jsonl", "[1]\n", "jsonl:1: a list instead"),
        ("columns.gin", "Columns.usr = 'a'\n", "gin:1: .*NAME one of user"),
        ("columns.gin", "Columns.core = 'a'\n", "gin:1: core = 'a'"),
        ("columns.gin", "Columns.core = foo()\n", "gin:1: value 'foo"),
        ("user_sequence.txt", "1 a\n1 b\n", "several files of interactions"),
    ],
)
def test_a_wrong_file_beside_it_is_refused_too(tmp_path, name, content, message):
    table(tmp_path)
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=message):
        custom.read(tmp_path)


def test_a_folder_without_data_says_what_it_holds(tmp_path):
    (tmp_path / "notes.md").write_text("x")
    with pytest.raises(UserError, match="no file of interactions among notes.md; the folder holds"):
        custom.recognise(tmp_path)
    with pytest.raises(UserError, match="no such folder"):
        custom.recognise(tmp_path / "none")
