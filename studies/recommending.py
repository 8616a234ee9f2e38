"""What an item head is worth: lists of one row beside iALS and id strings, over worlds and seeds.

The row reads iALS' vectors through a frozen language model and learns to recommend alone, for 600
steps of 64 prompts. It is measured on the same users as iALS, whose users are folded in from what
they had before the test item (`ials`) or from the training interactions alone (`ials-training`),
and as the language model that is trained to name items by id strings (`id-strings`).
"""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from baselines import ROWS as BASELINES
from jaxtyping import Float64
from reporting import lists_of, targets_of
from study import ID_STRINGS, NAMING_ROW, Study, run_study

from ilm_jax.errors import UserError
from ilm_jax.evaluation.reports import results
from ilm_jax.metrics.intervals import compare

ROW, METRIC = "ilm", "ndcg@10"
COLUMNS = (*BASELINES, ID_STRINGS, ROW)


@dataclasses.dataclass(frozen=True)
class Recommending(Study):
    """A study whose row learns to recommend, and nothing else."""

    head: ClassVar[str] = "tiny/stage2_items.gin"

    def ranked(self, row: str) -> list[str]:
        """See `Study`."""
        return ["--exclude_seen", "--tasks=sequential_random"]


def values_of(study: Study) -> dict[str, Float64[np.ndarray, " users"]]:
    """NDCG@10 of every user by column.

    Raises:
      UserError: if two were measured on other users.
    """
    asked, found = targets_of(lists_of(study, ROW)), {}
    for column in COLUMNS:
        folder = lists_of(study, column)
        if targets_of(folder) != asked:
            raise UserError(f"{folder} was measured on other users than {ROW}: evaluate again")
        found[column] = results.read(folder).metrics[METRIC].values
    return found


def measure(pairs: Sequence[tuple[int, int, Study]]) -> str:
    """Runs what is missing of every (world, seed) pair; returns the table with its paired tests."""
    every: list[dict[str, Float64[np.ndarray, " users"]]] = []
    lines = ["world seed  " + "  ".join(f"{column:>13}" for column in COLUMNS)]
    for world, seed, given in pairs:
        study = Recommending(**{f.name: getattr(given, f.name) for f in dataclasses.fields(given)})
        run_study(study, [ROW, NAMING_ROW])
        every.append(values_of(study))
        means = [every[-1][column].mean() for column in COLUMNS]
        lines.append(f"{world:5} {seed:4}  " + "  ".join(f"{mean:13.4f}" for mean in means))
        lines += _tests(every[-1:])
    if len(every) > 1:
        lines += [f"all {len(every)} pairs together (users of every pair):", *_tests(every)]
    return "\n".join([f"{METRIC}, test, seen items left out", *lines])


def _tests(every: Sequence[dict[str, Float64[np.ndarray, " users"]]]) -> list[str]:
    """The row's share of each other's mean, and the paired test."""
    lines = []
    ours = np.concatenate([values[ROW] for values in every])
    for other in ("ials-training", "ials", ID_STRINGS):
        theirs = np.concatenate([values[other] for values in every])
        share = ours.mean() / theirs.mean() if theirs.mean() else np.inf
        lines.append(f"            {share:6.2f} of {other}; {compare(ROW, ours, other, theirs)}")
    return lines
