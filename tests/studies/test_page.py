"""The page of the study: made of the receipts, whole by itself, true to its figures."""

import html.parser
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from ilm_jax.errors import UserError
from ilm_jax.metrics.intervals import Interval
from ilm_jax.metrics.values import MetricValues

VOID = {"meta", "link", "br", "hr", "img", "circle", "line", "polyline"}


class Balance(html.parser.HTMLParser):
    """Open tags, and what was wrong."""

    def __init__(self):
        super().__init__()
        self.open, self.wrong = [], []

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID and (not self.open or self.open.pop() != tag):
            self.wrong.append((tag, self.getpos()))


def interval(low, mean, high):
    return Interval(mean, low, high, 0.95, 10, "t")


def without_claims(text):
    """The page but for what another version of the package markdown may write otherwise."""
    before, _, rest = text.partition('<section id="claims">')
    return before + rest.partition("</section>")[2]


def test_the_committed_page_is_of_todays_receipts_and_words(script):
    page = script("page")
    text = page.OUTPUT.read_text(encoding="utf-8")
    assert f'content="{page.made_from()}"' in text, "run python studies/page.py"
    pytest.importorskip("markdown")
    assert without_claims(text) == without_claims(page.page()), "run python studies/page.py"


def test_the_page_is_whole_by_itself_and_has_every_study(script):
    pytest.importorskip("markdown")
    page = script("page")
    text = page.page()
    checked = Balance()
    checked.feed(text)
    assert not checked.open and not checked.wrong
    assert not re.search(r"<script|<link|src=|url\(|@import", text)
    found = [ET.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL)]
    assert all(svg.get("viewBox") and svg.get("aria-label") for svg in found)
    sections = re.findall(r'<section id="(\w+)">', text)
    assert sections == [
        "claims",
        "real",
        "kept",
        "texts",
        "losses",
        "tasks",
        "settings",
        "curves",
        "lists",
        "map",
        "again",
    ]
    assert text.count("<svg") == len(found) == 1 + 2 + 1 + 1 + 2 + 1 + 1 + 3
    parts = page.page_parts
    cells = parts.column(parts.worlds_of(page.receipts.FOLDER / "few_texts"), "all_ilm-frozen")
    mean = page.page_sections.few_texts_report.pooled(cells).mean
    assert len(cells) >= 3 and f"after stage 1: {mean:.3f} [" in text
    assert "](" not in text and "**" not in text and "= nan" not in text


ROWS = ("ilm-rand", "ilm", "ilm-rand-frozen", "ilm-frozen")


@pytest.fixture
def kept(script, tmp_path):
    """Writes receipts of few texts into a folder of its own."""
    receipts = script("receipts")

    def write(*names):
        for name in names:
            rng = np.random.default_rng(len(name))
            values = MetricValues(
                "nll_content", "items", np.arange(30), rng.normal(9, 1, 30), np.full(30, 5.0), False
            )
            made = receipts.Receipt(name, {}, "", 60.0, [(20, 1.0)], {"nll_content": values})
            receipts.write(tmp_path / "few_texts", made)
        return tmp_path

    return write


def test_a_study_without_receipts_is_left_out(script, kept, tmp_path):
    pytest.importorskip("markdown")
    page = script("page")
    made = page.page(tmp_path)
    assert re.findall(r'<section id="(\w+)">', made) == ["claims", "again"]
    # A smoke: one world, one number of texts, one validation.
    made = page.page(kept(*(f"toy_seed0_8_{row}" for row in ROWS)))
    assert re.findall(r'<section id="(\w+)">', made) == ["claims", "texts", "curves", "again"]
    assert "4 rows of the first two studies have receipts; they took 0.1 hours" in made


