"""Runs whole studies by the verbs a person would type, and prints one table.

    python studies/reproduce.py quickstart [--dataset toy] [--data_dir DIR] [--model_dir DIR]
    python studies/reproduce.py rates [--model_dir DIR]
    python studies/reproduce.py order [--pairs 0:0 1:1 2:2 3:3 4:4] [--model_dir DIR]

`quickstart` runs data, CF, stages 0, 1 and 2 and the evaluation of every row on one dataset.
`rates` trains every row of one toy world at every learning rate of one grid and picks each row's
rate by nll_content of the validation items; the tiny recipes hold what it found.
`order` repeats the three adaptor rows on several (toy world, seed) pairs and tests whether
nll_content of ilm is below ilm-rand, and that below mlp. Finished steps are skipped, half-done
ones resume, so an interrupted study goes on where it was.
"""

import argparse
import pathlib
import sys
import time
from collections.abc import Sequence
from typing import Any

from study import ADAPTOR_ROWS, RECIPES, Study, read_json, run_step, run_study

from ilm_jax.errors import UserError
from ilm_jax.evaluation.reports import plots, results
from ilm_jax.evaluation.reports import report as reports
from ilm_jax.evaluation.reports.comparison import compare_content
from ilm_jax.files import trouble
from ilm_jax.training import finished

# nll_content of the first is expected below the second's.
ORDER = (("ilm", "ilm-rand"), ("ilm-rand", "mlp"))
# Every row tries each; see `rates`.
RATES = (1e-3, 2e-3, 5e-3, 1e-2)
# Texts of validation items alone, as rows are compared on texts of test items.
VALIDATE_ON_TEXTS = {
    "train_eval/dataset_config.DatasetConfig.mixture_or_task_name": "long_description"
}


def row_seconds(row: str, seconds: dict[str, float]) -> float:
    """Training seconds of a row with the stages that it needs: stage 1 counts for ilm alone."""
    stages = {"text-zero": ["stage0"], "ilm": ["stage0", "stage1", "ilm"]}
    return sum(seconds.get(stage, 0.0) for stage in stages.get(row, ["stage0", row]))


def report_study(study: Study, rows: list[str], seconds: dict[str, float]) -> str:
    """Writes report.json and the curves of a finished study; returns the text to print."""
    stored = {row: results.read(study.folder / row / "evaluation") for row in rows}
    table = [
        reports.Row(
            model=row,
            metrics=evaluation.record["figures"],
            # Nothing was trained for the floor: its language model counts as frozen.
            trainable_params=0 if row == "text-zero" else evaluation.record["trainable_params"],
            frozen_params=evaluation.record["frozen_params"]
            + (evaluation.record["trainable_params"] if row == "text-zero" else 0),
            seconds=row_seconds(row, seconds),
            intervals=evaluation.intervals,
            missing=evaluation.record["not_available"],
            note={"text-full": "the language model itself is trained"}.get(row, ""),
        )
        for row, evaluation in stored.items()
    ]
    first = next(iter(stored.values()))
    ceiling = first.record["ceiling"]
    comparisons = [compare_content(a, [stored[a]], b, [stored[b]]) for a, b in ORDER]
    reports.write_report(
        study.folder / "report.json",
        study.dataset,
        study.seed,
        table,
        protocol=first.record["protocol"],
        comparisons=comparisons,
        ceiling=ceiling,
    )
    draw_curves(study, ("stage0", "stage1"), "pretraining.png")
    draw_curves(study, rows, "stage2.png")
    lines = [
        reports.format_table(table, ceiling=ceiling),
        "",
        "95 % intervals:",
        reports.format_intervals(table),
        "",
        "nll_content, paired by held-out item:",
    ]
    lines += [f"  {comparison}" for comparison in comparisons]
    lines += ["", *what_was_measured(first.record), ""]
    lines += [
        f"report {study.folder}/report.json",
        f"curves {study.folder}/pretraining.png, {study.folder}/stage2.png",
        f"runs   {study.folder}/{{stage0,stage1,{','.join(rows)}}}",
    ]
    return "\n".join(lines)


