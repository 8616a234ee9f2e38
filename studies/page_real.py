"""Sections of the page on written texts, on what language is kept, and on single settings.

Each is made of receipts, and empty where there are none.
"""

import html
import math
import pathlib
import re
from collections.abc import Mapping, Sequence

import ablations
import charts
import few_texts
import real_texts
import receipts
import retention
import variations
from charts import Span
from page_parts import (
    ROUNDING,
    Worlds,
    column,
    figure,
    scrolling,
    tests_table,
    with_all,
    worlds_of,
)
from receipts import Receipt
from variations import Row

from ilm_jax.errors import UserError
from ilm_jax.metrics.intervals import Comparison, compare, mean_interval

SETTINGS = (
    "<p>One setting changed at a time; the base has eight queries, one item token, vectors of 32 "
    "dimensions, and soft tokens that start from data. The Q-Former trains in stage 2, which reads "
    "all texts, as many a step whatever the number of queries. <code>vectors+text</code>: 32 "
    "dimensions of the items' texts beside the 32, none of which held-out items have. Tests are "
    "not adjusted for their number.</p>"
)
# Of a dataset: a row's receipts by seed.
Rows = Mapping[str, Mapping[int, Receipt]]
NAMED = re.compile(r"(.+)_seed(\d+)_(\d+|all)_(.+)")
METRIC = few_texts.METRICS[0]
LABELS = {
    "mlp": "MLP",
    "ilm-rand": "Q-Former, no stage 1",
    "ilm": "Q-Former, stage 1",
    "ilm-rand-frozen": "frozen, no stage 1",
    "ilm-frozen": "frozen, stage 1",
    "ilm-rand-longer": "no stage 1, longer",
    "ilm-rand-frozen-longer": "frozen, no stage 1, longer",
}
# Rows that are compared, and what a chart calls it; the last two cost the same.
PAIRS = {
    ("ilm", "ilm-rand"): "stage 1",
    ("ilm-frozen", "ilm-rand-frozen"): "stage 1, frozen",
    ("ilm-rand", "mlp"): "Q-Former for MLP",
    ("ilm", "ilm-rand-longer"): "stage 1 for steps",
    ("ilm-frozen", "ilm-rand-frozen-longer"): "the same, frozen",
}
KEPT = {
    "frozen": "the reader alone",
    "lora": "the reader, and low-rank updates",
    "text-full": "all of the model",
}


def real_section(kept: pathlib.Path) -> str:
    """Rows through a published language model on written texts, over seeds."""
    parts = []
    for (data, count), rows in _by_data(kept / real_texts.FOLDER.name).items():
        title = f"{data}, texts: {count}: nats per content token, paired item by item"
        tested = _pairs(rows)
        spans = [Span(PAIRS[test.first, test.second], test.difference, 0) for _, test, _ in tested]
        chart = charts.forest(spans, across="first less second, nats", label=title)
        parts += [
            f"<p>{html.escape(data)}: the published model, frozen, reads the vectors of items and "
            f"says what was written of them, cut at {real_texts.TARGETS} tokens; stage 1 read the "
            f"items' metadata. {real_texts.STEPS} steps of eight texts (<em>longer</em>: "
            f"{real_texts.LONGER}, as many more as stage 1 costs), each row at the rate that is "
            "best on validation items of seed 0. All seeds are of the same items: an item's value "
            "is its mean over a row's seeds, and two rows are compared on the seeds of both.</p>",
            _worths(rows),
            figure(title, chart) if tested else "",
            tests_table("rows", tested),
            ROUNDING,
        ]
    return "\n".join(parts)


def _by_data(folder: pathlib.Path) -> Mapping[tuple[str, str], Rows]:
    """Receipts by (data, number of texts), row and seed, rows in the study's order."""
    found: dict[tuple[str, str], dict[str, dict[int, Receipt]]] = {}
    named = [(NAMED.fullmatch(path.stem), path) for path in folder.glob("*.json")]
    matched = [(match, path) for match, path in named if match and match[4] in LABELS]
    order = list(LABELS)

    def place(pair: tuple[re.Match[str], pathlib.Path]) -> tuple[str, str, int, int]:
        """Data, number of texts, row, seed."""
        match, _ = pair
        return match[1], match[3], order.index(match[4]), int(match[2])

    for match, path in sorted(matched, key=place):
        receipt = receipts.read(folder, path.stem)
        assert receipt is not None
        rows = found.setdefault((match[1], match[3]), {})
        rows.setdefault(match[4], {})[int(match[2])] = receipt
    return found


def _pairs(rows: Rows) -> list[tuple[str, Comparison, str]]:
    tested = []
    for one, other in PAIRS:
        seeds = [seed for seed in rows.get(one, {}) if seed in rows.get(other, {})]
        if seeds:
            ours, theirs = ([rows[row][seed] for seed in seeds] for row in (one, other))
            test, over = variations.compared(one, ours, other, theirs)
            over = over or "; one seed"
            tested.append((f"{LABELS[one]} less {LABELS[other]}", test, over))
    return tested


