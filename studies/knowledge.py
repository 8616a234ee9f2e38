"""What the auxiliary tasks of recommendation knowledge are worth: with and without, seed by seed.

    python studies/knowledge.py [--recipe tiny/knowledge.gin] [--dataset toy] [--data_dir DIR]
                                [--seeds 0 1 2] [--users N] [--model_dir DIR] [--gin.NAME=VALUE …]

Trains the recipe with its auxiliary tasks and, by AUXILIARY=0, without, as many steps each, and
measures both on test: retrieval over the full catalogue, ranking among candidates, ratings. Every
metric is paired by user, each user's values averaged over the seeds. Finished steps are skipped,
half-done ones resume.
"""

import argparse
import dataclasses
import pathlib
import sys
from collections.abc import Mapping, Sequence

import numpy as np
import scheduling
from steps import Step
from study import Study

from ilm_jax.cli.words import split_bindings
from ilm_jax.data.catalogue.splits import SplitConfig, Splits, make_splits
from ilm_jax.data.examples.candidates import targets_of
from ilm_jax.data.sources.prepare import load_catalogue
from ilm_jax.errors import UserError
from ilm_jax.evaluation.reports import results
from ilm_jax.evaluation.reports.comparison import Paired, pair_all
from ilm_jax.files import trouble
from ilm_jax.locks import one_writer
from ilm_jax.metrics.values import MetricValues
from ilm_jax.runs.sweeps import parse_value

# Row -> the rate of the auxiliary tasks; None: the recipe's.
ROWS: Mapping[str, float | None] = {"with": None, "without": 0.0}
TASKS = ("retrieval", "ranking", "rating")
SHOWN = ("retrieval/hr@10", "retrieval/ndcg@10", "ranking/hr@1", "ranking/ndcg@10", "rating/mae")


@dataclasses.dataclass(frozen=True)
class KnowledgeStudy(Study):
    """One dataset, one recipe, several seeds, one folder.

    Attributes:
      recipe: of gin.
      bindings: {name: value} of both rows.
      tasks: that are measured.
      users: so many are measured; 0: all.
    """

    recipe: str = "tiny/knowledge.gin"
    bindings: Mapping[str, object] = dataclasses.field(default_factory=dict)
    tasks: tuple[str, ...] = TASKS
    users: int = 0

    def longer(self, stage: str) -> dict[str, object]:
        """See `Study`: what the command line binds."""
        del stage
        return dict(self.bindings)

    def place(self, row: str, seed: int) -> pathlib.Path:
        """Folder of a row's run."""
        return self.folder / f"{row}-{seed}"

    def steps(self, seeds: Sequence[int]) -> list[Step]:
        """Every step, in order."""
        found: list[Step] = []
        for seed in seeds:
            for row, rate in ROWS.items():
                run = self.place(row, seed)
                own: dict[str, object] = {} if rate is None else {"AUXILIARY": rate}
                words = self.train(run.name, self.recipe, SEED=seed, **own)
                found.append((run.name, words, run / "last_run.json"))
                words = ["evaluate", f"--model_dir={run}", f"--tasks={','.join(self.tasks)}"]
                words += [f"--users={self.users}"] if self.users else []
                done = run / "evaluation/evaluation.json"
                found.append((f"evaluate {run.name}", words, done))
        return found


def over_seeds(evaluations: Sequence[results.Stored]) -> dict[str, MetricValues]:
    """Metrics of several evaluations on the same units: each unit's mean over them.

    What is better neither way, such as the popularity of what is listed, is left out.

    Raises:
      UserError: if they were measured on different units.
    """
    found = {}
    for name, metric in evaluations[0].metrics.items():
        if metric.higher_is_better is None:
            continue
        same = [evaluation.metrics[name] for evaluation in evaluations]
        if any(not np.array_equal(metric.index, other.index) for other in same):
            raise UserError(f"{name} was measured on other {metric.unit} with another seed")
        values = np.mean([other.values for other in same], axis=0)
        found[name] = dataclasses.replace(metric, values=values)
    return found