def test_worlds_that_lack_a_row_are_left_out_and_counted(script, kept, tmp_path):
    sections = script("page_sections")
    kept(*(f"toy_seed0_{count}_{row}" for count in (50, "all") for row in ROWS))
    kept(*(f"toy_world7_seed7_{count}_{row}" for count in (50, "all") for row in ROWS))
    assert "each with a seed of its own: 2." in sections.texts_section(tmp_path)
    (tmp_path / "few_texts/toy_world7_seed7_50_ilm.json").unlink()
    assert "of its own: 1 with 50, 2 with all." in sections.texts_section(tmp_path)


def test_what_is_no_receipt_is_named_and_no_page_written(script, tmp_path, capsys):
    page = script("page")
    (tmp_path / "few_texts").mkdir()
    (tmp_path / "few_texts/toy_seed0_50_ilm.json").write_text("{}")
    with pytest.raises(UserError, match="toy_seed0_50_ilm.json is no receipt"):
        page.write(tmp_path / "page.html", tmp_path)
    (tmp_path / "few_texts/toy_seed0_50_ilm.json").unlink()
    (tmp_path / "item_map").mkdir()
    (tmp_path / "item_map/x.json").write_text('{"a":')
    with pytest.raises(UserError, match="x.json is no map of items"):
        page.write(tmp_path / "page.html", tmp_path)
    assert not (tmp_path / "page.html").exists()


def places(svg, kind="circle"):
    return [node.attrib for node in ET.fromstring(svg.partition("</svg>")[0] + "</svg>").iter(kind)]


def test_higher_values_stand_higher_and_later_ones_further_right(script):
    charts = script("charts")
    line = charts.Line("a & b", 1, [(0.0, 1.0), (1.0, 3.0), (3.0, 2.0)], [(0.5, 1.5)] * 3)
    svg = charts.lines([line], height=200, across="x", up="<y>", label="a line")
    dots = places(svg)
    assert [float(dot["cx"]) for dot in dots] == sorted(float(dot["cx"]) for dot in dots)
    heights = [float(dot["cy"]) for dot in dots]
    assert heights[0] > heights[2] > heights[1]
    assert abs((heights[0] - heights[2]) - (heights[2] - heights[1])) < 0.11
    assert "a &amp; b: 1.000 [0.500, 1.500]" in svg and "&lt;y&gt;" in svg


def test_a_forest_has_its_line_at_zero_and_its_ends_where_they_are(script):
    charts = script("charts")
    spans = [
        charts.Span("helps", interval(-0.3, -0.2, -0.1), 0),
        charts.Span("<undecided>", interval(-0.1, 0.05, 0.2), 1, bold=True),
    ]
    svg = charts.forest(spans, across="nats", label="both")
    (zero,) = [float(at["x1"]) for at in places(svg, "line") if at["class"] == "zero"]
    helps, undecided = ((float(a["x1"]), float(a["x2"])) for a in places(svg, "line")[1:])
    assert helps[0] < helps[1] < zero and undecided[0] < zero < undecided[1]
    assert (zero - undecided[0]) == pytest.approx(zero - helps[1], abs=0.11)
    assert "&lt;undecided&gt;" in svg and "helps: -0.200 [-0.300, -0.100]" in svg


def test_ticks_are_round_and_few(script):
    charts = script("charts")
    assert charts._round(2.0, 2.0) == [2.0]
    assert charts._round(0.0, 1.0) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8])
    assert charts._round(1.61, 2.04) == pytest.approx([1.7, 1.8, 1.9, 2.0])
    for low, high in ((-0.03, 0.002), (3.0, 3000.0), (-7.0, -6.9)):
        found = charts._round(low, high)
        assert 2 <= len(found) <= 7 and all(low <= tick <= high for tick in found)


def test_a_map_keeps_its_shape(script):
    """Both axes have one scale, so that near things stand near."""
    charts = script("charts")
    points = {"a": [(0.0, 0.0, "one"), (10.0, 0.0, "two"), (0.0, 1.0, "three")]}
    dots = places(charts.scatter(points, height=300, label="map"))
    x, y = ([float(dot[name]) for dot in dots] for name in ("cx", "cy"))
    assert (x[1] - x[0]) / (y[0] - y[2]) == pytest.approx(10, rel=0.01)
