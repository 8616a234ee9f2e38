"""Does correcting sampled ranks help WARP and LambdaRank as losses of an item head?

    python studies/head_ranks.py [--dataset toy] [--data_dir DIR] [--seeds 0] [--drawn 10 100]
                                 [--vectors RECIPE] [--steps 500] [--model_dir runs/head_ranks]

The head of `tiny/stage2_items_bare.gin` (histories alone, a trained row an item, behind a frozen
decoder that was never trained) is trained with each loss at m shared uniform negatives, with the
rank of the sample and with the corrected rank, with every item as a candidate, where ranks are
full, and with the softmax over all items. Its item vectors are iALS', so that lists are sensible
from the first step on. All runs take as many steps at one learning rate. NDCG@10 of the test
targets over the whole catalogue, what a user had left out, is compared by user, over the mean of
the seeds; behind each test stands the difference that it would find in four of five such samples
of users. Finished runs are kept, so the same command goes on where it was.
"""

import argparse
import dataclasses
import itertools
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
import scheduling
from cf_ranks import CUTOFF, FULL, LOSSES, findable
from exiting import exit_code
from jaxtyping import Float64
from steps import Step
from study import Study

from ilm_jax.evaluation.reports import results
from ilm_jax.files import atomic_write
from ilm_jax.locks import one_writer
from ilm_jax.metrics.intervals import compare, mean_interval
from ilm_jax.training import finished

RECIPES = ("tiny/stage2_mlp.gin", "tiny/stage2_items_bare.gin")
VECTORS, DIM = "runs/cf_ml1m.gin", 128
LEARNING_RATE, STEPS = 5e-3, 500
METRIC = "ndcg@10"
SOFTMAX = "softmax"
NAMES = {"sampled": "uncorrected"}
PerUser = Mapping["Cell", Float64[np.ndarray, " users"]]


class Cell(NamedTuple):
    """A loss with a kind of rank at m negatives (`FULL`: all of them)."""

    loss: str
    rank: str
    drawn: int

    def __str__(self) -> str:
        if self.loss == SOFTMAX:
            return SOFTMAX
        if self.drawn == FULL:
            return f"{self.loss}-full"
        return f"{self.loss}-{NAMES.get(self.rank, self.rank)}-{self.drawn}"


def cells(drawn: Sequence[int]) -> list[Cell]:
    """All that are compared, the softmax first."""
    sampled = itertools.product(LOSSES, ("sampled", "corrected"), drawn)
    full = [Cell(loss, "corrected", FULL) for loss in LOSSES]
    return [Cell(SOFTMAX, "", FULL), *(Cell(*cell) for cell in sampled), *full]


@dataclasses.dataclass(frozen=True)
class Untrained(Study):
    """The toy world's decoder as it was drawn; no item is held out, as in the rows."""

    split: ClassVar[Mapping[str, Any]] = {"split": {"held_out_items": 0}}

    def lm_steps(self) -> list[Step]:
        """See `Study`."""
        bound = {"TRAIN_STEPS": 1, "LEARNING_RATE": 1e-9, "HELD_OUT_ITEMS": 0}
        words = self.train("stage0", "tiny/stage0.gin", **bound)
        return [("stage0", words, self.lm / finished.FILE)]


@dataclasses.dataclass(frozen=True)
class HeadRanks(Study):
    """One seed.

    Attributes:
      steps: of every cell.
      vectors: the recipe that fits them, but for their dimension.
    """

    steps: int = STEPS
    vectors: str = VECTORS

    def longer(self, stage: str) -> dict[str, object]:
        """See `Study`: the recipe's lengths are those of histories."""
        del stage
        return {}

    def row(self, cell: Cell, language: Study) -> list[str]:
        """The command that trains a cell; it reads nothing of `language` but that it is frozen."""
        bound: dict[str, object] = {
            "LM_FROM": str(language.lm),
            "TOKENIZER": str(language.tokenizer),
            "CF_TABLE": str(self.table),
            "HELD_OUT_ITEMS": 0,
            "TRAIN_STEPS": self.steps,
            "LEARNING_RATE": LEARNING_RATE,
            "item_head.ItemHead.vectors": "row",
        }
        if cell.loss == SOFTMAX:
            return self.train(str(cell), *RECIPES, **bound)
        bound |= {
            "ranking_loss.RankingLoss.name": cell.loss,
            "ranking_loss.RankingLoss.rank": cell.rank,
            "ranking_loss.RankingLoss.cutoff": CUTOFF.get(cell.loss),
            "negatives.SamplerConfig.kind": "uniform" if cell.drawn else "all",
            "negatives.SamplerConfig.drawn": cell.drawn or None,
        }
        words = self.train(str(cell), *RECIPES, **{k: v for k, v in bound.items() if v is not None})
        return [*words, "--gin.ITEM_LOSS=@ranking_loss.RankingLoss()"]

    def steps_of(self, chosen: Sequence[Cell]) -> list[Step]:
        """Every step, in order."""
        language = Untrained("toy", 0, self.folder / "language", cache_dir=self.cache_dir)
        fit = ["fit_cf", f"--gin_file={self.vectors}", f"--gin.ials.IALSConfig.dim={DIM}"]
        fit += ["--gin.HELD_OUT_ITEMS=0", *self.data_flags(), f"--output={self.table}"]
        found: list[Step] = [
            ("cf", [*fit, f"--gin.SEED={self.seed}"], self.table),
            *language.lm_steps(),
        ]
        for cell in chosen:
            run = self.folder / str(cell)
            found.append((str(cell), self.row(cell, language), run / finished.FILE))
            words = ["evaluate", f"--model_dir={run}", "--tasks=sequential_random"]
            output = run / "evaluation"
            words += ["--exclude_seen", "--nogeneration", f"--output={output}"]
            found.append((f"evaluate {cell}", words, output / results.SUMMARY))
        return found

    def found(self, cell: Cell) -> Float64[np.ndarray, " users"]:
        """NDCG@10 of every user."""
        return results.read(self.folder / str(cell) / "evaluation").metrics[METRIC].values


