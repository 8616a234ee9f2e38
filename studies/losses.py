"""What the interaction losses of stage 1 are worth: stage 1 with both, with each, and without.

Every stage 1 takes as many steps of item-text losses, and those with item-item or user-item losses
take steps of these beside them (`STAGE_ONE`); `text-longer` takes as many steps of item-text losses
as `all` takes altogether, which tells more steps from other losses. Behind each, stage 2 reads the
texts of all training items, with the Q-Former frozen (the adaptor alone trains) or trained, at the
learning rate that few_texts.py chose, and of its run the checkpoint with the lowest validation loss
is measured. nll_content of test items is compared text by text over toy worlds, each with a seed of
its own, and world by world. A row that is measured leaves a receipt in studies/receipts/losses, and
is not run again.

    python studies/losses.py [--worlds 0 1 2] [--readers frozen trained] [--model_dir runs/losses]
"""

import argparse
import dataclasses
import itertools
import pathlib
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import few_texts
import receipts
import scheduling
from exiting import exit_code
from receipts import Receipt
from scipy import stats
from steps import Step, recipe_bindings
from study import Study, plan

from ilm_jax.evaluation.reports import results
from ilm_jax.files import sha256_json
from ilm_jax.locks import one_writer
from ilm_jax.metrics.intervals import mean_interval
from ilm_jax.training import finished

# Losses of stage 1 -> (steps of each kind in turn, steps in all), of which 150 are of item_text but
# in the last.
STAGE_ONE = {
    "all": ({"item_text": 2, "item_item": 1, "user_item": 1}, 300),
    "text+items": ({"item_text": 2, "item_item": 1}, 225),
    "text+users": ({"item_text": 2, "user_item": 1}, 225),
    "text": ({"item_text": 1}, 150),
    "text-longer": ({"item_text": 1}, 300),
}
READERS = {"frozen": {few_texts.FROZEN: ("^adaptor/",)}, "trained": {}}
FOLDER = receipts.FOLDER / "losses"
RATE = 3e-3  # of both readers behind stage 1, with all texts: studies/receipts/few_texts
METRIC = "nll_content"


class Row(NamedTuple):
    """What stage 2 does with the Q-Former, and the losses of the stage 1 that it had."""

    reader: str
    losses: str

    def __str__(self) -> str:
        return f"{self.reader}-{self.losses}"


Found = dict[Row, list[Receipt]]


@dataclasses.dataclass(frozen=True)
class Losses(Study):
    """One toy world and seed.

    Attributes:
      receipts: folder of what was measured.
    """

    receipts: pathlib.Path = FOLDER

    def stage_one(self, losses: str) -> list[str]:
        """The command of a stage 1."""
        schedule, steps = STAGE_ONE[losses]
        bindings = {"CF_TABLE": str(self.table), "SCHEDULE": schedule, "TRAIN_STEPS": steps}
        return self.train(f"stage1-{losses}", self.stage1, **bindings)

    def stage_two(self, row: Row) -> list[str]:
        """The command of a row."""
        recipe = self.recipes["ilm"]
        assert recipe is not None
        sources = {
            "LM_FROM": str(self.lm),
            "CF_TABLE": str(self.table),
            "QFORMER_FROM": str(self.folder / f"stage1-{row.losses}"),
        }
        every = min(few_texts.EVERY, self.most_steps or few_texts.EVERY)
        own = {**few_texts.stage_two(RATE, every), **READERS[row.reader]}
        return self.train(str(row), recipe, **sources, **own)

    def name(self, row: Row) -> str:
        """Of a row's receipt."""
        return f"{self.dataset.replace('/', '_')}_seed{self.seed}_{row}"

    def made_from(self, row: Row) -> dict[str, str]:
        """What a receipt of a row must say: data, and what recipes bind, places aside."""
        commands = {
            "row": self.stage_two(row),
            "stage 1": self.stage_one(row.losses),
            "stage 0": self.lm_steps()[0][1],
        }
        return {"data": self.data} | {
            name: sha256_json(recipe_bindings(command, few_texts.PLACES))
            for name, command in commands.items()
        }

    def steps_of(self, rows: Sequence[Row]) -> list[Step]:
        """Every step of some rows, in order."""
        found = plan(self, ["ilm-rand"], False, until="stage1")
        for losses in dict.fromkeys(row.losses for row in rows):
            name = f"stage1-{losses}"
            found.append((name, self.stage_one(losses), self.folder / name / finished.FILE))
        for row in rows:
            run = self.folder / str(row)
            found.append((str(row), self.stage_two(row), run / finished.FILE))
            output = run / "evaluation"
            measure = ["evaluate", f"--model_dir={run}", f"--output={output}", *few_texts.MEASURED]
            found.append((f"evaluate {row}", measure, output / results.SUMMARY))
        return found


