"""Sections of the page that are made of receipts; each is empty where there are none."""

import html
import json
import pathlib
from collections.abc import Sequence

import charts
import few_texts
import few_texts_report
import item_map
import losses
import receipts
from charts import Line, Span

from ilm_jax.metrics.intervals import Comparison, compare, mean_interval

# Toy worlds, each with a seed of its own.
PLACES = ("toy_seed0", *(f"toy_world{n}_seed{n}" for n in range(1, 5)))
COLOURS = {"ilm-rand": 1, "ilm": 0, "ilm-rand-frozen": 1, "ilm-frozen": 0}
NAMES = {"ilm-rand": "without stage 1", "ilm": "after stage 1"}
VIEWS = {
    "vectors": "The vectors themselves",
    "untrained": "An untrained Q-Former",
    "stage 1": "After stage 1",
}
# Rows of a ladder that are a language model's.
OURS = ("frozen decoder", "frozen, 3,000 steps", "never trained")


def texts_section(kept: pathlib.Path) -> str:
    """Rows with stage 1 and without, over the number of texts that stage 2 reads."""
    found: dict[tuple[int, str], list[receipts.Receipt]] = {}
    folder = kept / "few_texts"
    for count in _counts(folder):
        cells = {
            row: _kept(kept / "few_texts", f"{count or 'all'}_{row}") for row in few_texts.ROWS
        }
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
        [Span(name, t.difference, 0) for name, t in tested], across="stage 1 less none, nats"
    )
    parts.append(_figure("What stage 1 changes, paired text by text (left of 0: it helps)", chart))
    parts.append(_tests("texts, Q-Former", tested))
    return "\n".join(parts)


def _counts(folder: pathlib.Path) -> list[int]:
    """Numbers of texts that rows were measured with, 0 (all) last."""
    names = (path.stem for path in folder.glob(f"{PLACES[0]}_*_ilm.json"))
    counts = {name.split("_")[2] for name in names}
    return [*sorted(int(count) for count in counts - {"all"}), *[0] * ("all" in counts)]


def _line(found: few_texts_report.Found, row: str, counts: Sequence[int]) -> Line:
    cells = [few_texts_report.pooled(found[count, row]) for count in counts]
    points = [(float(n), cell.mean) for n, cell in enumerate(cells)]
    reach = [(cell.low, cell.high) for cell in cells]
    return Line(NAMES[few_texts.ROWS[row][0]], COLOURS[row], points, reach)


def losses_section(kept: pathlib.Path) -> str:
    """What each loss of stage 1 adds to item-text losses alone."""
    rows = {name: _kept(kept / "losses", f"frozen-{name}") for name in losses.STAGE_ONE}
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
            spans.append(Span(f"world {world}", one.difference, number))
        pair = rows[name][:worlds], rows["text"][:worlds]
        every = receipts.compare_rows(name, pair[0], "text", pair[1], losses.METRIC)
        spans.append(Span(name, every.difference, number, bold=True))
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


def curves_section(kept: pathlib.Path) -> str:
    """Validation loss of the first world's rows of all texts."""
    found = [
        Line(f"{NAMES[plain]}{', frozen' if frozen else ''}", number, cells[0].curve)
        for number, (row, (plain, frozen)) in enumerate(few_texts.ROWS.items())
        if (cells := _kept(kept / "few_texts", f"all_{row}"))
    ]
    if not found:
        return ""
    chart = charts.lines(found, height=240, across="step of stage 2", up="validation nll, nats")
    return _figure("Validation, world 0, all texts, each row at its own best rate", chart)


def lists_section(kept: pathlib.Path) -> str:
    """NDCG@10 of every row that was measured on one dataset's users, and each against the best."""
    found = [
        receipts.read(path.parent, path.stem) for path in sorted((kept / "ladder").glob("*.json"))
    ]
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


def map_section(kept: pathlib.Path) -> str:
    """Items as the vectors have them, and as a Q-Former does before and after stage 1."""
    file = kept / item_map.FILE.name
    if not file.exists():
        return ""
    record = json.loads(file.read_text(encoding="utf-8"))
    parts = [
        f"<p>{record['items']:,} items of {html.escape(record['dataset'])} ("
        f"{len(record['titles'])} of them drawn), coloured by first category. <em>Alike</em>: the "
        "share of an item's ten nearest neighbours that have its first category; of any two items "
        f"it is {record['by_chance']:.2f}. <em>Directions</em>: how many the outputs spread over "
        "(participation ratio). Stage 1 reads the items' texts, which name their categories, but "
        f"not those of {record['held_out']:,} held-out items.</p>"
    ]
    for view, title in VIEWS.items():
        found = record["views"][view]
        groups: dict[str, list[tuple[float, float, str]]] = {c: [] for c in record["categories"]}
        places = zip(found["places"], record["category"], record["titles"], strict=True)
        for (x, y), category, name in places:
            groups[record["categories"][category]].append((x, y, name))
        said = (
            f"{title}: alike {found['alike']:.2f}, of held-out items "
            f"{found['alike_held_out']:.2f}; directions {found['directions']:.1f}"
        )
        parts.append(_figure(said, charts.scatter(groups, height=300, label=said)))
    return "\n".join(parts)


def again_section(kept: pathlib.Path) -> str:
    """Commands, and what the rows took."""
    commands = (
        "bash launch/setup.sh",
        "python studies/reproduce.py ilm --plan",
        "python studies/reproduce.py ilm --data_dir DIR",
        "python studies/reproduce.py few_texts --check all_ilm-frozen all_ilm-rand",
    )
    seconds = sum(
        json.loads(path.read_text(encoding="utf-8")).get("seconds", 0.0)
        for path in kept.rglob("*.json")
    )
    count = sum(1 for path in kept.rglob("*_*-*.json"))
    lines = "\n".join(commands)
    return (
        f"<p>{count} rows have receipts, which took {seconds / 3600:.1f} hours of a core to train "
        "and to measure (two at a time on two cores), the stages before them aside. A row with a "
        "receipt is not run again; <code>--check ROW</code> runs it again and compares.</p>"
        f"<pre>{html.escape(lines)}</pre>"
    )


def _kept(folder: pathlib.Path, row: str) -> list[receipts.Receipt]:
    """A row's receipts, world by world from the first on."""
    found = []
    for place in PLACES:
        receipt = receipts.read(folder, f"{place}_{row}")
        if receipt is None:
            break
        found.append(receipt)
    return found


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
    return scrolling(f"<table><thead>{head}</thead><tbody>\n{rows}\n</tbody></table>")


def scrolling(made: str) -> str:
    """Tables that are wider than a phone move by themselves."""
    made = made.replace("<table>", '<div class="wide"><table>')
    return made.replace("</table>", "</table></div>")


def _figure(title: str, chart: str) -> str:
    return f"<figure><figcaption>{html.escape(title)}</figcaption>\n{chart}</figure>"
