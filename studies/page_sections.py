"""Sections of the page that are made of receipts; each is empty where there are none."""

import html
import pathlib
from collections.abc import Mapping, Sequence

import charts
import few_texts
import few_texts_report
import item_map
import losses
import receipts
import variations
from charts import Line, Span
from page_parts import (
    ROUNDING,
    Worlds,
    column,
    figure,
    tests_table,
    with_all,
    within_rounding,
    worlds_of,
)
from receipts import Receipt

from ilm_jax.metrics.intervals import Comparison, mean_interval

COLOURS = {"ilm": 0, "ilm-rand": 1}
NAMES = {"ilm-rand": "without stage 1", "ilm": "after stage 1"}
VIEWS = {
    "vectors": "The vectors themselves",
    "untrained": "An untrained Q-Former",
    "stage 1": "After stage 1",
}


def texts_section(kept: pathlib.Path) -> str:
    """Rows with stage 1 and without, over the number of texts that stage 2 reads."""
    worlds = worlds_of(kept / few_texts.FOLDER.name)
    found = {count: with_all(worlds, _names(count)) for count in _counts(worlds)}
    found = {count: some for count, some in found.items() if some}
    if not found:
        return ""
    parts = [
        "<p>Stage 1 read the texts of all training items; stage 2 reads so many of them. What the "
        "language model lacks of held-out items' own words, in nats per content token: lower is "
        "better. With the Q-Former frozen in stage 2, all that it knows of texts is stage 1's. Toy "
        f"worlds, each with a seed of its own: {_how_many(found)}.</p>"
    ]
    for frozen, title in ((True, "Q-Former frozen in stage 2"), (False, "Q-Former trained")):
        rows = [row for row, (_, is_frozen) in few_texts.ROWS.items() if is_frozen == frozen]
        chart = charts.lines(
            [_over_counts(found, row) for row in reversed(rows)],
            height=230,
            across="texts that stage 2 reads",
            up="nats",
            label=title,
            ticks={float(n): _said(count) for n, count in enumerate(found)},
        )
        parts.append(figure(title, chart))
    tested = []
    for count, some in found.items():
        cells = {(count, row): column(some, _name(count, row)) for row in few_texts.ROWS}
        for _, test in few_texts_report.tests(cells):
            rests = "frozen" if "frozen" in test.first else "trained"
            tested.append((f"{_said(count)}, {rests}", test, within_rounding(test)))
    title = "What stage 1 changes, paired text by text (left of 0: it helps)"
    spans = [Span(name, test.difference, 0) for name, test, _ in tested]
    chart = charts.forest(spans, across="with stage 1 less without, nats", label=title)
    parts += [figure(title, chart), tests_table("texts, Q-Former", tested), ROUNDING]
    return "\n".join(parts)


def _said(count: int) -> str:
    return str(count or "all")


def _name(count: int, row: str) -> str:
    return f"{_said(count)}_{row}"


def _names(count: int) -> list[str]:
    return [_name(count, row) for row in few_texts.ROWS]


def _counts(worlds: Worlds) -> list[int]:
    """Numbers of texts that rows were measured with, 0 (all) last."""
    counts = {row.partition("_")[0] for cells in worlds.values() for row in cells}
    return [*sorted(int(count) for count in counts - {"all"}), *[0] * ("all" in counts)]


def _how_many(found: Mapping[int, Worlds]) -> str:
    """How many worlds each number of texts was measured in."""
    sizes = {count: len(some) for count, some in found.items()}
    if len(set(sizes.values())) == 1:
        return str(next(iter(sizes.values())))
    return ", ".join(f"{size} with {_said(count)}" for count, size in sizes.items())


def _over_counts(found: Mapping[int, Worlds], row: str) -> Line:
    pooled = few_texts_report.pooled
    cells = [pooled(column(some, _name(count, row))) for count, some in found.items()]
    points = [(float(n), cell.mean) for n, cell in enumerate(cells)]
    plain, _ = few_texts.ROWS[row]
    return Line(NAMES[plain], COLOURS[plain], points, [(cell.low, cell.high) for cell in cells])