def by_popularity(splits: Splits, length: int = 10) -> dict[str, float]:
    """Metrics of the one list of the items that training chose most, on all users of test."""
    best = np.argsort(-splits.train_counts(), kind="stable")[:length].tolist()
    targets = [row for (split, _), row in targets_of(splits).items() if split == "test"]
    places = np.array([best.index(row) if row in best else -1 for row in targets])
    gains = np.where(places < 0, 0.0, 1 / np.log2(np.maximum(places, 0) + 2.0))
    return {"hr@10": float(np.mean(places >= 0)), "ndcg@10": float(gains.mean())}


def report(study: KnowledgeStudy, seeds: Sequence[int]) -> str:
    """The text to print."""
    stored = {row: [results.read(study.place(row, seed)) for seed in seeds] for row in ROWS}
    shown = [name for name in SHOWN if name in stored["with"][0].metrics]
    lines = ["  ".join(["row      seed", *(f"{name:>17}" for name in shown)])]
    for row, evaluations in stored.items():
        for seed, evaluation in zip(seeds, evaluations, strict=True):
            means = [f"{evaluation.metrics[name].mean:17.4f}" for name in shown]
            lines.append("  ".join([f"{row:8} {seed:4}", *means]))
    split = stored["with"][0].record["protocol"]["split"]
    catalogue = load_catalogue(study.dataset, data_dir=study.data_dir, cache_dir=study.cache_dir)
    config = {name: split[name] for name in ("held_out_items", "seed", "item_pairs_of_held_out")}
    popular = by_popularity(make_splits(catalogue, SplitConfig(**config)))
    lines += [
        f"popularity    {popular['hr@10']:17.4f}  {popular['ndcg@10']:17.4f}",
        f"chance        {10 / catalogue.num_items:17.4f}",
        "",
        f"with - without the auxiliary tasks, users' means over {len(seeds)} seeds:",
    ]
    pairs = pair_all(over_seeds(stored["with"]), over_seeds(stored["without"]))
    return "\n".join([*lines, *map(line_of, pairs)])


def line_of(paired: Paired, first: str = "with", second: str = "without") -> str:
    """A metric's difference with its interval, in a line."""
    verdict = paired.verdict(first, second).replace("tie within noise", "undecided")
    return (
        f"  {paired.name:26} {paired.first:.4f} {paired.second:.4f}  {paired.difference}  "
        f"p = {paired.p_value:.2g}, {paired.units} {paired.unit}: {verdict}"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Parses the words and runs the study; returns the exit code."""
    bound, words = split_bindings(list(sys.argv[1:] if argv is None else argv))
    parser = argparse.ArgumentParser(
        prog="knowledge.py", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--recipe", default="tiny/knowledge.gin")
    parser.add_argument("--dataset", default="toy")
    parser.add_argument("--data_dir", help="folder of the raw files (not for toy)")
    parser.add_argument("--cache_dir", help="prepared data (default: $ILM_CACHE or ~/.cache)")
    parser.add_argument("--model_dir", default="runs/knowledge", help="where everything is written")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), help="that are measured")
    parser.add_argument("--users", type=int, default=0, help="so many are measured (0: all)")
    parser.add_argument("--jobs", type=int, default=1, help="steps that run side by side")
    flags = parser.parse_args(words)
    study = KnowledgeStudy(
        flags.dataset,
        flags.seeds[0],
        pathlib.Path(flags.model_dir),
        flags.data_dir,
        flags.cache_dir,
        flags.jobs,
        recipe=flags.recipe,
        bindings={n: parse_value(v) for n, _, v in (b.partition("=") for b in bound)},
        tasks=tuple(flags.tasks),
        users=flags.users,
    )
    try:
        with one_writer(study.folder, "studies/knowledge.py"):
            scheduling.run_steps(study, study.steps(flags.seeds))
        print("\n" + report(study, flags.seeds))
    except (UserError, OSError) as error:
        print(f"knowledge: error: {trouble(error) or error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
