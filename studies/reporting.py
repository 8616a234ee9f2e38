"""What a finished study says: one table, intervals, paired tests, how it was measured, curves."""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import baselines
from study import ID_STRINGS, NAMING_ROW, READER_ROWS, Study

from ilm_jax.errors import UserError
from ilm_jax.evaluation.reports import plots, results
from ilm_jax.evaluation.reports import report as reports
from ilm_jax.evaluation.reports.comparison import compare_content
from ilm_jax.metrics.intervals import Comparison, compare

# nll_content of the first is expected below the second's.
ORDER = (("ilm", "ilm-rand"), ("ilm-rand", "mlp"), ("mlp", "prompt"))
# NDCG@10 of these is compared, user by user.
RANKED = (
    *(("ilm", other) for other in ("ials", "ials-training", "sasrec", ID_STRINGS)),
    *(("ilm", "ilm-rand"), ("ilm-rand", "mlp"), ("mlp", "prompt")),
)
RANKING = ("hr@10", "ndcg@10")
NOTES = {
    "prompt": "trained floor: the same soft tokens for every item",
    NAMING_ROW: "the language model itself is trained",
    ID_STRINGS: f"the items' id strings, as {NAMING_ROW} says them",
    "ials-training": "users by their training interactions alone",
}
# The first of them that a study has says how everything was measured.
_SAY_HOW = (*reversed(READER_ROWS), "text-zero")


def report_study(
    study: Study, rows: list[str], seconds: dict[str, float], trained: Mapping[str, str]
) -> str:
    """Writes report.json and the curves of a finished study; returns the text to print.

    Args:
      study, rows: which.
      seconds: of training, by step.
      trained: where rows were trained, if not in folders of their own names.
    """
    stored = {row: results.read(study.folder / row / "evaluation") for row in rows}
    table = [*_baselines(study, seconds), *_rows(study, stored, seconds)]
    record = next(stored[row].record for row in _SAY_HOW if row in stored)
    comparisons = [compare_content(a, [stored[a]], b, [stored[b]]) for a, b in ORDER]
    ranked = compare_rankings(study) if study.heads else []
    reports.write_report(
        study.folder / "report.json",
        study.dataset,
        study.seed,
        table,
        protocol=record["protocol"],
        comparisons=[*comparisons, *ranked],
        ceiling=record["ceiling"],
    )
    draw_curves(study, {stage: stage for stage in ("stage0", "stage1")}, "pretraining.png")
    metrics = ("nll_content", "item_loss") if study.heads else ("nll_content",)
    places = {row: trained.get(row, row) for row in rows}
    draw_curves(study, places, "stage2.png", metrics)
    lines = [
        reports.format_table(table, ceiling=record["ceiling"]),
        "",
        "95 % intervals:",
        reports.format_intervals(table),
        "",
        "nll_content, paired by held-out item:",
    ]
    lines += [f"  {comparison}" for comparison in comparisons]
    if ranked:
        lines += ["", "ndcg@10, paired by user:", *(f"  {comparison}" for comparison in ranked)]
    lines += ["", *what_was_measured(record, study.heads), ""]
    lines += [
        f"report {study.folder}/report.json",
        f"curves {study.folder}/pretraining.png, {study.folder}/stage2.png",
        f"runs   {study.folder}/{{{study.lm.name},stage1,{','.join(rows)}}}",
    ]
    return "\n".join([*lines, *study.closing(stored)])


def _rows(
    study: Study, stored: Mapping[str, results.Stored], seconds: dict[str, float]
) -> list[reports.Row]:
    """The language model's rows; lists of id strings are a row of their own."""
    table = []
    for row, evaluation in stored.items():
        record, trains = evaluation.record, row != "text-zero"
        sizes = record["trainable_params"], record["frozen_params"]
        figures, intervals = dict(record["figures"]), evaluation.intervals
        named = {name: figures.pop(name) for name in RANKING if row == NAMING_ROW and study.heads}
        table.append(
            reports.Row(
                model=row,
                metrics=figures,
                # Nothing was trained for the floor: its language model counts as frozen.
                trainable_params=sizes[0] if trains else 0,
                frozen_params=sizes[1] if trains else sum(sizes),
                seconds=row_seconds(study, row, seconds),
                intervals={name: intervals[name] for name in intervals if name not in named},
                missing=record["not_available"],
                note=NOTES.get(row, ""),
            )
        )
        if named:
            kept = {name: intervals[name] for name in named}
            note = NOTES[ID_STRINGS]
            table.append(reports.Row(ID_STRINGS, named, None, None, None, kept, note))
    return table