def what_was_measured(record: dict[str, Any]) -> list[str]:
    """Lines under the table: how its figures came about, and which are missing."""
    card = record["protocol"]
    lines = []
    if "ranking" in card:
        ranking = card["ranking"]
        lines.append(
            f"ranking: {ranking['candidates']}, seen items {ranking['seen_items']}, users "
            f"{ranking['users']}, {ranking['beams']} beams"
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


def draw_curves(study: Study, stages: Sequence[str], name: str) -> None:
    """Draws the training loss of those stages that have any, into a PNG of the study's folder."""
    paths = {stage: study.folder / stage / "metrics.jsonl" for stage in stages}
    curves = {stage: path for stage, path in paths.items() if path.exists()}
    plots.loss_curves(curves, study.folder / name, title=f"{study.dataset}, seed {study.seed}")


def quickstart(arguments: argparse.Namespace) -> None:
    """All rows on one dataset and seed."""
    study = Study(
        arguments.dataset,
        arguments.seed,
        pathlib.Path(arguments.model_dir or f"runs/{arguments.dataset.replace('/', '_')}"),
        arguments.data_dir,
        arguments.cache_dir,
    )
    start = time.monotonic()
    rows = list(RECIPES)
    seconds = run_study(study, rows)
    print(f"\n{study.dataset}, seed {study.seed}: {time.monotonic() - start:.0f} s\n")
    print(report_study(study, rows, seconds))


def rates(arguments: argparse.Namespace) -> None:
    """Each row that trains at each learning rate, judged on validation items."""
    study = Study(
        "toy",
        arguments.seed,
        pathlib.Path(arguments.model_dir or "runs/order") / f"world0_seed{arguments.seed}",
        cache_dir=arguments.cache_dir,
    )
    seconds = run_study(study, ["ilm"], ranking=False)
    earlier = [study.table, study.folder / "stage0", study.folder / "stage1"]
    lines = [
        "validation nll_content at learning rate",
        "model     " + "".join(f"{r:>9g}" for r in RATES),
    ]
    for row in (row for row, recipe in RECIPES.items() if recipe is not None):
        figures = []
        for rate in RATES:
            stage = f"rates/{row}_{rate:g}"
            done = study.folder / stage / finished.FILE
            words = study.train_row(row, stage, LEARNING_RATE=rate, **VALIDATE_ON_TEXTS)
            run_step(study, stage, words, done, earlier, "", seconds)
            figures.append(read_json(done)["validation"]["nll_content"])
        best = min(figures)
        cells = "".join(f"{x:8.4f}{'*' if x == best else ' '}" for x in figures)
        lines.append(f"{row:<10}{cells}")
    print("\n" + "\n".join(lines))


def order(arguments: argparse.Namespace) -> None:
    """The order of the adaptor rows over (toy world, seed) pairs."""
    stored: dict[str, list[results.Stored]] = {row: [] for row in ADAPTOR_ROWS}
    lines = ["world seed  " + "  ".join(f"{row:>8}" for row in ADAPTOR_ROWS)]
    for pair in arguments.pairs:
        world, seed = map(int, pair.split(":"))
        study = Study(
            f"toy/world{world}" if world else "toy",
            seed,
            pathlib.Path(arguments.model_dir or "runs/order") / f"world{world}_seed{seed}",
            cache_dir=arguments.cache_dir,
        )
        run_study(study, list(ADAPTOR_ROWS), ranking=False)
        for row in ADAPTOR_ROWS:
            stored[row].append(results.read(study.folder / row / "evaluation"))
        figures = [stored[row][-1].record["figures"]["nll_content"] for row in ADAPTOR_ROWS]
        lines.append(f"{world:5} {seed:4}  " + "  ".join(f"{figure:8.4f}" for figure in figures))
        for a, b in ORDER:
            lines.append(f"            {compare_content(a, stored[a][-1:], b, stored[b][-1:])}")
    lines.append("all pairs together (items of every pair):")
    for a, b in ORDER:
        lines.append(f"            {compare_content(a, stored[a], b, stored[b])}")
    print("\n" + "\n".join(lines))


def main() -> int:
    """Parses the words and runs a study; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="reproduce.py", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    studies = parser.add_subparsers(dest="study", required=True)
    one = studies.add_parser("quickstart", help="every row on one dataset")
    one.add_argument("--dataset", default="toy")
    one.add_argument("--data_dir", help="folder of the raw files (not for toy)")
    one.add_argument("--seed", type=int, default=0)
    one.set_defaults(run=quickstart)
    grid = studies.add_parser("rates", help="each row at each learning rate")
    grid.add_argument("--seed", type=int, default=0)
    grid.set_defaults(run=rates)
    several = studies.add_parser("order", help="ilm < ilm-rand < mlp on several worlds and seeds")
    several.add_argument("--pairs", nargs="+", default=["0:0", "1:1", "2:2", "3:3", "4:4"])
    several.set_defaults(run=order)
    for study in (one, grid, several):
        study.add_argument("--model_dir", help="where everything is written (default: runs/…)")
        study.add_argument("--cache_dir", help="prepared data (default: $ILM_CACHE or ~/.cache)")
    arguments = parser.parse_args()
    try:
        arguments.run(arguments)
    except (UserError, OSError) as error:
        told = trouble(error) or " ".join(str(error).split())
        print(f"reproduce: error: {told}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("reproduce: interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
