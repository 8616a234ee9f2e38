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
from page_parts import column, figure, scrolling, tests_table, with_all, worlds_of
from receipts import Receipt

from ilm_jax.metrics.intervals import compare, mean_interval

# Of a dataset: the receipts of a row, seed by seed.
Rows = Mapping[str, Sequence[Receipt]]
NAMED = re.compile(r"(.+)_seed(\d+)_(\d+|all)_(.+)")
METRIC = few_texts.METRICS[0]
LABELS = {
    "mlp": "MLP",
    "ilm-rand": "Q-Former, no stage 1",
    "ilm": "Q-Former, stage 1",
    "ilm-rand-frozen": "frozen, no stage 1",
    "ilm-frozen": "frozen, stage 1",
}
KEPT = {
    "frozen": "the reader alone",
    "lora": "the reader, and low-rank updates",
    "text-full": "all of the model",
}


def real_section(kept: pathlib.Path) -> str:
    """Rows through a published language model on written texts, over seeds."""
    parts = []
    for (dataset, count), rows in _by_dataset(kept / real_texts.FOLDER.name).items():
        whole = {row: rows[row] for row in real_texts.RealTexts.rows if row in rows}
        seeds = min(map(len, whole.values()))
        whole = {row: found[:seeds] for row, found in whole.items()}
        title = f"{dataset}, texts: {count}; nats per content token of test items"
        spans = [
            Span(LABELS[row], mean_interval(*receipts.joined(found, METRIC)), int(row != "mlp"))
            for row, found in whole.items()
        ]
        parts += [
            "<p>SmolLM2-135M, frozen, reads the vectors of films and writes what a larger language "
            f"model wrote of them, cut at {real_texts.TARGETS} tokens; stage 1 read titles and "
            f"genres. {real_texts.STEPS} steps of eight texts, each row at the rate that is best "
            f"on validation items of the first of {seeds} seeds. Values of an item are its mean "
            "over seeds; p is over items, and over seeds.</p>",
            figure(title, charts.forest(spans, across="nats", label=title, signed=False)),
            _worths(whole),
            tests_table("rows", _pairs(whole)),
        ]
    return "\n".join(parts)


def _by_dataset(folder: pathlib.Path) -> dict[tuple[str, str], dict[str, list[Receipt]]]:
    """Receipts by (dataset, number of texts) and row, in the order of the seeds."""
    found: dict[tuple[str, str], dict[str, list[Receipt]]] = {}
    named = [(NAMED.fullmatch(path.stem), path) for path in folder.glob("*.json")]
    matched = [(match, path) for match, path in named if match]
    for match, path in sorted(matched, key=lambda pair: (pair[0][1], int(pair[0][2]))):
        receipt = receipts.read(folder, path.stem)
        assert receipt is not None
        found.setdefault((match[1], match[3]), {}).setdefault(match[4], []).append(receipt)
    return found


def _pairs(rows: Rows) -> list[tuple[str, receipts.Comparison, str]]:
    tested = []
    for one, other in few_texts.PAIRED:
        if one in rows and other in rows:
            test = receipts.compare_rows(one, rows[one], other, rows[other], METRIC)
            several = len(rows[one]) > 1
            over = variations.over_worlds(rows[one], rows[other]) if several else math.nan
            said = f"; over seeds p = {over:.2g}" if several else ""
            tested.append((f"{LABELS[one]} less {LABELS[other]}", test, said))
    return tested


def _worths(rows: Rows) -> str:
    lines = []
    for row, found in rows.items():
        means = ", ".join(f"{receipt.mean(METRIC):.3f}" for receipt in found)
        worth = mean_interval(*receipts.joined(found, "worth_content"))
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
            lines.append(_kept_line(f"{row}: {said}", receipt))
            own = receipt.metrics[retention.METRIC]
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
    """What each setting is worth, with stage 1 and without."""
    worlds = worlds_of(kept / ablations.FOLDER.name)
    parts: list[str] = []
    for reader, title in (("trained", "After stage 1"), ("fresh", "Without stage 1")):
        rows = {name: f"{reader}-{name}" for name in ablations.VARIATIONS}
        there = {n: row for n, row in rows.items() if any(row in c for c in worlds.values())}
        same = with_all(worlds, there.values())
        if "base" not in there or len(there) < 2 or not same:
            continue
        cells = {name: column(same, row) for name, row in there.items()}
        tested, spans = [], []
        for name, ours in cells.items():
            if name == "base":
                continue
            test = receipts.compare_rows(name, ours, "base", cells["base"], METRIC)
            over = variations.over_worlds(ours, cells["base"]) if len(same) > 1 else math.nan
            tested.append((name, test, f"; over worlds p = {over:.2g}" * (len(same) > 1)))
            spans.append(Span(name, test.difference, 0))
        title = f"{title}: nats less those of the base (left of 0: better), worlds: {len(same)}"
        chart = charts.forest(spans, across="less base, nats", label=title)
        parts += [figure(title, chart), tests_table("setting", tested)]
    equal = with_all(worlds, [str(row) for pair in ablations.EQUAL for row in pair])
    if equal:
        tested = []
        for one, other in ablations.EQUAL:
            ours, theirs = column(equal, str(one)), column(equal, str(other))
            test = receipts.compare_rows(str(one), ours, str(other), theirs, METRIC)
            over = variations.over_worlds(ours, theirs) if len(equal) > 1 else math.nan
            said = f"; over worlds p = {over:.2g}" * (len(equal) > 1)
            tested.append((f"{one} less {other}", test, said))
        parts += [
            "<p>Stage 1, or its computations spent on stage 2 "
            f"({ablations.LONGER} steps for {few_texts.STEPS}), on {len(equal)} worlds:</p>",
            tests_table("rows", tested),
        ]
    if not parts:
        return ""
    return "\n".join(
        [
            "<p>One setting changed at a time, in both stages; the base has eight queries, one "
            "item token, vectors of 32 dimensions, and soft tokens that start from data. The "
            "Q-Former trains in stage 2, which reads all texts.</p>",
            *parts,
        ]
    )