def _baselines(study: Study, seconds: dict[str, float]) -> list[reports.Row]:
    """Rows of collaborative filtering alone."""
    table = []
    for row in baselines.ROWS if study.heads else ():
        evaluation = results.read(study.folder / "baselines" / row)
        took = seconds.get("cf") if row.startswith("ials") else None
        table.append(
            reports.Row(
                model=row,
                metrics=evaluation.record["figures"],
                trainable_params=None,
                frozen_params=None,
                seconds=took,
                intervals=evaluation.intervals,
                note=NOTES.get(row, ""),
            )
        )
    return table


def row_seconds(study: Study, row: str, seconds: dict[str, float]) -> float:
    """Training seconds of a row with the stages that it needs: stage 1 counts for ilm alone."""
    own = [] if row == "text-zero" else [row]
    return sum(seconds.get(stage, 0.0) for stage in [*study.earlier(row), *own])


def compare_rankings(
    study: Study, pairs: Sequence[tuple[str, str]] = RANKED, metric: str = "ndcg@10"
) -> list[Comparison]:
    """Paired tests of lists by user, of rows and baselines.

    Raises:
      UserError: if two were not measured on the same users and items.
    """
    values, asked = {}, {}
    for row in dict.fromkeys(name for pair in pairs for name in pair):
        folder = lists_of(study, row)
        values[row] = results.read(folder).metrics[metric].values
        asked[row] = targets_of(folder)
    found = []
    for a, b in pairs:
        if asked[a] != asked[b]:
            raise UserError(f"{a} and {b} were measured on other users or items: evaluate again")
        found.append(compare(a, values[a], b, values[b]))
    return found


def lists_of(study: Study, row: str) -> pathlib.Path:
    """The evaluation that holds a row's lists."""
    if row in baselines.ROWS:
        return study.folder / "baselines" / row
    return study.folder / (NAMING_ROW if row == ID_STRINGS else row) / "evaluation"


def targets_of(folder: pathlib.Path) -> list[tuple[str, str]]:
    """(user, item that was next) of every list of an evaluation, in order."""
    lines = (folder / "ranks.jsonl").read_text(encoding="utf-8").rstrip("\n").split("\n")
    return [(line["user"], line["target"]) for line in map(json.loads, lines)]


def what_was_measured(record: dict[str, Any], heads: bool = False) -> list[str]:
    """Lines under the table: how its figures came about, and which are missing."""
    card = record["protocol"]
    lines = []
    if "ranking" in card:
        ranking = card["ranking"]
        lines.append(
            f"ranking: {ranking['candidates']}, seen items {ranking['seen_items']}, users "
            f"{ranking['users']}, lists of {ranking['beams']}"
        )
        if heads:
            lines.append(
                f"rows rank by an item head and read the last {ranking['history']} items before "
                "the test item, item-knn and ials all of them, sasrec the last 20; popularity and "
                "ials-training know the training interactions"
            )
    lines.append(
        f"nll: {card['nll']['nll']}, texts {card['nll']['texts']}; nll_content: "
        f"{card['nll']['nll_content']}"
    )
    if "texts" in card and "semantic" not in record["not_available"]:
        lines.append(f"semantic: {card['texts']['semantic']}; encoder {card['texts']['encoder']}")
    if "semantic" in record["not_available"]:
        lines.append(f"semantic: {record['not_available']['semantic']}")
    return [*lines, f"intervals: {card['intervals']}"]


def draw_curves(
    study: Study, places: Mapping[str, str], name: str, metrics: Sequence[str] = ("loss",)
) -> None:
    """Draws those stages that trained, with their validation, into a PNG of the study's folder."""
    paths = {stage: study.folder / place / "metrics.jsonl" for stage, place in places.items()}
    curves = {stage: path for stage, path in paths.items() if path.exists()}
    title = f"{study.dataset}, seed {study.seed}"
    plots.loss_curves(curves, study.folder / name, metrics=metrics, title=title, validation=True)
