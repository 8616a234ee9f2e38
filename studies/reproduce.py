"""Runs whole studies by the verbs a person would type, and prints one table.

    python studies/reproduce.py quickstart [--dataset toy] [--data_dir DIR] [--model_dir DIR]
                                           [--choose_rates | --lm smollm2]
    python studies/reproduce.py rates [--model_dir DIR]
    python studies/reproduce.py order [--pairs 0:0 1:1 2:2 3:3 4:4] [--model_dir DIR]
    python studies/reproduce.py recommending [--pairs 0:0 1:1 2:2 3:3 4:4] [--model_dir DIR]
    python studies/reproduce.py ilm [--data_dir DIR [--texts_file FILE]] [--seeds 0 1 2]
                                    [--model_dir DIR] [--plan | --smoke]
    python studies/reproduce.py few_texts [--dataset toy] [--data_dir DIR] [--seeds 0 1 2]
                                          [--texts 50 200 800 0] [--model_dir DIR]
                                          [--plan | --check 200_ilm … | --smoke]

`quickstart` runs data, CF, stages 0, 1 and 2 and the evaluation of every row on one dataset; with
`--lm` a published language model stands in the place of stage 0's (published.py).
`rates` trains every row of one toy world at every learning rate of one grid and picks each row's
rate by nll_content of the validation items (rates.py); the tiny recipes hold what it found.
`order` repeats the four rows with soft tokens on several (toy world, seed) pairs and tests whether
nll_content of ilm is below ilm-rand, that below mlp, and that below prompt.
`recommending` does so for NDCG@10 of ilm's item head, beside iALS, whose vectors it reads, and
beside id strings (recommending.py).
`ilm` runs every study that leaves receipts, where it has left none, and writes one page of them all
(whole.py, page.py). `few_texts` is one of these: where stage 1 pays, rows with it and without, over
the number of texts that stage 2 reads. Finished steps are skipped, half-done ones resume, so an
interrupted study goes on where it was.
"""

import argparse
import pathlib
import sys
import time

import few_texts
import few_texts_check
import few_texts_report
import published
import rates
import real_texts
import recommending
import scheduling
import whole
from exiting import exit_code
from reporting import ORDER, report_study
from study import READER_ROWS, RECIPES, Study, run_study, toy_world

from ilm_jax.errors import UserError
from ilm_jax.evaluation.reports import results
from ilm_jax.evaluation.reports.comparison import compare_content


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
        return Study(dataset, arguments.seed, folder, *places, jobs_of(arguments), heads=True)
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
        world, seed, study = study_of_pair(arguments, pair, "runs/order")
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


def study_of_pair(
    arguments: argparse.Namespace, pair: str, folder: str, heads: bool = False
) -> tuple[int, int, Study]:
    """(toy world, seed, their study) of a pair such as "1:1"."""
    world, seed = map(int, pair.split(":"))
    study = Study(
        toy_world(world),
        seed,
        pathlib.Path(arguments.model_dir or folder) / f"world{world}_seed{seed}",
        cache_dir=arguments.cache_dir,
        jobs=jobs_of(arguments),
        heads=heads,
    )
    return world, seed, study


def recommend(arguments: argparse.Namespace) -> None:
    """NDCG@10 of ilm's item head over (toy world, seed) pairs."""
    chosen = [study_of_pair(arguments, pair, "runs/recommending", True) for pair in arguments.pairs]
    print("\n" + recommending.measure([(world, seed, study) for world, seed, study in chosen]))


def count_texts(arguments: argparse.Namespace) -> None:
    """Rows with stage 1 and without, over the number of texts that stage 2 reads."""
    studies = [few_texts_of(arguments, seed) for seed in arguments.seeds]
    texts = few_texts.SMOKE if arguments.smoke else arguments.texts
    grid = few_texts.GRID[:1] if arguments.smoke else few_texts.GRID
    if arguments.plan:
        print(few_texts_check.budget(studies, texts, grid))
    elif arguments.check:
        print(few_texts_check.check_rows(studies, arguments.check))
    else:
        found = few_texts.measure(studies, texts, grid)
        picture, everything = studies[0].folder.parent / "few_texts.png", studies[0].all_texts
        few_texts_report.draw(found, picture, everything)
        print(f"\nnll_content of test items\n\n{few_texts_report.table(found, everything)}")
        print(f"\npicture {picture}")


