"""What columns.gin says is obeyed or refused, and a value that is not there is no value."""

import json

import pytest

from ilm_jax.data.sources import amazon, custom, movielens
from ilm_jax.errors import UserError

ROWS = [("u0", "i0", 4, 1), ("u0", "i1", 3, 2), ("u1", "i0", 5, 3)]
ITEMS = [
    {"pid": f"i{k}", "label": f"Lamp {k}", "blurb": "Shines.", "kinds": "A|B", "brand": "Acme"}
    for k in range(2)
]
NAMES = {
    "user": "who",
    "item": "what",
    "rating": "mark",
    "timestamp": "when",
    "id": "pid",
    "title": "label",
    "text": "blurb",
    "categories": "kinds",
}
INTERACTION_FORMS = ("csv", "tsv", "inter", "parquet")
ITEM_FORMS = ("csv", "tsv", "jsonl", "parquet", "item")


def table(path, form, rows):
    names = list(rows[0])
    if form == "parquet":
        pyarrow, parquet = map(pytest.importorskip, ("pyarrow", "pyarrow.parquet"))
        columns = {name: [row[name] for row in rows] for name in names}
        parquet.write_table(pyarrow.table(columns), path)
    elif form == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        between = "," if form == "csv" else "\t"
        lines = [between.join(names), *(between.join(map(str, row.values())) for row in rows)]
        path.write_text("".join(line + "\n" for line in lines))


def write(path, form="csv", items="csv", names=NAMES, more=""):
    rows = [dict(zip(("who", "what", "mark", "when"), row, strict=True)) for row in ROWS]
    table(path / ("x.inter" if form == "inter" else f"interactions.{form}"), form, rows)
    table(path / ("x.item" if items == "item" else f"items.{items}"), items, ITEMS)
    gin = "".join(f'Columns.{field} = "{name}"\n' for field, name in names.items())
    (path / "columns.gin").write_text(gin + more)
    return path


@pytest.mark.parametrize("items", ITEM_FORMS)
def test_every_name_is_refused_that_no_column_bears(tmp_path, items):
    for form in INTERACTION_FORMS if items == "csv" else ("csv",):
        folder = tmp_path / form
        folder.mkdir()
        assert custom.read(write(folder, form, items)).titles == ["Lamp 0", "Lamp 1"]
        for field in NAMES:
            write(folder, form, items, NAMES | {field: "nowhere"})
            with pytest.raises(UserError, match=f"'nowhere' .*Columns.{field}"):
                custom.read(folder)
        write(folder, form, items, more='Columns.attributes = ("brand", "brnd")\n')
        with pytest.raises(UserError, match="no column 'brnd' of Columns.attributes"):
            custom.read(folder)


@pytest.mark.parametrize("name", ["user_sequence.txt", "interactions.txt"])
def test_forms_without_columns_refuse_their_names(tmp_path, name):
    (tmp_path / name).write_text("u a b\n" if name == "user_sequence.txt" else "u a\nu b\n")
    for setting in ('user = "u"', 'item = "i"', 'timestamp = "when"', 'rating = "r"'):
        (tmp_path / "columns.gin").write_text(f"Columns.{setting}\n")
        with pytest.raises(UserError, match="this form of file has no columns; take it out"):
            custom.read(tmp_path)
    for setting in ('title = "t"', 'attributes = ("a",)', 'separator = "|"', 'id = "x"'):
        (tmp_path / "columns.gin").write_text(f"Columns.{setting}\n")
        with pytest.raises(UserError, match="the folder has no file of items; take it out"):
            custom.read(tmp_path)
    (tmp_path / "columns.gin").write_text('Columns.timestamp = "none"\n')
    assert custom.read(tmp_path).extras["untimed"]


def test_none_reads_no_column_and_a_second_setting_is_refused(tmp_path):
    write(tmp_path, names=NAMES | {"text": "none", "categories": "none", "rating": "none"})
    found = custom.read(tmp_path)
    assert found.texts[0] == "The item Lamp 0." and found.categories[0] == []
    (tmp_path / "columns.gin").write_text('Columns.user = "who"\nColumns.user = "what"\n')
    with pytest.raises(UserError, match="gin:2: user is set a second time"):
        custom.read(tmp_path)
    (tmp_path / "columns.gin").write_text('Keys.user = "who"\n')
    with pytest.raises(UserError, match="gin:1: "):
        custom.read(tmp_path)


