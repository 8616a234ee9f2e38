"""Runs whole studies by the verbs a person would type, and prints one table.

    python launch/reproduce.py quickstart [--dataset toy] [--data_dir DIR] [--model_dir DIR]
    python launch/reproduce.py order [--pairs 0:0 1:1 2:2 3:3 4:4] [--model_dir DIR]

`quickstart` runs data, CF, stages 0, 1 and 2 and the evaluation of every row on one dataset.
`order` repeats the three adaptor rows on several (toy world, seed) pairs and tests whether
nll_content of ilm is below ilm-rand, and that below mlp. Finished steps are skipped, half-done
ones resume, so an interrupted study goes on where it was.
"""

import argparse
import dataclasses
import json
import pathlib
import subprocess
import sys
import time
from collections.abc import Sequence

from ilm_jax.errors import UserError
from ilm_jax.evaluation import plots, results
from ilm_jax.evaluation import report as reports
from ilm_jax.files import atomic_write

# Row -> recipe; text-zero is the frozen language model of stage 0 as it stands.
RECIPES = {
    "text-zero": None,
    "mlp": "tiny/stage2_mlp.gin",
    "ilm-rand": "tiny/stage2_ilm_rand.gin",
    "ilm": "tiny/stage2_ilm.gin",
    "text-full": "tiny/stage2_text_full.gin",
}
ADAPTOR_ROWS = ("mlp", "ilm-rand", "ilm")
# nll_content of the first is expected below the second's.
ORDER = (("ilm", "ilm-rand"), ("ilm-rand", "mlp"))
# What tiny/data.gin sets, for the verb that prepares the caches.
SETTINGS = '{"history": 5, "corpus_sequential_examples": 1500, "corpus_word_variants": 8}'
# Stage 0 was trained without prompts, so evaluating it needs the lengths of stage 2.
PROMPT_LENGTHS = {"toy": {"inputs": 76, "targets": 36}}
# MovieLens texts are longer than the toy world's, for which the tiny recipes are cut.
PROMPT_LENGTHS["movielens"] = {"inputs": 112, "targets": 112}
LONGER: dict[str, dict[str, object]] = {
    "stage0": {"TASK_FEATURE_LENGTHS": {"inputs": 0, "targets": 208}},
    "stage1": {
        "TASK_FEATURE_LENGTHS": {"text": 112},
        "qformer.QFormerConfig.max_text_length": 112,
    },
    "stage2": {"TASK_FEATURE_LENGTHS": PROMPT_LENGTHS["movielens"]},
}


@dataclasses.dataclass(frozen=True)
class Study:
    """One dataset, one seed, one folder."""

    dataset: str
    seed: int
    folder: pathlib.Path
    data_dir: str | None = None
    cache_dir: str | None = None

    @property
    def table(self) -> pathlib.Path:
        """The CF vectors of this study."""
        return self.folder / "cf.safetensors"

    def data_flags(self) -> list[str]:
        """Flags that name the dataset to every data verb."""
        flags = [f"--dataset={self.dataset}"]
        flags += [f"--data_dir={self.data_dir}"] if self.data_dir else []
        return flags + ([f"--cache_dir={self.cache_dir}"] if self.cache_dir else [])

    @property
    def family(self) -> str:
        """The dataset's name without its configuration."""
        return self.dataset.split("/")[0]

    def longer(self, stage: str) -> dict[str, object]:
        """Bindings that make room for a dataset's longer texts."""
        if self.family == "toy":
            return {}
        return LONGER.get(stage, LONGER["stage2"])

    def train(self, stage: str, recipe: str, **bindings: object) -> list[str]:
        """The command that trains one stage or row."""
        values = {
            "MODEL_DIR": str(self.folder / stage),
            "DATASET": self.dataset,
            "SEED": self.seed,
            **({"DATA_DIR": self.data_dir} if self.data_dir else {}),
            **({"CACHE_DIR": self.cache_dir} if self.cache_dir else {}),
            **self.longer(stage),
            **bindings,
        }
        words = [f"--gin.{name}={value!r}" for name, value in values.items()]
        return ["train", f"--gin_file={recipe}", *words]