def study_whole(arguments: argparse.Namespace) -> None:
    """Every part that leaves receipts, and the page of them."""
    made = whole.of(
        pathlib.Path(arguments.model_dir or f"runs/ilm{'_smoke' * arguments.smoke}"),
        arguments.seeds,
        (arguments.data_dir, arguments.cache_dir),
        jobs_of(arguments),
        arguments.output,
        smoke=arguments.smoke,
        written=written_of(arguments),
    )
    if arguments.plan:
        print(made.budget())
    else:
        made.run()


def written_of(arguments: argparse.Namespace) -> dict[str, str] | None:
    """What `ilm` reads of written texts, if there are any.

    Raises:
      UserError: for texts without data, or a language model that there is not.
    """
    if not arguments.texts_file:
        return None
    if not arguments.data_dir:
        raise UserError("--texts_file holds texts of a dataset's items: name it (--data_dir)")
    file = real_texts.checked(arguments.texts_file)
    return {"texts_file": file, "source": published.named(arguments.lm)}


def few_texts_of(arguments: argparse.Namespace, seed: int) -> few_texts.FewTexts:
    """The study of one seed; of the toy dataset in a world of its own."""
    smoke = arguments.smoke
    folder = pathlib.Path(arguments.model_dir or f"runs/few_texts{'_smoke' * smoke}")
    places = (arguments.data_dir, arguments.cache_dir)
    kept = folder / "receipts" if smoke else few_texts.FOLDER
    return few_texts.of_seed(
        seed, folder, arguments.dataset, places, jobs_of(arguments), smoke=smoke, receipts=kept
    )


def seed(word: str) -> int:
    """A seed, which is a toy world's number too; argparse tells of a ValueError."""
    if not word.isdecimal():
        raise ValueError(word)
    return int(word)


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
    lists = studies.add_parser("recommending", help="ilm's item head beside iALS and id strings")
    lists.add_argument("--pairs", nargs="+", default=["0:0", "1:1", "2:2", "3:3", "4:4"])
    lists.set_defaults(run=recommend)
    few = studies.add_parser("few_texts", help="where stage 1 pays: over the number of texts")
    few.add_argument("--dataset", default="toy", help="toy: each seed has a world of its own")
    few.add_argument("--data_dir", help="folder of the raw files (not for toy)")
    few.add_argument("--seeds", nargs="+", type=seed, default=[0, 1, 2])
    few.add_argument("--texts", nargs="+", type=int, default=few_texts.TEXTS, help="0: all")
    how = few.add_mutually_exclusive_group()
    how.add_argument("--plan", action="store_true", help="print runs and their cost, run nothing")
    how.add_argument(
        "--check", nargs="+", metavar="ROW", help="run rows again, such as 200_ilm, and compare"
    )
    how.add_argument("--smoke", action="store_true", help="a few steps of everything, no receipts")
    few.set_defaults(run=count_texts)
    every = studies.add_parser("ilm", help="all that leaves receipts, and one page of it")
    every.add_argument("--data_dir", help="folder of a dataset of one's own, for the map of items")
    every.add_argument("--texts_file", help="JSON: {item id: text}, written about these items")
    every.add_argument("--lm", default="smollm2", help="that reads them: see quickstart --lm")
    every.add_argument("--seeds", nargs="+", type=seed, default=[0, 1, 2], help="and toy worlds")
    every.add_argument("--output", type=pathlib.Path, help="the page (default: docs/study.html)")
    short = every.add_mutually_exclusive_group()
    short.add_argument("--plan", action="store_true", help="print what is left and its cost")
    short.add_argument("--smoke", action="store_true", help="a few steps of little of everything")
    every.set_defaults(run=study_whole)
    for study in (one, grid, several, lists, few, every):
        study.add_argument("--model_dir", help="where everything is written (default: runs/…)")
        study.add_argument("--cache_dir", help="prepared data (default: $ILM_CACHE or ~/.cache)")
        study.add_argument(
            "--jobs",
            type=scheduling.jobs,
            help="steps that run side by side (default: 2 on a CPU of two cores or more, else 1)",
        )
    arguments = parser.parse_args()
    return exit_code(lambda: arguments.run(arguments), "reproduce")


if __name__ == "__main__":
    sys.exit(main())
