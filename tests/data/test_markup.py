"""Pages' scripts, styles and tags never become titles or texts; what only looks like them stays."""

import gzip
import json

import pytest

from ilm_jax.data.formats import markup
from ilm_jax.data.sources import amazon, custom, regen

SCRIPT = "var tStart = new Date().getTime();\nwindow.on && window.on('load', function(){ue('x');});"
STYLE = ".box-inner{background-color:#fff}#buyWidget .chosen{color:#555}.x{margin:1em}"
GONE = [
    SCRIPT,
    STYLE,
    f"<script>{SCRIPT}</script>",
    f"<style>{STYLE}</style>",
    "</span></span>",
    "amznJQ.onReady('x', function() {});",
    "$(document).ready(function() { x(); })",
    "if (window.ue) { ue('x'); }",
    "<script>var cut = 1; off",
    "// <![CDATA[\nfoo();\n// ]]>",
    "@media (max-width: 9px) { .a { b: c } }",
    "<!-- made by hand -->",
    "<img src='a.png'>",
]
SHOWN = {
    "Soap &amp; <b>Water</b>": "Soap & Water",
    '<span id="box" style="display:none">.a-row{margin:0}</span>Lamp': "Lamp",
    "Kettle<script>var x = 1;</script>": "Kettle",
    "&lt;b&gt;Bold&lt;/b&gt; &quot;One&quot;": 'Bold "One"',
    f"Steel.\n{SCRIPT}\nHolds tea.": "Steel. Holds tea.",
    "a<br>b<br/>c <a href=x>d": "a b c d",
    "Lamp &#233;t&eacute;": "Lamp été",
}
KEPT = [
    "A < B",
    "I <3 NY",
    "Level <Up>",
    "Game <Map> & more",
    "Vitamin <B>",
    "AT&T",
    "R&B &notes",
    "JavaScript: The Definitive Guide",
    "Learn function() in C",
    "Window. A novel (Part 2);",
    "{Blue: The Colour}",
    "Sub {size: M}",
    "<3 < 5 > 2",
    "x <y> z",
    "C# && F#: a guide",
    "Documents [Blu-ray]",
    "$5.00 - $9.99",
    "Return of the King;",
    "5 > 3 && 2 < 4",
]


@pytest.mark.parametrize("text", GONE, ids=range(len(GONE)))
def test_nothing_is_left_of_code_and_tags(text):
    assert markup.plain(text) == ""


@pytest.mark.parametrize("text", SHOWN)
def test_what_a_reader_sees_is_left(text):
    assert markup.plain(text) == SHOWN[text]


@pytest.mark.parametrize("text", KEPT)
def test_what_only_looks_like_markup_stays(text):
    assert markup.plain(text) == text


def test_an_amazon_item_whose_title_is_a_script_has_none(tmp_path):
    meta = [
        {"asin": "A0", "title": SCRIPT, "price": STYLE, "brand": "Acme", "description": [STYLE]},
        {"asin": "A1", "title": "Rug", "price": "$1,299.00", "description": ["Nice.", SCRIPT]},
        {
            "asin": "A2",
            "title": "None",
            "price": "—",
            "brand": "<i>By</i> B",
            "category": ["Home", "</span>", f"<style>{STYLE}</style>Kitchen &amp; Dining"],
        },
    ]
    rows = [
        {"reviewerID": f"U{u}", "asin": f"A{k}", "overall": 5.0, "unixReviewTime": 9 + k}
        for u in range(5)
        for k in range(3)
    ]
    for name, records in (("X", rows), ("meta_X", meta)):
        content = "".join(json.dumps(record) + "\n" for record in records).encode()
        (tmp_path / f"{name}.json.gz").write_bytes(gzip.compress(content))
    found = amazon.read(tmp_path, "amazon/x", core=1)
    assert found.titles == ["A0", "Rug", "A2"]
    assert found.texts == [
        "The item A0; its brand is Acme.",
        "Nice.",
        "The item A2 belongs to Home, Kitchen & Dining; its brand is By B.",
    ]
    assert sorted(
        note.split(" have")[0] + note[note.index(" as ") : note.rindex(",")]
        for note in found.extras["notes"]
    ) == [
        "1 of 3 items in meta_X.json.gz as description",
        "2 of 3 items in meta_X.json.gz as price",
        "2 of 3 items in meta_X.json.gz as title",
    ]


def test_regens_items_are_plain_and_a_key_that_is_nowhere_is_refused(tmp_path):
    item = {"asin": "B1", "title": SCRIPT, "category": "A &amp; B - C", "price": "9"}
    line = {"reviewer_id": "R", "purchase_history": [{"item": item, "review": {"unix_time": 1}}]}
    (tmp_path / "office.jsonl").write_text(json.dumps(line) + "\n")
    found = regen.read(tmp_path, "regen/office")
    assert found.titles == ["B1"] and found.categories == [["A & B", "C"]]
    assert found.extras["notes"] == ["1 of 1 items have no title but their ids"]
    for name in ("title", "category", "price", "rating", "critique"):
        (tmp_path / "keys.gin").write_text(f'Keys.{name} = "nowhere"\n')
        with pytest.raises(regen.UserError, match=f"key 'nowhere' .{name}. is nowhere"):
            regen.read(tmp_path, "regen/office")


def test_ones_own_markup_is_kept_and_counted_until_it_is_to_go(tmp_path):
    (tmp_path / "interactions.csv").write_text("user,item,timestamp\nu,i0,1\nu,i1,2\n")
    rows = [{"id": "i0", "title": "<b>A</b> &amp; B"}, {"id": "i1", "title": SCRIPT}]
    (tmp_path / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = custom.read(tmp_path)
    assert found.titles == ["<b>A</b> &amp; B", " ".join(SCRIPT.split())]
    assert "2 cells of items.jsonl hold a page's markup (line 1: " in found.extras["notes"][0]
    assert "is kept as written" in found.extras["notes"][0]
    (tmp_path / "columns.gin").write_text('Columns.markup = "remove"\n')
    assert custom.read(tmp_path).titles == ["A & B", "i1"]
