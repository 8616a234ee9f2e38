"""Several categories in one cell, in every spelling that people's files have."""

import json

import pytest

from ilm_jax.data.formats import lists
from ilm_jax.data.sources import custom
from ilm_jax.errors import UserError

INTER = "user_id:token\titem_id:token\ttimestamp:float\n" + "".join(
    f"u\ti{k}\t{k}\n" for k in range(3)
)
TOYS, ARTS, HOME = "Toys & Games", "Arts & Crafts", "Home"
WANTED = [[TOYS, ARTS], [HOME], []]
SPELLED = {
    "quoted": f"'{TOYS}', '{ARTS}'",
    "double": f'"{TOYS}", "{ARTS}"',
    "list": f"['{TOYS}', \"{ARTS}\"]",
    "numpy": f"['{TOYS}' '{ARTS}']",
    "comma": f"{TOYS}, {ARTS}",
    "bar": f"{TOYS}|{ARTS}",
    "bar and spaces": f"{TOYS} | {ARTS}",
    "semicolon": f"{TOYS};{ARTS}",
}
ONE = {"quoted": f"'{HOME}'", "double": f'"{HOME}"', "list": f"['{HOME}']", "numpy": f"['{HOME}']"}


def write(path, spelling, form, gin=""):
    cells = [SPELLED[spelling], ONE.get(spelling, HOME), ""]
    (path / "x.inter").write_text(INTER)
    if form == "item":
        rows = ["item_id:token\ttitle:token_seq\tcategories:token_seq"]
        rows += [f"i{k}\tName {k}\t{cell}" for k, cell in enumerate(cells)]
        (path / "x.item").write_text("".join(row + "\n" for row in rows))
    elif form == "jsonl":
        rows = [json.dumps({"id": f"i{k}", "genres": cell}) for k, cell in enumerate(cells)]
        (path / "items.jsonl").write_text("".join(row + "\n" for row in rows))
    else:
        separator = "\t" if form == "tsv" else ","
        quoted = [cell.replace('"', '""') for cell in cells]
        rows = [separator.join(("id", "genres"))]
        rows += [f'i{k}{separator}"{cell}"' for k, cell in enumerate(quoted)]
        (path / f"items.{form}").write_text("".join(row + "\n" for row in rows))
    if gin:
        (path / "columns.gin").write_text(f"Columns.separator = {gin!r}\n")
    return path


@pytest.mark.parametrize("spelling", SPELLED)
def test_recboles_sequences_are_cut_where_the_file_shows_it(tmp_path, spelling):
    assert custom.read(write(tmp_path, spelling, "item")).categories == WANTED


@pytest.mark.parametrize("form", ["csv", "jsonl"])
@pytest.mark.parametrize("spelling", ["quoted", "double", "list", "numpy", "bar"])
def test_lists_in_quotes_and_bars_are_cut_in_every_form(tmp_path, spelling, form):
    assert custom.read(write(tmp_path, spelling, form)).categories == WANTED


@pytest.mark.parametrize("form", ["item", "csv", "jsonl"])
@pytest.mark.parametrize(
    ("spelling", "gin"), [("comma", ", "), ("bar", "|"), ("semicolon", ";"), ("comma", ",")]
)
def test_the_setting_is_obeyed_in_every_form(tmp_path, spelling, gin, form):
    found = custom.read(write(tmp_path, spelling, form, gin))
    assert (
        found.categories == WANTED
        and "notes" not in found.extras
        or all("genres" in note or "categories" in note for note in found.extras["notes"])
    )


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_a_comma_that_may_belong_to_the_name_is_kept_and_said(tmp_path, form):
    found = custom.read(write(tmp_path, "comma", form))
    assert found.categories[0] == [f"{TOYS}, {ARTS}"]
    assert any(
        "1 of 2 genres hold ',' and are taken whole" in note for note in found.extras["notes"]
    )