def plan(study: Study, rows: list[str], ranking: bool) -> list[tuple[str, list[str], pathlib.Path]]:
    """(name, words after `ilm`, file that says it is done) of every step, in order."""
    folder = study.folder
    steps = [
        ("data", ["cache_tasks", *study.data_flags(), f"--settings={SETTINGS}"],
         folder / "data_is_ready"),
        ("cf", ["fit_cf", *study.data_flags(), f"--output={study.table}", f"--seed={study.seed}"],
         study.table),
        ("stage0", study.train("stage0", "tiny/stage0.gin"), folder / "stage0/last_run.json"),
    ]  # fmt: skip
    table, stage0, stage1 = str(study.table), str(folder / "stage0"), str(folder / "stage1")
    if "ilm" in rows:
        steps.append(("stage1", study.train("stage1", "tiny/stage1.gin", CF_TABLE=table),
                      folder / "stage1/last_run.json"))  # fmt: skip
    for row in rows:
        recipe = RECIPES[row]
        if recipe is not None:
            sources = {"LM_FROM": stage0}
            sources |= {"CF_TABLE": table} if row in ADAPTOR_ROWS else {}
            sources |= {"QFORMER_FROM": stage1} if row == "ilm" else {}
            command = study.train(row, recipe, **sources)
            steps.append((row, command, folder / row / "last_run.json"))
        trained = folder / (row if recipe else "stage0")
        output = folder / row / "evaluation"
        command = ["evaluate", f"--model_dir={trained}", f"--output={output}"]
        command += [] if ranking else ["--noranking"]
        if recipe is None:
            lengths = PROMPT_LENGTHS.get(study.family, PROMPT_LENGTHS["movielens"])
            command.append(f"--gin.TASK_FEATURE_LENGTHS={lengths}")
        steps.append((f"evaluate {row}", command, output / "evaluation.json"))
    return steps


def run_study(study: Study, rows: list[str], *, ranking: bool = True) -> dict[str, float]:
    """Runs every missing step. Returns seconds by step, kept in the folder."""
    folder = study.folder
    steps = plan(study, rows, ranking)
    seconds = _read_json(folder / "seconds.json")
    for number, (name, command, done) in enumerate(steps, 1):
        if done.exists():
            continue
        print(f"[{number}/{len(steps)}] {name}: ilm {' '.join(command)}", flush=True)
        start = time.monotonic()
        _run(command, name)
        seconds[name] = seconds.get(name, 0.0) + time.monotonic() - start
        with atomic_write(folder / "seconds.json") as stream:
            json.dump(seconds, stream, indent=1)
        if not done.exists():
            done.parent.mkdir(parents=True, exist_ok=True)
            done.touch()
    return seconds


def _run(command: list[str], name: str) -> None:
    result = subprocess.run([sys.executable, "-m", "ilm_jax", *command], check=False)
    if result.returncode:
        raise UserError(
            f"step {name!r} failed (exit code {result.returncode}); its message is above"
        )


def _read_json(path: pathlib.Path) -> dict:
    return json.loads(path.read_text()) if path.exists() else {}


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
            figures=evaluation.record["figures"],
            # Nothing was trained for the floor: its language model counts as frozen.
            trainable_params=0 if row == "text-zero" else evaluation.record["trainable_params"],
            frozen_params=evaluation.record["frozen_params"]
            + (evaluation.record["trainable_params"] if row == "text-zero" else 0),
            seconds=row_seconds(row, seconds),
            intervals=evaluation.intervals,
            note={"text-full": "the language model itself is trained"}.get(row, ""),
        )
        for row, evaluation in stored.items()
    ]
    first = next(iter(stored.values()))
    ceiling = first.record["ceiling"]
    comparisons = [
        results.compare_content(a, [stored[a]], b, [stored[b]]) for a, b in ORDER
    ]  # fmt: skip
    reports.write_report(
        study.folder / "report.json", study.dataset, study.seed, table,
        protocol=first.record["protocol"], comparisons=comparisons, ceiling=ceiling,
    )  # fmt: skip
    draw_curves(study, ("stage0", "stage1"), "pretraining.png")
    draw_curves(study, rows, "stage2.png")
    lines = [
        reports.format_table(table, ceiling=ceiling),
        "",
        "nll_content, paired by held-out item:",
    ]
    lines += [f"  {comparison}" for comparison in comparisons]
    protocol = first.record["protocol"]
    lines += [
        "",
        f"ranking: {protocol['candidates']}, users {protocol['users']}, {protocol['beams']} beams",
        f"nll: {protocol['nll']}",
        "",
        f"report {study.folder}/report.json",
        f"curves {study.folder}/pretraining.png, {study.folder}/stage2.png",
        f"runs   {study.folder}/{{stage0,stage1,{','.join(rows)}}}",
    ]
    return "\n".join(lines)


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
            lines.append(
                f"            {results.compare_content(a, stored[a][-1:], b, stored[b][-1:])}"
            )
    lines.append("all pairs together (items of every pair):")
    for a, b in ORDER:
        lines.append(f"            {results.compare_content(a, stored[a], b, stored[b])}")
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
    several = studies.add_parser("order", help="ilm < ilm-rand < mlp on several worlds and seeds")
    several.add_argument("--pairs", nargs="+", default=["0:0", "1:1", "2:2", "3:3", "4:4"])
    several.set_defaults(run=order)
    for study in (one, several):
        study.add_argument("--model_dir", help="where everything is written (default: runs/…)")
        study.add_argument("--cache_dir", help="prepared data (default: $ILM_CACHE or ~/.cache)")
    arguments = parser.parse_args()
    try:
        arguments.run(arguments)
    except UserError as error:
        print(f"reproduce: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("reproduce: interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
