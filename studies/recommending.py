"""What an item head is worth: lists of one row beside iALS and id strings, over worlds and seeds.

The row reads iALS' vectors through a frozen language model. Its head and its id strings are
measured on the same users as iALS, whose users are folded in from what they had before the test
item (`ials`) or from the training interactions alone (`ials-training`).
"""

import dataclasses
import pathlib
from collections.abc import Sequence

import numpy as np
from baselines import ROWS as BASELINES
from jaxtyping import Float64
from reporting import lists_of, targets_of
from study import Study, run_study

from ilm_jax.errors import UserError
from ilm_jax.evaluation.reports import results
from ilm_jax.metrics.intervals import compare

ROW, METRIC = "ilm", "ndcg@10"
NAMED = f"{ROW} by id strings"
COLUMNS = (*BASELINES, NAMED, ROW)
# Of the row; the quickstart, which has ten minutes for all rows, trains for fewer.
STEPS = 800
# What stages 0 and 1 read.
TASKS = "text,item_text,item_item,user_item"


@dataclasses.dataclass(frozen=True)
class BothWays(Study):
    """A study whose row is also measured by the id strings that it learnt."""

    def ranked(self, row: str) -> list[str]:
        """See `Study`."""
        return ["--exclude_seen", "--nogeneration"]

    def train_row(self, row: str, stage: str = "", **bindings: object) -> list[str]:
        """See `Study`; longer, as nothing else waits for it."""
        return super().train_row(row, stage, **{"TRAIN_STEPS": STEPS, **bindings})

    def cached(self) -> list[str]:
        """See `Study`: no prompt in words is read."""
        return [*super().cached(), f"--tasks={TASKS}"]


def values_of(study: Study) -> dict[str, Float64[np.ndarray, " users"]]:
    """NDCG@10 of every user by column.

    Raises:
      UserError: if two were measured on other users.
    """
    stored = results.read(study.folder / ROW / "evaluation")
    found = {
        ROW: stored.metrics[METRIC].values,
        NAMED: stored.metrics[f"id_strings/{METRIC}"].values,
    }
    asked = targets_of(study.folder / ROW / "evaluation")
    for row in BASELINES:
        folder: pathlib.Path = lists_of(study, row)
        if targets_of(folder) != asked:
            raise UserError(f"{folder} was measured on other users than {ROW}: evaluate again")
        found[row] = results.read(folder).metrics[METRIC].values
    return found


def measure(pairs: Sequence[tuple[int, int, Study]]) -> str:
    """Runs what is missing of every (world, seed) pair; returns the table with its paired tests."""
    every: list[dict[str, Float64[np.ndarray, " users"]]] = []
    lines = ["world seed  " + "  ".join(f"{column:>18}" for column in COLUMNS)]
    for world, seed, given in pairs:
        study = BothWays(**{f.name: getattr(given, f.name) for f in dataclasses.fields(given)})
        run_study(study, [ROW])
        every.append(values_of(study))
        means = [every[-1][column].mean() for column in COLUMNS]
        lines.append(f"{world:5} {seed:4}  " + "  ".join(f"{mean:18.4f}" for mean in means))
        lines += _tests(every[-1:])
    if len(every) > 1:
        lines += [f"all {len(every)} pairs together (users of every pair):", *_tests(every)]
    return "\n".join([f"{METRIC}, test, seen items left out", *lines])


def _tests(every: Sequence[dict[str, Float64[np.ndarray, " users"]]]) -> list[str]:
    """The row's share of each other's mean, and the paired test."""
    lines = []
    ours = np.concatenate([values[ROW] for values in every])
    for other in ("ials-training", "ials", NAMED):
        theirs = np.concatenate([values[other] for values in every])
        share = ours.mean() / theirs.mean() if theirs.mean() else np.inf
        lines.append(f"            {share:6.2f} of {other}; {compare(ROW, ours, other, theirs)}")
    return lines
