"""ELM's tasks about items, all at once: semantic consistency of each, and its mean over them.

Stage 2 reads the texts of training items of every task in `TASKS`, in equal shares; on toy worlds
they are composed from metadata. Every row has the learning rate that is best on the validation
items of seed 0, and of its run the checkpoint with the lowest validation loss writes about test
items. What it writes is compared with the reference by a sentence encoder (0: as near as the
references of other items, 1: the same), as ILM's paper does over these tasks, and nll_content of
the references is measured beside it. Each seed has a world of its own; receipts:
studies/receipts/elm_tasks.

    python studies/elm_tasks.py [--worlds 0 1 2] [--rows mlp ilm-rand …]
                                [--model_dir runs/elm_tasks]
"""

import argparse
import dataclasses
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import ClassVar

import few_texts
import numpy as np
import receipts
import scheduling
import variations
from exiting import exit_code
from few_texts import Cell, FewTexts
from jaxtyping import Float64
from receipts import Receipt
from study import toy_world

from ilm_jax.data.examples import elm_templates
from ilm_jax.errors import UserError
from ilm_jax.evaluation.evaluator import DESCRIPTIONS
from ilm_jax.files import atomic_write
from ilm_jax.metrics.intervals import Comparison, compare, mean_interval
from ilm_jax.metrics.values import MetricValues

TASKS = tuple(elm_templates.TASKS)
STEPS, EVERY = 480, 60
# A prompt names two items at most; rows are as long as those of the recipes.
LENGTHS = {"inputs": 56, "targets": 80}
# So many of the test items are described, for every task.
SCORED = (f"--tasks={','.join(TASKS)}", "--noranking", "--texts=100")
MEASURES = ("semantic", "nll_content")
FOLDER = receipts.FOLDER / "elm_tasks"
PAIRED = (
    ("ilm", "ilm-rand"),
    ("ilm-frozen", "ilm-rand-frozen"),
    ("ilm-rand", "mlp"),
    ("ilm", "mlp"),
)
Found = Mapping[str, Sequence[Receipt]]


def named(task: str, measure: str) -> str:
    """What a metric of a task is called in an evaluation."""
    return measure if task == DESCRIPTIONS else f"{task}/{measure}"


@dataclasses.dataclass(frozen=True)
class ElmTasks(FewTexts):
    """One toy world and seed."""

    receipts: pathlib.Path = FOLDER
    rows: ClassVar[Mapping[str, tuple[str, bool]]] = {"mlp": ("mlp", False), **few_texts.ROWS}
    grid: ClassVar[Sequence[float]] = (3e-3, 1e-2)
    scored: ClassVar[Sequence[str]] = SCORED
    metrics: ClassVar[Sequence[str]] = tuple(named(t, m) for t in TASKS for m in MEASURES)

    def texts_alone(self, rate: float) -> dict[str, object]:
        """See `FewTexts`."""
        return {
            **few_texts.stage_two(rate, min(EVERY, self.most_steps or EVERY)),
            "MIXTURE_OR_TASK_NAME": dict.fromkeys(TASKS, 1.0),
            "TRAIN_STEPS": STEPS,
            "TASK_FEATURE_LENGTHS": LENGTHS,
        }

    def made_from(self, cell: Cell, rate: float) -> dict[str, str]:
        """See `FewTexts`."""
        return {**super().made_from(cell, rate), "measured": " ".join(self.scored)}


def of_tasks(cells: Sequence[Receipt], measure: str) -> dict[str, MetricValues]:
    """A measure by task, over the texts of all worlds.

    Raises:
      UserError: if a task was not measured.
    """
    found = {}
    for task in TASKS:
        name = named(task, measure)
        if missing := [cell.row for cell in cells if name not in cell.metrics]:
            raise UserError(f"{missing[0]} has no {name}: was there a sentence encoder?")
        values, weights = receipts.joined(cells, name)
        found[task] = MetricValues(name, "texts", np.arange(len(values)), values, weights)
    return found


def by_world(cells: Sequence[Receipt], measure: str) -> Float64[np.ndarray, " worlds"]:
    """A row's mean over tasks in every world."""
    return np.array([np.mean([cell.mean(named(t, measure)) for t in TASKS]) for cell in cells])


def report(found: Found) -> str:
    """Markdown: semantic consistency by task, means over tasks by world, and paired tests."""
    tables = {row: of_tasks(cells, "semantic") for row, cells in found.items()}
    lines = ["| task | " + " | ".join(f"`{row}`" for row in found) + " |"]
    lines.append("|---" * (1 + len(found)) + "|")
    for task in TASKS:
        shown = (str(mean_interval(table[task].values)) for table in tables.values())
        lines.append(f"| {task} | " + " | ".join(shown) + " |")
    for measure in MEASURES:
        worlds = {row: by_world(cells, measure) for row, cells in found.items()}
        lines += ["", f"{measure}, mean over tasks; by world"]
        for row, means in worlds.items():
            each = ", ".join(f"{mean:.4f}" for mean in means)
            lines.append(f"  {row:16} {means.mean():.4f}   {each}")
        for first, second in PAIRED:
            if found.keys() >= {first, second}:
                lines.append(variations.line_of(*compared(first, second, found, measure)))
    return "\n".join(lines)


def compared(first: str, second: str, found: Found, measure: str) -> tuple[Comparison, str]:
    """A test paired over all texts, and what one over worlds says, where there are several."""
    ours, theirs = (list(of_tasks(found[row], measure).values()) for row in (first, second))
    flat = [np.concatenate([metric.values for metric in row]) for row in (ours, theirs)]
    weights = [metric.weights for metric in ours if metric.weights is not None]
    test = compare(first, flat[0], second, flat[1], np.concatenate(weights) if weights else None)
    means = [by_world(found[row], measure).tolist() for row in (first, second)]
    if len(means[0]) < 2:
        return test, ""
    return test, f"; over {len(means[0])} worlds p = {variations.paired_p(*means):.2g}"


def main(argv: Sequence[str] | None = None) -> int:
    """Parses the words and runs the study; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="elm_tasks.py", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    every = list(ElmTasks.rows)
    parser.add_argument("--worlds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--rows", nargs="+", choices=every, default=every)
    folder = pathlib.Path("runs/elm_tasks")
    parser.add_argument("--model_dir", default=folder, type=pathlib.Path, help="where runs go")
    parser.add_argument("--cache_dir", help="prepared data (default: $ILM_CACHE or ~/.cache)")
    parser.add_argument("--jobs", type=scheduling.jobs, default=scheduling.default_jobs())
    flags = parser.parse_args(argv)

    def run() -> None:
        worlds = [
            ElmTasks(
                toy_world(world),
                world,
                flags.model_dir / f"world{world}",
                cache_dir=flags.cache_dir,
                jobs=flags.jobs,
            )
            for world in flags.worlds
        ]
        found = few_texts.measure(worlds, [0], rows=flags.rows)
        text = report({row: cells for (_, row), cells in found.items()})
        with atomic_write(flags.model_dir / "table.md") as stream:
            stream.write(text + "\n")
        print("\n" + text)

    return exit_code(run, "elm_tasks.py")


if __name__ == "__main__":
    sys.exit(main())
