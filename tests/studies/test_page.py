"""The page of the study: made of the receipts, whole by itself, true to its figures."""

import html.parser
import re
import xml.etree.ElementTree as ET

import pytest

from ilm_jax.errors import UserError
from ilm_jax.metrics.intervals import Interval

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


def test_the_committed_page_is_of_todays_receipts_and_words(script):
    page = script("page")
    text = page.OUTPUT.read_text(encoding="utf-8")
    assert f'content="{page.made_from()}"' in text, "run python studies/page.py"


def test_the_page_is_whole_by_itself_and_has_every_study(script):
    pytest.importorskip("markdown")
    page = script("page")
    text = page.page()
    checked = Balance()
    checked.feed(text)
    assert not checked.open and not checked.wrong
    assert not re.search(r"<script|<link|src=|url\(|@import", text)
    found = re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL)
    assert all(ET.fromstring(svg).get("viewBox") for svg in found)
    sections = re.findall(r'<section id="(\w+)">', text)
    assert sections == ["claims", "texts", "losses", "curves", "lists", "map", "again"]
    assert text.count("<svg") == len(found) == 2 + 1 + 1 + 1 + 1 + 3
    sections = page.page_sections
    cells = sections._kept(page.receipts.FOLDER / "few_texts", "all_ilm-frozen")
    mean = sections.few_texts_report.pooled(cells).mean
    assert len(cells) >= 3 and f"after stage 1: {mean:.3f} [" in text
    assert "](" not in text and "**" not in text


def test_a_study_without_receipts_is_left_out(script, tmp_path):
    pytest.importorskip("markdown")
    page = script("page")
    made = page.page(tmp_path)
    assert re.findall(r'<section id="(\w+)">', made) == ["claims", "again"]
    (tmp_path / "few_texts").mkdir()
    (tmp_path / "few_texts/toy_seed0_50_ilm.json").write_text("{}")
    with pytest.raises(UserError, match="toy_seed0_50_ilm.json is no receipt"):
        page.write(tmp_path / "page.html", tmp_path)
    assert not (tmp_path / "page.html").exists()


def places(svg, kind="circle"):
    return [node.attrib for node in ET.fromstring(svg.partition("</svg>")[0] + "</svg>").iter(kind)]


def test_higher_values_stand_higher_and_later_ones_further_right(script):
    charts = script("charts")
    line = charts.Line("a & b", 1, [(0.0, 1.0), (1.0, 3.0), (3.0, 2.0)], [(0.5, 1.5)] * 3)
    svg = charts.lines([line], height=200, across="x", up="<y>")
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
    svg = charts.forest(spans, across="nats")
    (zero,) = [float(at["x1"]) for at in places(svg, "line") if at["class"] == "zero"]
    helps, undecided = ((float(a["x1"]), float(a["x2"])) for a in places(svg, "line")[1:])
    assert helps[0] < helps[1] < zero and undecided[0] < zero < undecided[1]
    assert (zero - undecided[0]) == pytest.approx(zero - helps[1], abs=0.11)
    assert "&lt;undecided&gt;" in svg and "helps: -0.200 [-0.300, -0.100]" in svg


def test_ticks_are_round_and_few(script):
    charts = script("charts")
    assert charts._round(0.0, 1.0) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8])
    assert charts._round(1.61, 2.04) == pytest.approx([1.7, 1.8, 1.9, 2.0])
    for low, high in ((-0.03, 0.002), (3.0, 3000.0), (-7.0, -6.9)):
        found = charts._round(low, high)
        assert 2 <= len(found) <= 7 and all(low <= tick <= high for tick in found)