def test_two_columns_that_may_both_be_meant_are_asked_about(tmp_path):
    (tmp_path / "interactions.csv").write_text("user_id,userId,item,timestamp\nu,v,a,1\n")
    with pytest.raises(UserError, match=r"columns \['user_id', 'userId'\] may each be the user"):
        custom.read(tmp_path)
    (tmp_path / "columns.gin").write_text('Columns.user = "userId"\n')
    assert custom.read(tmp_path).user_ids == ["v"]


@pytest.mark.parametrize("lost", ["nan", "None", "null", "<NA>"])
def test_a_lost_id_is_refused_and_a_lost_title_counted(tmp_path, lost):
    (tmp_path / "interactions.csv").write_text("user,item,timestamp\nu,i0,1\nu,i1,2\n")
    (tmp_path / "items.csv").write_text(f"id,title,genres\ni0,{lost},{lost}\ni1,A,x\n")
    found = custom.read(tmp_path)
    assert found.titles == ["i0", "A"] and found.categories == [[], ["x"]]
    assert f"1 of 2 items in items.csv are without 'title' (1 {lost})" in found.extras["notes"]
    (tmp_path / "items.csv").write_text(f"id,title\n{lost},B\n")
    with pytest.raises(UserError, match=f"items.csv:2: item id '{lost}' is no id"):
        custom.read(tmp_path)
    (tmp_path / "interactions.csv").write_text(f"user,item,timestamp\n{lost},i0,1\n")
    (tmp_path / "items.csv").unlink()
    with pytest.raises(UserError, match=f"interactions.csv:2: user '{lost}' is no id"):
        custom.read(tmp_path)


def test_a_null_time_is_refused_and_a_null_rating_counted(tmp_path):
    rows = [
        {"user": "u", "item": f"i{k}", "rating": None if k else 4.0, "timestamp": k}
        for k in range(3)
    ]
    table(tmp_path / "interactions.parquet", "parquet", rows)
    assert custom.read(tmp_path).extras["notes"] == [
        "2 of 3 ratings in interactions.parquet are empty"
    ]
    rows[1]["timestamp"] = None
    table(tmp_path / "interactions.parquet", "parquet", rows)
    with pytest.raises(UserError, match="parquet:2: timestamp 'null'"):
        custom.read(tmp_path)


HISTORIES = [
    ("x.inter", "user_id:token\titem_id_list:token_seq\titem_id:token\n", "u1\ta b\tc\n"),
    (
        "x.inter",
        "user_id:token\titem_id:token\trating_list:float_seq\ttimestamp:float\n",
        "u1\ta\t1 2\t3\n",
    ),
    ("interactions.csv", "user,item,item_seq,timestamp\n", "u,a,b c,1\n"),
]


@pytest.mark.parametrize(("name", "header", "row"), HISTORIES)
def test_rows_that_hold_histories_are_no_interactions(tmp_path, name, header, row):
    (tmp_path / name).write_text(header + row)
    for gin in ("", 'Columns.timestamp = "none"\n'):
        (tmp_path / "columns.gin").write_text(gin)
        with pytest.raises(UserError, match=f"{name}:1: .*holds whole histories.*user_sequence"):
            custom.read(tmp_path)


def test_amazon_2023_is_known_by_name(tmp_path):
    review = {
        "rating": 5.0,
        "title": "ok",
        "asin": "A",
        "parent_asin": "B",
        "user_id": "u",
        "timestamp": 1588615855070,
    }
    meta = {
        "main_category": "X",
        "title": "Mug",
        "description": ["Holds tea.", "Blue."],
        "parent_asin": "B",
        "categories": ["Home"],
        "price": None,
    }
    table(tmp_path / "X.jsonl", "jsonl", [review])
    table(tmp_path / "meta_X.jsonl", "jsonl", [meta])
    with pytest.raises(UserError, match="Amazon Reviews 2023: .*--dataset amazon2023/<cat"):
        amazon.read(tmp_path, "amazon/x")
    with pytest.raises(UserError, match="those of amazon2023/<category>"):
        custom.read(tmp_path)
    own = tmp_path / "own"
    own.mkdir()
    (own / "interactions.csv").write_text("user_id,parent_asin,rating,timestamp\nu,B,5.0,9\n")
    with pytest.raises(UserError, match="Amazon Reviews 2023: .*Columns.item = .parent_asin"):
        custom.read(own)
    table(own / "items.jsonl", "jsonl", [meta])
    with pytest.raises(UserError, match="Amazon Reviews 2023: .*Columns.id = .parent_asin"):
        custom.read(own)
    (own / "columns.gin").write_text('Columns.item = "parent_asin"\nid = "parent_asin"\n')
    found = custom.read(own)
    assert (found.titles, found.texts) == (["Mug"], ["Holds tea. Blue."])
    assert any("form of Amazon Reviews 2023" in note for note in found.extras["notes"])


