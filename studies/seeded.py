"""What studies share that train several rows, seed by seed, and pair each user's mean over them."""

import argparse
import dataclasses
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import scheduling
from steps import Step
from study import Study

from ilm_jax.cli.words import split_bindings
from ilm_jax.errors import UserError
from ilm_jax.evaluation.reports import results
from ilm_jax.evaluation.reports.comparison import Paired
from ilm_jax.files import trouble
from ilm_jax.locks import one_writer
from ilm_jax.metrics.values import MetricValues
from ilm_jax.runs.sweeps import parse_value


@dataclasses.dataclass(frozen=True)
class SeededStudy(Study):
    """One dataset, one recipe, several rows and seeds, one folder.

    Attributes:
      recipe: of gin.
      bindings: {name: value} of all rows.
      users: so many are measured; 0: all.
    """

    recipe: str = "tiny/knowledge.gin"
    bindings: Mapping[str, object] = dataclasses.field(default_factory=dict)
    users: int = 0

    def longer(self, stage: str) -> dict[str, object]:
        """See `Study`: what the command line binds."""
        del stage
        return dict(self.bindings)

    def place(self, row: str, seed: int) -> pathlib.Path:
        """Folder of a row's run."""
        return self.folder / f"{row}-{seed}"

    def row_steps(self, row: str, seed: int, flags: Sequence[str], **own: object) -> list[Step]:
        """Training a row with bindings of its own, and evaluating it by these flags."""
        run = self.place(row, seed)
        train = self.train(run.name, self.recipe, SEED=seed, **own)
        evaluate = ["evaluate", f"--model_dir={run}", *flags]
        evaluate += [f"--users={self.users}"] if self.users else []
        done = run / "evaluation/evaluation.json"
        return [
            (run.name, train, run / "last_run.json"),
            (f"evaluate {run.name}", evaluate, done),
        ]


S = TypeVar("S", bound=SeededStudy)


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


def line_of(paired: Paired, first: str, second: str) -> str:
    """A metric's difference with its interval, in a line."""
    verdict = paired.verdict(first, second).replace("tie within noise", "undecided")
    return (
        f"  {paired.name:26} {paired.first:.4f} {paired.second:.4f}  {paired.difference}  "
        f"p = {paired.p_value:.2g}, {paired.units} {paired.unit}: {verdict}"
    )


def parser_of(script: str, description: str | None, folder: str) -> argparse.ArgumentParser:
    """A parser with the words of every such study."""
    parser = argparse.ArgumentParser(
        prog=script, description=description, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--recipe", default="tiny/knowledge.gin")
    parser.add_argument("--dataset", default="toy")
    parser.add_argument("--data_dir", help="folder of the raw files (not for toy)")
    parser.add_argument("--cache_dir", help="prepared data (default: $ILM_CACHE or ~/.cache)")
    parser.add_argument("--model_dir", default=folder, help="where everything is written")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--users", type=int, default=0, help="so many are measured (0: all)")
    parser.add_argument("--jobs", type=int, default=1, help="steps that run side by side")
    return parser


def parse(
    parser: argparse.ArgumentParser, argv: Sequence[str] | None
) -> tuple[argparse.Namespace, dict[str, Any]]:
    """(flags, what of a `SeededStudy` they and the --gin.NAME=VALUE among the words set)."""
    bound, words = split_bindings(list(sys.argv[1:] if argv is None else argv))
    flags = parser.parse_args(words)
    fields = {name: getattr(flags, name) for name in _FIELDS}
    fields |= {"seed": flags.seeds[0], "folder": pathlib.Path(flags.model_dir)}
    pairs = (binding.partition("=") for binding in bound)
    return flags, fields | {"bindings": {name: parse_value(value) for name, _, value in pairs}}


_FIELDS = ("dataset", "data_dir", "cache_dir", "jobs", "recipe", "users")


def run(
    script: str,
    study: S,
    seeds: Sequence[int],
    steps: Sequence[Step],
    report: Callable[[S, Sequence[int]], str],
) -> int:
    """Runs the missing steps and prints the report; returns the exit code."""
    try:
        with one_writer(study.folder, f"studies/{script}"):
            scheduling.run_steps(study, steps)
        print("\n" + report(study, seeds))
    except (UserError, OSError) as error:
        print(f"{script}: error: {trouble(error) or error}", file=sys.stderr)
        return 2
    return 0