def _worths(rows: Rows) -> str:
    lines = []
    for row, found in rows.items():
        means = ", ".join(f"{receipt.mean(METRIC):.3f}" for receipt in found.values())
        worth = mean_interval(*receipts.joined(list(found.values()), "worth_content"))
        lines.append(
            f"<tr><td>{LABELS[row]}</td><td>{means}</td>"
            f"<td>{worth.mean:.3f} [{worth.low:.3f}, {worth.high:.3f}]</td></tr>"
        )
    head = "<tr><th>row</th><th>nats by seed</th><th>worth of the vectors</th></tr>"
    body = "\n".join(lines)
    return scrolling(f"<table><thead>{head}</thead><tbody>\n{body}\n</tbody></table>")


def retention_section(kept: pathlib.Path) -> str:
    """Perplexity of passages that have nothing to do with items, before and after training."""
    folder = kept / retention.FOLDER.name
    parts = []
    for path in sorted(folder.glob("*_before.json")):
        stem = path.stem.removesuffix("_before")
        before = receipts.read(folder, path.stem)
        assert before is not None
        first = before.metrics[retention.METRIC]
        lines, tested = [_kept_line("as published", before)], []
        for row, said in KEPT.items():
            receipt = receipts.read(folder, f"{stem}_all_{row}")
            if receipt is None:
                continue
            own = receipt.metrics.get(retention.METRIC)
            if own is None or len(own.values) != len(first.values):
                raise UserError(f"{folder / receipt.row}.json is of other passages: delete it")
            lines.append(_kept_line(f"{row}: {said}", receipt))
            test = compare(row, own.values, "as published", first.values, own.weights)
            tested.append((f"{row} less as published", test, ""))
        head = "<tr><th>what trained</th><th>perplexity of passages</th><th>nats, texts</th></tr>"
        body = "\n".join(lines)
        parts += [
            f"<p>{len(first.values)} passages of {retention.LENGTH} tokens that have nothing to do "
            "with items (Python's own reference), read by the language model before and after "
            f"training on {html.escape(stem)}, the same steps for each row.</p>",
            scrolling(f"<table><thead>{head}</thead><tbody>\n{body}\n</tbody></table>"),
            tests_table("passages", tested),
        ]
    return "\n".join(parts)


def _kept_line(name: str, receipt: Receipt) -> str:
    perplexity = math.exp(receipt.mean(retention.METRIC))
    texts = f"{receipt.mean(METRIC):.3f}" if METRIC in receipt.metrics else ""
    return f"<tr><td>{html.escape(name)}</td><td>{perplexity:.2f}</td><td>{texts}</td></tr>"


def ablations_section(kept: pathlib.Path) -> str:
    """What each setting is worth, with stage 1 and without; and what stage 1's computations are."""
    worlds = worlds_of(kept / ablations.FOLDER.name)
    parts: list[str] = []
    for reader, said in (("trained", "After stage 1"), ("fresh", "Without stage 1")):
        there = {name: str(Row(reader, name)) for name in ablations.SETTINGS}
        there = {name: row for name, row in there.items() if any(row in c for c in worlds.values())}
        same = with_all(worlds, there.values())
        if "base" not in there or len(there) < 2 or not same:
            continue
        base = column(same, there.pop("base"))
        tested = []
        for name, row in there.items():
            test, over = variations.compared(name, column(same, row), "base", base)
            tested.append((name, test, over))
        title = f"{said}: nats less those of the base (left of 0: better), {len(same)} worlds"
        spans = [Span(name, test.difference, 0) for name, test, _ in tested]
        chart = charts.forest(spans, across="less base, nats", label=title)
        parts += [figure(title, chart), tests_table("setting", tested)]
    if parts:
        parts.insert(0, SETTINGS)
    steps = (
        "Stage 1, or its computations spent on stage 2 "
        f"({ablations.LONGER} steps for {few_texts.STEPS}, at two rates)"
    )
    cut = "Stage 1, or none, behind texts that are cut after so many tokens, of 24 to 32"
    parts += _pairs_of_rows(worlds, ablations.EQUAL, steps)
    parts += _pairs_of_rows(worlds, ablations.SHORT, cut)
    return "\n".join([*parts, ROUNDING] if parts else [])


def _pairs_of_rows(worlds: Worlds, pairs: Sequence[tuple[Row, Row]], said: str) -> list[str]:
    """Tests of pairs of rows, on the worlds that have them all."""
    same = with_all(worlds, [str(row) for pair in pairs for row in pair])
    if not same:
        return []
    tested = []
    for one, other in pairs:
        cells = column(same, str(one)), column(same, str(other))
        tested.append((f"{one} less {other}", *variations.compared(one, cells[0], other, cells[1])))
    told = f"{said}, on {len(same)} worlds, with the Q-Former trained and frozen in stage 2:"
    return [f"<p>{told}</p>", tests_table("rows", tested)]