def of_world(
    world: int,
    folder: pathlib.Path,
    cache_dir: str | None = None,
    jobs: int = 1,
    *,
    most_steps: int = 0,
    receipts: pathlib.Path = FOLDER,
) -> Losses:
    """The study of one toy world, whose number is the seed, in a folder of its own in `folder`."""
    dataset, own = f"toy/world{world}" if world else "toy", folder / f"world{world}"
    places = (None, cache_dir)
    return Losses(dataset, world, own, *places, jobs, most_steps=most_steps, receipts=receipts)


def rows_of(readers: Iterable[str]) -> list[Row]:
    """Every row of these readers."""
    return [Row(*pair) for pair in itertools.product(readers, STAGE_ONE)]


def measure(studies: Sequence[Losses], rows: Sequence[Row]) -> Found:
    """Receipts of every row, in the studies' order; what has none is run.

    Raises:
      UserError: if a step fails, or a receipt was made from something else than what would be run.
    """
    found: Found = {row: [] for row in rows}
    for study in studies:
        if missing := [row for row in rows if _kept(study, row) is None]:
            with one_writer(study.folder, "studies/losses.py"):
                seconds = scheduling.run_steps(study, study.steps_of(missing))
            for row in missing:
                receipts.write(study.receipts, _receipt(study, row, seconds))
        for row in rows:
            receipt = _kept(study, row)
            assert receipt is not None
            found[row].append(receipt)
    return found


def _kept(study: Losses, row: Row) -> Receipt | None:
    return receipts.standing(study.receipts, study.name(row), study.made_from(row))


def _receipt(study: Losses, row: Row, seconds: Mapping[str, float]) -> Receipt:
    took = seconds.get(str(row), 0.0) + seconds.get(f"evaluate {row}", 0.0)
    run = study.folder / str(row)
    stored, curve = results.read(run / "evaluation"), few_texts.validations(run)
    made = study.made_from(row)
    return receipts.of_evaluation(study.name(row), made, took, curve, stored, few_texts.METRICS)


def report(found: Found) -> str:
    """The text to print: each row's nll_content, and what it lacks of `all` and has of `text`.

    Raises:
      UserError: if two rows of a world were not measured on the same items.
    """
    lines = []
    for reader in dict.fromkeys(row.reader for row in found):
        rows = {row.losses: cells for row, cells in found.items() if row.reader == reader}
        lines += ["", f"Q-Former {reader} in stage 2; {METRIC} of test items by world, then pooled"]
        for name, cells in rows.items():
            each = "  ".join(f"{cell.mean(METRIC):.4f}" for cell in cells)
            pooled = mean_interval(*receipts.joined(cells, METRIC)).mean
            lines.append(f"  {name:12} {each}   {pooled:.4f}")
        for first, second in pairs(rows):
            lines.append(_difference(first, rows[first], second, rows[second]))
    return "\n".join(lines).strip()


def pairs(rows: Iterable[str]) -> list[tuple[str, str]]:
    """Losses of stage 1 that are compared: those with `all` and those with `text`."""
    every = itertools.combinations(rows, 2)
    return [(first, second) for first, second in every if first == "all" or second == "text"]


def _difference(first: str, ours: Sequence[Receipt], second: str, theirs: Sequence[Receipt]) -> str:
    said = f"  {receipts.compare_rows(first, ours, second, theirs, METRIC)}"
    if len(ours) > 1:
        said += f"; over {len(ours)} worlds p = {over_worlds(ours, theirs):.2g}"
    return said


def over_worlds(ours: Sequence[Receipt], theirs: Sequence[Receipt]) -> float:
    """p of a paired t test whose units are worlds."""
    means = [[receipt.mean(METRIC) for receipt in rows] for rows in (ours, theirs)]
    return float(stats.ttest_rel(*means).pvalue)


def main(argv: Sequence[str] | None = None) -> int:
    """Parses the words and runs the study; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="losses.py", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--worlds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--readers", nargs="+", choices=READERS, default=list(READERS))
    parser.add_argument("--model_dir", default="runs/losses", help="where everything is written")
    parser.add_argument("--cache_dir", help="prepared data (default: $ILM_CACHE or ~/.cache)")
    parser.add_argument("--jobs", type=int, default=scheduling.default_jobs())
    flags = parser.parse_args(argv)
    folder = pathlib.Path(flags.model_dir)
    worlds = [of_world(world, folder, flags.cache_dir, flags.jobs) for world in flags.worlds]
    rows = rows_of(flags.readers)
    return exit_code(lambda: print("\n" + report(measure(worlds, rows))), "losses.py")


if __name__ == "__main__":
    sys.exit(main())