def losses_section(kept: pathlib.Path) -> str:
    """What each loss of stage 1 adds to item-text losses alone."""
    worlds = worlds_of(kept / losses.FOLDER.name)
    there = [name for name in losses.STAGE_ONE if any(_frozen(name) in c for c in worlds.values())]
    worlds = with_all(worlds, map(_frozen, there))
    if "text" not in there or len(there) < 2 or not worlds:
        return ""
    rows = {name: column(worlds, _frozen(name)) for name in there}
    spans = []
    for number, name in enumerate(losses.STAGE_ONE):
        if name not in rows or name == "text":
            continue
        for place, world in enumerate(worlds):
            one = _less(rows, name, "text", slice(place, place + 1))
            spans.append(Span(f"world {world}", one.difference, number))
        spans.append(Span(name, _less(rows, name, "text").difference, number, bold=True))
    pairs = [(name, "text") for name in rows if name != "text"]
    pairs += [(name, "text-longer") for name in rows if name.partition("-")[0] != "text"]
    pairs = [(name, other) for name, other in pairs if other in rows]
    tested = []
    for name, other in pairs:
        test, over = variations.compared(name, rows[name], other, rows[other])
        tested.append((f"{name} less {other}", test, over))
    title = "Nats per content token less those of item-text losses alone (left of 0: better)"
    return "\n".join(
        [
            "<p>Stage 1 with item-text losses alone (<code>text</code>, 150 steps), with item-item "
            "or user-item losses beside them (75 steps more), with both (<code>all</code>, 300 "
            "steps), and with as many steps of item-text losses as <code>all</code> takes "
            "altogether (<code>text-longer</code>, 300). Behind each, stage 2 with the Q-Former "
            f"frozen. Toy worlds, each with a seed of its own: {len(worlds)}.</p>",
            figure(title, charts.forest(spans, across="less text, nats", label=title)),
            tests_table("losses", tested),
            ROUNDING,
        ]
    )


def _frozen(name: str) -> str:
    return str(variations.Row("frozen", name))


def _less(
    rows: Mapping[str, Sequence[Receipt]], one: str, other: str, some: slice = slice(None)
) -> Comparison:
    return receipts.compare_rows(one, rows[one][some], other, rows[other][some], variations.METRIC)


def curves_section(kept: pathlib.Path) -> str:
    """Validation loss of the first world's rows, of the most texts."""
    worlds = worlds_of(kept / few_texts.FOLDER.name)
    if not worlds:
        return ""
    world, cells = next(iter(worlds.items()))
    count = _counts({world: cells})[-1]
    found = []
    for row, (plain, frozen) in few_texts.ROWS.items():
        name = _name(count, row)
        if name in cells:
            said = f"{NAMES[plain]}{', frozen' if frozen else ''}"
            found.append(Line(said, COLOURS[plain], cells[name].curve, dashed=frozen))
    title = f"Validation, world {world}, texts: {_said(count)}, each row at its own best rate"
    chart = charts.lines(
        found, height=240, across="step of stage 2", up="validation nll, nats", label=title
    )
    return figure(title, chart)


def lists_section(kept: pathlib.Path) -> str:
    """NDCG@10 of every row, by dataset; a language model's rows against sequential models."""
    ladders: dict[tuple[str, str], dict[str, Receipt]] = {}
    for path in sorted((kept / "ladder").glob("*.json")):
        receipt = receipts.read(path.parent, path.stem)
        assert receipt is not None
        made = receipt.made_from
        ladders.setdefault((made["dataset"], made["data"]), {})[made["row"]] = receipt
    parts = []
    for (dataset, _), rows in ladders.items():
        ordered = sorted(rows.items(), key=lambda row: -row[1].mean("ndcg@10"))
        users = len(ordered[0][1].metrics["ndcg@10"].values)
        title = f"{dataset}: NDCG@10 of {users:,} users, 95 %"
        spans = [
            Span(name, mean_interval(row.metrics["ndcg@10"].values), int(_ours(row)), _ours(row))
            for name, row in ordered
        ]
        tested = [
            (f"{name} less {other}", _compared(name, row, other, than), "")
            for name, row in ordered
            for other, than in ordered
            if _ours(row) and (not _ours(than) or name < other)
            if than.mean("ndcg@10") > 0.5 * row.mean("ndcg@10")  # others are far below
        ]
        parts += [
            "<p>Leave-one-out, every item a candidate, what a user has seen left out. Rows of "
            f"several seeds are their mean, user by user ({_seeds(rows)}). In bold: an item head "
            "that reads the states of a frozen decoder.</p>",
            figure(title, charts.forest(spans, across="", label=title, signed=False)),
            tests_table("rows", tested, of="NDCG@10"),
        ]
    return "\n".join(parts)