def test_another_release_is_known_by_its_files_or_size(tmp_path, raw_files, monkeypatch):
    raw_files.older(tmp_path, "1m")
    with pytest.raises(UserError, match="ratings.dat and movies.dat are those of movielens/1m"):
        movielens.source_hashes("25m", tmp_path)
    (tmp_path / "ml-25m").mkdir()
    raw_files.csv(tmp_path / "ml-25m")
    with pytest.raises(UserError, match="they lie in its folder ml-25m"):
        movielens.source_hashes("25m", tmp_path)
    (tmp_path / "ml-1m.zip").write_bytes(b"PK\3\4")
    with pytest.raises(UserError, match="ml-1m.zip is a file: unpack it"):
        movielens.source_hashes("1m", tmp_path / "ml-1m.zip")
    monkeypatch.setitem(movielens._SIZES, 5, "MovieLens 20M")
    with pytest.raises(UserError, match="5 ratings are those of MovieLens 20M, not of"):
        movielens.read("1m", tmp_path)


@pytest.mark.parametrize("name", ["items.json", "items.csv.gz", "interactions.json"])
def test_a_file_of_a_known_name_and_an_unknown_form_is_not_overlooked(tmp_path, name):
    write(tmp_path).joinpath(name).write_bytes(b"x")
    with pytest.raises(UserError, match=f"{name}: of no form that is read"):
        custom.read(tmp_path)


def test_cells_are_set_apart_as_the_header_shows(tmp_path):
    for sign in ";\t|":
        text = "user,item,rating,timestamp\nu,a,4,1\nu,b,3,2\n".replace(",", sign)
        (tmp_path / "interactions.csv").write_text(text)
        found = custom.read(tmp_path)
        assert found.item_ids == ["a", "b"] and found.ratings.tolist() == [4, 3]
        assert found.extras["notes"] == [
            f"interactions.csv: cells are set apart by {sign!r}, as its header shows"
        ]


@pytest.mark.parametrize(
    ("cells", "titles"),
    [
        (['"A ""b"""', '"C\td"', '"E\nf"'], ['A "b"', "C d", "E f"]),  # as CSV writers quote
        (['A "b"', '"C" d', "E"], ['A "b"', '"C" d', "E"]),  # no quoting at all
        (['"A"', "B", "C"], ['"A"', "B", "C"]),  # a writer that quotes at need would not
    ],
)
def test_quotes_of_a_tab_separated_file_are_read_as_it_was_written(tmp_path, cells, titles):
    (tmp_path / "interactions.csv").write_text("user,item,timestamp\nu,i0,1\n")
    rows = "".join(f"i{k}\t{cell}\n" for k, cell in enumerate(cells))
    (tmp_path / "items.tsv").write_text("id\ttitle\n" + rows)
    assert custom.read(tmp_path).titles == titles


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (r'"u\ud83d"', r"the escape \\ud83d is half a character"),
        (r'"\ud83d\ude00tf-8"', r"the escape \\ud83d is half a character"),
        (r'"\x00"', "a NUL character"),
        (r'"\0"', "a NUL character"),
        ("b'utf-8'", "quote strings"),
        ("0x" + "f" * 6000, "quote strings"),
        ("{'utf-8'}", "quote strings"),
    ],
    ids=lambda value: value[:20],
)
@pytest.mark.parametrize("name", ["encoding", "user", "core"])
def test_a_setting_that_no_text_holds_is_refused_by_its_line(tmp_path, name, value, said):
    (tmp_path / "interactions.csv").write_text("user,item,timestamp\nu,a,1\n")
    (tmp_path / "columns.gin").write_text(f"# names\nColumns.{name} = {value}\n")
    with pytest.raises(UserError, match=f"columns.gin:2: .*{said}"):
        custom.read(tmp_path)