def test_spaces_cut_words_and_leave_names_with_signs_alone(tmp_path):
    rows = ["item_id:token\tclass:token_seq", "i0\tDrama War", "i1\tComedy", "i2\t"]
    (tmp_path / "x.inter").write_text(INTER)
    (tmp_path / "x.item").write_text("".join(row + "\n" for row in rows))
    found = custom.read(tmp_path)
    assert found.categories == [["Drama", "War"], ["Comedy"], []]
    assert any("cut at spaces" in note for note in found.extras["notes"])
    rows[1] = "i0\tHome & Kitchen"
    (tmp_path / "x.item").write_text("".join(row + "\n" for row in rows))
    found = custom.read(tmp_path)
    assert found.categories[0] == ["Home & Kitchen"]
    assert any("taken whole" in note for note in found.extras["notes"])
    (tmp_path / "columns.gin").write_text('Columns.separator = " "\n')
    assert custom.read(tmp_path).categories[0] == ["Home", "&", "Kitchen"]


def test_a_setting_without_use_and_cells_of_two_forms_are_refused(tmp_path):
    write(tmp_path, "quoted", "item", "|")
    with pytest.raises(UserError, match=r"item:2: .*is a list in quotes, and Columns.separator"):
        custom.read(tmp_path)
    (tmp_path / "columns.gin").unlink()
    (tmp_path / "x.item").write_text("item_id:token\tclass:token_seq\ni0\t'A', 'B'\ni1\tC\n")
    with pytest.raises(UserError, match=r"item:3: .*'C' is no list in quotes, others are"):
        custom.read(tmp_path)
    (tmp_path / "x.item").unlink()
    rows = [json.dumps({"id": f"i{k}", "genres": ["A", "B"]}) + "\n" for k in range(3)]
    (tmp_path / "items.jsonl").write_text("".join(rows))
    (tmp_path / "columns.gin").write_text('Columns.separator = "|"\n')
    with pytest.raises(UserError, match="are lists already"):
        custom.read(tmp_path)
    (tmp_path / "items.jsonl").write_text('{"id": "i0", "genres": "[{\'id\': 1}]"}\n')
    with pytest.raises(UserError, match="a list of objects"):
        custom.read(tmp_path)


def test_lists_of_a_parquet_file_are_read(tmp_path):
    pyarrow, parquet = map(pytest.importorskip, ("pyarrow", "pyarrow.parquet"))
    (tmp_path / "x.inter").write_text(INTER)
    table = pyarrow.table(
        {
            "id": ["i0", "i1", "i2"],
            "title": ["A", None, "C"],
            "genres": [[TOYS, ARTS], [HOME], []],
            "description": [["Holds tea.", "Blue."], [], None],
        }
    )
    parquet.write_table(table, tmp_path / "items.parquet")
    found = custom.read(tmp_path)
    assert found.categories == WANTED and found.titles == ["A", "i1", "C"]
    assert found.texts[0] == "Holds tea. Blue."
    assert "1 of 3 items in items.parquet are without 'title' (1 null)" in found.extras["notes"]


@pytest.mark.parametrize(
    ("cell", "wanted"),
    [
        (json.dumps(["😀", "b"]), ["😀", "b"]),
        (repr(["😀", "b"]), ["😀", "b"]),
        ("['\\ud83d\\ude00']", ["😀"]),  # a narrow build of Python 2
        ('["A\\/B", "R&B"]', ["A/B", "R&B"]),  # PHP
        ("['A\\/B']", ["A\\/B"]),
        ('["it\'s \\\\ \\"x\\"", "\\x41"]', ['it\'s \\ "x"', "A"]),
        ('["a\nb"]', ["a\nb"]),
    ],
)
def test_strings_of_a_list_are_read_as_json_or_python_spells_them(cell, wanted):
    assert lists.literal_list(cell) == wanted


@pytest.mark.parametrize("cell", [r"['\ud83d']", r'["\ude00"]', r"['a\x00b']", r'["\u0000"]'])
def test_a_list_of_what_no_text_holds_stays_as_it_is_written(tmp_path, cell):
    assert lists.literal_list(cell) is None
    (tmp_path / "x.inter").write_text(INTER)
    rows = ["item_id:token\ttitle:token\tclass:token", *(f"i{k}\t{cell}\t{cell}" for k in range(3))]
    (tmp_path / "x.item").write_text("".join(row + "\n" for row in rows))
    found = custom.read(tmp_path)
    assert found.titles[0] == cell and found.categories[0] == [cell]


@pytest.mark.parametrize("cell", ["", "A", "A, B", "'A", "'A' B", "[1408]", "[REC]", "'A' 'B'"])
def test_what_is_no_list_is_left_alone(cell):
    assert lists.literal_list(cell) is None
