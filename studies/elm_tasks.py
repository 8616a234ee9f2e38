"""ELM's tasks about items, all at once: semantic consistency of each, and its mean over them.

Stage 0's corpus holds the texts of training items of every task in `TASKS`, so that the frozen
model knows their words, and stage 2 reads them again, in equal shares; on toy worlds they are
composed from metadata. Every row has the learning rate that is best on the validation
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
from typing import ClassVar, Self

import few_texts
import numpy as np
import receipts
import scheduling
import variations
from exiting import exit_code
from few_texts import Cell, FewTexts
from jaxtyping import Float64
from receipts import Receipt
from steps import Step
from study import toy_world

from ilm_jax.data.examples import elm_templates
from ilm_jax.errors import UserError
from ilm_jax.evaluation.evaluator import DESCRIPTIONS
from ilm_jax.files import atomic_write
from ilm_jax.metrics.intervals import Comparison, compare, mean_interval
from ilm_jax.metrics.values import MetricValues
from ilm_jax.training import finished

TASKS = tuple(elm_templates.TASKS)
STEPS, EVERY = 480, 60
# A prompt names two items at most; rows are as long as those of the recipes.
LENGTHS = {"inputs": 56, "targets": 80}
# Of stage 0, whose corpus is some ten times as large and whose texts are twice as long: rows of 198
# positions as in its recipe.
CORPUS = {
    "TRAIN_STEPS": 1500,
    "TASK_FEATURE_LENGTHS": {"inputs": 0, "targets": 144},
    "PACK_ROOM": 1.375,
}
WORDS = {
    "corpus.CorpusSettings.elm_tasks": tuple(task for task in TASKS if task != DESCRIPTIONS),
    "corpus.CorpusSettings.word_variants": 2,
}
# All test items are written about, for every task.
SCORED = (f"--tasks={','.join(TASKS)}", "--noranking")
MEASURES = ("semantic", "nll_content", "worth_content")
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

    @classmethod
    def of_world(
        cls, number: int, folder: pathlib.Path, cache_dir: str | None = None, jobs: int = 1
    ) -> Self:
        """The study of one toy world, whose number is the seed, in a folder of its own there."""
        own = folder / f"world{number}"
        return cls(toy_world(number), number, own, cache_dir=cache_dir, jobs=jobs)

    def train(self, stage: str, *recipes: str, **bindings: object) -> list[str]:
        """See `Study`: every stage's tokenizer is that of the corpus."""
        return super().train(stage, *recipes, **{**WORDS, **bindings})

    def lm_steps(self) -> list[Step]:
        """See `Study`."""
        words = self.train("stage0", "tiny/stage0.gin", **CORPUS)
        return [("stage0", words, self.lm / finished.FILE)]

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


def of_task(cells: Sequence[Receipt], task: str, measure: str) -> MetricValues:
    """A measure of one task, over the items of all worlds.

    Raises:
      UserError: if the task was not measured.
    """
    name = named(task, measure)
    if missing := [cell.row for cell in cells if name not in cell.metrics]:
        raise UserError(f"{missing[0]} has no {name}: was there a sentence encoder?")
    values, weights = receipts.joined(cells, name)
    return MetricValues(name, "items", np.arange(len(values)), values, weights)


def over_tasks(cells: Sequence[Receipt], measure: str) -> Float64[np.ndarray, " items"]:
    """Each test item's mean over tasks, of nats per token where the measure is in nats.

    Raises:
      UserError: as `of_task`, or if the tasks were not measured on the same items.
    """
    found = [of_task(cells, task, measure) for task in TASKS]
    if len({len(metric.values) for metric in found}) > 1:
        raise UserError(f"{cells[0].row}: tasks were measured on different items")
    weighed = (m.values if m.weights is None else m.values / m.weights for m in found)
    return np.mean(list(weighed), axis=0)


def by_world(cells: Sequence[Receipt], measure: str) -> list[float]:
    """A row's mean over tasks and items in every world."""
    return [float(np.mean(over_tasks([cell], measure))) for cell in cells]


def report(found: Found) -> str:
    """Markdown: semantic consistency by task, means over tasks by world, and paired tests."""
    lines = ["| task | " + " | ".join(f"`{row}`" for row in found) + " |"]
    lines.append("|---" * (1 + len(found)) + "|")
    for task in TASKS:
        metrics = (of_task(cells, task, MEASURES[0]) for cells in found.values())
        lines.append(f"| {task} | " + " | ".join(str(m.interval()) for m in metrics) + " |")
    for measure in MEASURES:
        lines += ["", f"{measure}, mean over tasks; by world"]
        for row, cells in found.items():
            each = ", ".join(f"{mean:.4f}" for mean in by_world(cells, measure))
            lines.append(f"  {row:16} {mean_interval(over_tasks(cells, measure))}   {each}")
        for first, second in PAIRED:
            if found.keys() >= {first, second}:
                lines.append(variations.line_of(*compared(first, second, found, measure)))
    return "\n".join(lines)


def compared(first: str, second: str, found: Found, measure: str) -> tuple[Comparison, str]:
    """A test paired by test item, and what one over worlds says, where there are several."""
    rows = found[first], found[second]
    test = compare(first, over_tasks(rows[0], measure), second, over_tasks(rows[1], measure))
    if len(rows[0]) < 2:
        return test, ""
    p = variations.paired_p(*(by_world(cells, measure) for cells in rows))
    return test, f"; over {len(rows[0])} worlds p = {p:.2g}"


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
            ElmTasks.of_world(world, flags.model_dir, flags.cache_dir, flags.jobs)
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