def _compared(name: str, row: Receipt, other: str, than: Receipt) -> Comparison:
    return receipts.compare_rows(name, [row], other, [than], "ndcg@10")


def _ours(row: Receipt) -> bool:
    return row.made_from.get("kind") == "lists"


def _seeds(rows: Mapping[str, Receipt]) -> str:
    several = {name: row.made_from["seeds"] for name, row in rows.items()}
    said = [f"{html.escape(name)}: {seeds}" for name, seeds in several.items() if seeds != "1"]
    return "; ".join(said) or "none"


def map_section(kept: pathlib.Path) -> str:
    """Items as the vectors have them, and as a Q-Former does before and after stage 1."""
    parts = []
    for path in sorted((kept / item_map.FOLDER.name).glob("*.json")):
        record = item_map.read(path)
        parts.append(
            f"<p>{record['items']:,} items of {html.escape(record['dataset'])} ("
            f"{len(record['titles'])} of them drawn), coloured by first category, at the first two "
            "principal components of what is read, each view on a scale of its own. "
            "<em>Alike</em>: the share of an item's ten nearest neighbours (of all directions, not "
            "of these two) that have its first category; of any two items it is "
            f"{record['by_chance']:.2f}. <em>Directions</em>: how many the outputs spread over "
            "(participation ratio). A small Q-Former and vectors of 32 dimensions, so that the "
            "figures are others than those of larger runs. Stage 1 did not read the texts of "
            f"{record['held_out']:,} held-out items.</p>"
        )
        for view, title in VIEWS.items():
            found = record["views"][view]
            groups: dict[str, list[tuple[float, float, str]]] = {
                c: [] for c in record["categories"]
            }
            places = zip(found["places"], record["category"], record["titles"], strict=True)
            for (x, y), category, name in places:
                groups[record["categories"][category]].append((x, y, name))
            said = f"{title}: alike {found['alike']:.2f}"
            if found["alike_held_out"] is not None:
                said += f", of held-out items {found['alike_held_out']:.2f}"
            said += f"; directions {found['directions']:.1f}; the two hold {found['explained']:.0%}"
            parts.append(figure(said, charts.scatter(groups, height=300, label=said)))
    return "\n".join(parts)


def again_section(kept: pathlib.Path) -> str:
    """Commands, and what the rows took."""
    found = [
        receipts.read(path.parent, path.stem)
        for name in (few_texts.FOLDER.name, losses.FOLDER.name)
        for path in sorted((kept / name).glob("*_*_*.json"))
        if not path.stem.endswith("_rates")
    ]
    hours = sum(receipt.seconds for receipt in found if receipt) / 3600
    commands = (
        "python3 -m venv .venv && source .venv/bin/activate && pip install -e '.[docs]'",
        "python studies/reproduce.py ilm --plan",
        "python studies/reproduce.py ilm --data_dir DIR",
        "python studies/reproduce.py few_texts --check all_ilm-frozen all_ilm-rand",
    )
    lines = "\n".join(commands)
    return (
        f"<p>{len(found)} rows of the first two studies have receipts; they took {hours:.1f} hours "
        "to train and to measure, two at a time on two cores, the stages before them and the "
        "search for rates aside. A row with a receipt is not run again; <code>--check</code> runs "
        "rows of the first study again and compares.</p>"
        f"<pre>{html.escape(lines)}</pre>"
    )
