"""The study as one page that needs nothing else: claims, charts of all receipts, a map of items.

    python studies/page.py [--output docs/study.html]

Verdicts and words are those of docs/claims.md; charts, tables and tests are made of the receipts in
studies/receipts, without training anything. The page loads nothing, follows the reader's choice of
light or dark, and is legible on a phone. Needs the package markdown (`pip install -e '.[docs]'`).
"""

import argparse
import html
import json
import pathlib
import re
import sys
from collections.abc import Sequence

import charts
import few_texts
import few_texts_report
import losses
import receipts
from charts import Line, Span

from ilm_jax.errors import UserError
from ilm_jax.files import atomic_write, sha256_json, trouble
from ilm_jax.metrics.intervals import Comparison, Interval, compare, mean_interval

ROOT = pathlib.Path(__file__).parent.parent
CLAIMS, OUTPUT = ROOT / "docs/claims.md", ROOT / "docs/study.html"
STYLE = pathlib.Path(__file__).with_name("page.css")
ITEM_MAP, LADDER = receipts.FOLDER / "item_map.json", receipts.FOLDER / "ladder"
# Rows of a ladder that are a language model's.
OURS = ("frozen decoder", "frozen, 3,000 steps", "never trained")
# Toy worlds, each with a seed of its own.
PLACES = (
    "toy_seed0",
    "toy_world1_seed1",
    "toy_world2_seed2",
    "toy_world3_seed3",
    "toy_world4_seed4",
)
COLOURS = {"ilm-rand": 1, "ilm": 0, "ilm-rand-frozen": 1, "ilm-frozen": 0}
NAMES = {"ilm-rand": "without stage 1", "ilm": "after stage 1"}
VIEWS = {
    "vectors": "The vectors themselves",
    "untrained": "An untrained Q-Former",
    "stage 1": "After stage 1",
}