def measure(studies: Sequence[HeadRanks], drawn: Sequence[int]) -> dict[Cell, list[np.ndarray]]:
    """Each cell's values by seed; what is missing is run."""
    chosen = cells(drawn)
    for study in studies:
        with one_writer(study.folder, "studies/head_ranks.py"):
            scheduling.run_steps(study, study.steps_of(chosen))
    return {cell: [study.found(cell) for study in studies] for cell in chosen}


def report(found: Mapping[Cell, Sequence[np.ndarray]]) -> str:
    """Figures with intervals over users, each seed's mean, and the paired tests."""
    mean = {cell: np.mean(values, axis=0) for cell, values in found.items()}
    lines = [f"test {METRIC}, {len(next(iter(mean.values())))} users"]
    for cell, values in found.items():
        each = ", ".join(f"{value.mean():.4f}" for value in values)
        lines.append(f"  {str(cell):24} {mean_interval(mean[cell])}  by seed {each}")
    lines.append("paired by user")
    softmax = Cell(SOFTMAX, "", FULL)
    for loss in LOSSES:
        full = Cell(loss, "corrected", FULL)
        lines.append(_test(mean, full, softmax))
        for drawn in sorted({cell.drawn for cell in mean} - {FULL}):
            plain, corrected = Cell(loss, "sampled", drawn), Cell(loss, "corrected", drawn)
            pairs = ((corrected, plain), (corrected, full), (plain, full))
            lines += [_test(mean, one, other) for one, other in pairs]
    return "\n".join(lines)


def _test(mean: PerUser, one: Cell, other: Cell) -> str:
    test = compare(str(one), mean[one], str(other), mean[other])
    return f"  {test}; finds {findable(mean[one], mean[other]):.4f}"


def main(argv: Sequence[str] | None = None) -> int:
    """Parses the words and runs the study; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="head_ranks.py", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--dataset", default="toy", help="such as toy, custom or movielens/1m")
    parser.add_argument("--data_dir", help="folder of the raw files (not for toy)")
    parser.add_argument("--cache_dir", help="prepared data (default: $ILM_CACHE or ~/.cache)")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument(
        "--drawn", nargs="+", type=scheduling.positive, default=[10, 100], help="negatives m"
    )
    parser.add_argument("--vectors", default=VECTORS, help="recipe of the vectors")
    parser.add_argument("--steps", type=scheduling.positive, default=STEPS)
    folder = pathlib.Path("runs/head_ranks")
    parser.add_argument("--model_dir", default=folder, type=pathlib.Path, help="where runs go")
    parser.add_argument("--jobs", type=scheduling.jobs, default=scheduling.default_jobs())
    flags = parser.parse_args(argv)

    def run() -> None:
        studies = [
            HeadRanks(
                flags.dataset,
                seed,
                flags.model_dir / f"seed{seed}",
                flags.data_dir,
                flags.cache_dir,
                flags.jobs,
                steps=flags.steps,
                vectors=flags.vectors,
            )
            for seed in flags.seeds
        ]
        text = report(measure(studies, flags.drawn))
        with atomic_write(flags.model_dir / "table.txt") as stream:
            stream.write(text + "\n")
        print("\n" + text)

    return exit_code(run, "head_ranks.py")


if __name__ == "__main__":
    sys.exit(main())