def page() -> str:
    """The whole page.

    Raises:
      UserError: if a receipt is damaged, or the package markdown is not installed.
    """
    sections = [
        ("claims", "What holds", _claims()),
        ("texts", "Where stage 1 pays", _few_texts()),
        ("losses", "Which of its losses pay", _losses()),
        ("curves", "How rows learn", _curves()),
        ("lists", "What it recommends", _ladder()),
        ("map", "What the Q-Former makes of items", _item_map()),
        ("again", "Making it again", _again()),
    ]
    menu = " ".join(f'<a href="#{name}">{title}</a>' for name, title, body in sections if body)
    body = "\n".join(
        f'<section id="{name}"><h2>{title}</h2>\n{body}</section>'
        for name, title, body in sections
        if body
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="made-from" content="{made_from()}">
<title>Item-language models, measured</title>
<style>
{STYLE.read_text(encoding="utf-8")}</style>
</head>
<body>
<header>
<h1>Item-language models, measured</h1>
<p>A Q-Former turns collaborative-filtering vectors into soft tokens that a frozen language model
reads. What holds of the Item-Language Model's claims (Yang et al. 2024) on small worlds and small
models that anybody can train again: paired tests, 95 % intervals, and the command behind each.</p>
<nav>{menu}</nav>
</header>
<main>
{body}
</main>
</body>
</html>
"""


def made_from() -> str:
    """Digest of all that the page is made of."""
    code = [pathlib.Path(__file__), STYLE, STYLE.with_name("charts.py")]
    files = [CLAIMS, *code, *sorted(receipts.FOLDER.rglob("*.json"))]
    return sha256_json([file.read_text(encoding="utf-8") for file in files])[:16]


def _claims() -> str:
    """docs/claims.md without its title, links to other pages as words."""
    try:
        import markdown
    except ImportError as error:
        raise UserError("the page needs the package markdown: pip install -e '.[docs]'") from error
    text = CLAIMS.read_text(encoding="utf-8").partition("\n")[2]
    text = re.sub(r"^(#+) ", r"#\1 ", text, flags=re.MULTILINE)
    text = re.sub(r"\[([^]]*)\]\((?!https?:)[^)]*\)", r"\1", text)
    made = markdown.markdown(text, extensions=["tables"])
    for word in ("confirmed", "refuted"):
        made = made.replace(f"<strong>{word}</strong>", f'<strong class="{word}">{word}</strong>')
    return _scrolling(made)


def _few_texts() -> str:
    found: dict[tuple[int, str], list[receipts.Receipt]] = {}
    for count in few_texts.TEXTS:
        cells = {row: _kept("few_texts", f"{count or 'all'}_{row}") for row in few_texts.ROWS}
        if all(cells.values()):
            found.update({(count, row): kept for row, kept in cells.items()})
    if not found:
        return ""
    counts = list(dict.fromkeys(count for count, _ in found))
    parts = [
        "<p>Stage 1 read the texts of all training items; stage 2 reads so many of them. What the "
        "language model lacks of held-out items' own words, in nats per content token, on "
        f"{len(found[counts[0], 'ilm'])} toy worlds: lower is better. With the Q-Former frozen in "
        "stage 2, all that it knows of texts is stage 1's.</p>"
    ]
    ticks = {float(n): str(count or "all") for n, count in enumerate(counts)}
    for frozen, title in ((True, "Q-Former frozen in stage 2"), (False, "Q-Former trained")):
        rows = [row for row, (_, is_frozen) in few_texts.ROWS.items() if is_frozen == frozen]
        drawn = [_line(found, row, counts) for row in reversed(rows)]
        chart = charts.lines(
            drawn, height=230, across="texts that stage 2 reads", up="nats", ticks=ticks
        )
        parts.append(_figure(title, chart))
    tested = [
        (f"{count or 'all'}, {'frozen' if 'frozen' in test.first else 'trained'}", test)
        for count, test in few_texts_report.tests(found)
    ]
    chart = charts.forest(
        [Span(name, _interval(t), 0) for name, t in tested], across="stage 1 less none, nats"
    )
    parts.append(_figure("What stage 1 changes, paired text by text (left of 0: it helps)", chart))
    parts.append(_tests("texts, Q-Former", tested))
    return "\n".join(parts)


def _line(found: few_texts_report.Found, row: str, counts: Sequence[int]) -> Line:
    cells = [few_texts_report.pooled(found[count, row]) for count in counts]
    points = [(float(n), cell.mean) for n, cell in enumerate(cells)]
    reach = [(cell.low, cell.high) for cell in cells]
    return Line(NAMES[few_texts.ROWS[row][0]], COLOURS[row], points, reach)


def _losses() -> str:
    rows = {name: _kept("losses", f"frozen-{name}") for name in losses.STAGE_ONE}
    if not all(rows.values()):
        return ""
    worlds = min(map(len, rows.values()))
    spans, tested = [], []
    for number, name in enumerate(losses.STAGE_ONE):
        if name == "text":
            continue
        for world in range(worlds):
            pair = rows[name][world : world + 1], rows["text"][world : world + 1]
            one = receipts.compare_rows(name, pair[0], "text", pair[1], losses.METRIC)
            spans.append(Span(f"world {world}", _interval(one), number))
        pair = rows[name][:worlds], rows["text"][:worlds]
        every = receipts.compare_rows(name, pair[0], "text", pair[1], losses.METRIC)
        spans.append(Span(name, _interval(every), number, bold=True))
        tested.append((f"{name} (over worlds p = {losses.over_worlds(*pair):.2g})", every))
    return "\n".join(
        [
            "<p>Stage 1 with item-text losses alone (<code>text</code>), with item-item or "
            "user-item losses beside them, with both (<code>all</code>), and with as many steps of "
            "item-text losses as <code>all</code> takes altogether (<code>text-longer</code>). "
            "Behind each, stage 2 with the Q-Former frozen.</p>",
            _figure(
                "Nats per content token less those of item-text losses alone (left of 0: better)",
                charts.forest(spans, across="less text, nats"),
            ),
            _tests("losses", tested),
        ]
    )


def _curves() -> str:
    """Validation loss of the first world's rows of all texts."""
    found = [
        Line(f"{NAMES[plain]}{', frozen' if frozen else ''}", number, cells[0].curve)
        for number, (row, (plain, frozen)) in enumerate(few_texts.ROWS.items())
        if (cells := _kept("few_texts", f"all_{row}"))
    ]
    if not found:
        return ""
    chart = charts.lines(found, height=240, across="step of stage 2", up="validation nll, nats")
    return _figure("Validation, world 0, all texts, each row at its own best rate", chart)


def _ladder() -> str:
    """NDCG@10 of every row that was measured on one dataset's users, and each against the best."""
    found = [receipts.read(path.parent, path.stem) for path in sorted(LADDER.glob("*.json"))]
    rows = sorted((row for row in found if row is not None), key=lambda row: row.mean("ndcg@10"))
    if not rows:
        return ""
    gains = {row.made_from["row"]: row.metrics["ndcg@10"].values for row in rows}
    spans = [
        Span(name, mean_interval(gain), int(name in OURS), bold=name in OURS)
        for name, gain in reversed(gains.items())
    ]
    tested = [
        (f"{ours} less {other}", compare(ours, gains[ours], other, gain))
        for ours in OURS
        for other, gain in reversed(gains.items())
        if ours in gains and other not in OURS and "SASRec" in other
    ]
    users = len(rows[0].metrics["ndcg@10"].values)
    return "\n".join(
        [
            f"<p>MovieLens 1M, {users:,} users, leave-one-out, every item a candidate, what a user "
            "has seen left out. iALS, SASRec of 8 epochs and the frozen decoder are means of three "
            "seeds, user by user; the others are one. An item head reads the states of a small "
            "frozen decoder, after 1,500 steps and after 3,000; behind one that was never trained "
            "it does as well, so that it is not language that recommends.</p>",
            _figure("NDCG@10, 95 % over users", charts.forest(spans, across="", signed=False)),
            _tests("rows", tested, of="difference of NDCG@10"),
        ]
    )


def _item_map() -> str:
    if not ITEM_MAP.exists():
        return ""
    record = json.loads(ITEM_MAP.read_text(encoding="utf-8"))
    parts = [
        f"<p>{record['items']:,} items of {html.escape(record['dataset'])} ("
        f"{len(record['titles'])} of them drawn), coloured by first category. <em>Alike</em>: the "
        "share of an item's ten nearest neighbours that have its first category; of any two items "
        f"it is {record['by_chance']:.2f}. <em>Directions</em>: how many the outputs spread "
        "over (participation ratio).</p>"
    ]
    for view, title in VIEWS.items():
        found = record["views"][view]
        groups: dict[str, list[tuple[float, float, str]]] = {c: [] for c in record["categories"]}
        places = zip(found["places"], record["category"], record["titles"], strict=True)
        for (x, y), category, name in places:
            groups[record["categories"][category]].append((x, y, name))
        said = f"{title}: alike {found['alike']:.2f}, directions {found['directions']:.1f}"
        parts.append(_figure(said, charts.scatter(groups, height=300, label=said)))
    return "\n".join(parts)


def _again() -> str:
    commands = (
        "bash launch/setup.sh",
        "python studies/reproduce.py few_texts --plan",
        "python studies/reproduce.py few_texts",
        "python studies/losses.py --readers frozen",
        "python studies/item_map.py --dataset custom --data_dir DIR",
        "python studies/page.py",
    )
    seconds = sum(
        json.loads(path.read_text(encoding="utf-8")).get("seconds", 0.0)
        for path in receipts.FOLDER.rglob("*.json")
    )
    count = sum(1 for path in receipts.FOLDER.rglob("*_*-*.json"))
    lines = "\n".join(commands)
    return (
        f"<p>{count} rows have receipts, which took {seconds / 3600:.1f} hours of a core to train "
        "and to measure (two at a time on two cores), the stages before them aside. A row with a "
        "receipt is not run again; <code>--check ROW</code> runs it again and compares.</p>"
        f"<pre>{html.escape(lines)}</pre>"
    )


def _kept(study: str, row: str) -> list[receipts.Receipt]:
    """A row's receipts, world by world from the first on."""
    found = []
    for place in PLACES:
        receipt = receipts.read(receipts.FOLDER / study, f"{place}_{row}")
        if receipt is None:
            break
        found.append(receipt)
    return found


def _interval(test: Comparison) -> Interval:
    return test.difference


def _tests(
    what: str, tested: Sequence[tuple[str, Comparison]], of: str = "difference, nats"
) -> str:
    rows = "\n".join(
        f"<tr><td>{html.escape(name)}</td><td>{d.mean:+.3f} [{d.low:+.3f}, {d.high:+.3f}]</td>"
        f"<td>{test.p_value:.1g}</td><td>{html.escape(test.verdict)}</td></tr>"
        for name, test in tested
        for d in [test.difference]
    )
    head = f"<tr><th>{what}</th><th>{of}</th><th>p</th><th></th></tr>"
    return _scrolling(f"<table><thead>{head}</thead><tbody>\n{rows}\n</tbody></table>")


def _scrolling(made: str) -> str:
    """Tables that are wider than a phone move by themselves."""
    made = made.replace("<table>", '<div class="wide"><table>')
    return made.replace("</table>", "</table></div>")


def _figure(title: str, chart: str) -> str:
    return f"<figure><figcaption>{html.escape(title)}</figcaption>\n{chart}</figure>"


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the page; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="page.py", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--output", type=pathlib.Path, default=OUTPUT)
    flags = parser.parse_args(argv)
    try:
        whole = page()
        with atomic_write(flags.output) as stream:
            stream.write(whole)
    except (UserError, OSError) as error:
        print(f"page.py: error: {trouble(error) or error}", file=sys.stderr)
        return 2
    print(f"page {flags.output}: {len(whole) / 1024:.0f} KiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
