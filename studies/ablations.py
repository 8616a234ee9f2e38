"""What single settings are worth: queries, item tokens, vectors, how soft tokens start, and steps.

Each variation (`VARIATIONS`) changes one setting of the tiny recipes, in both stages; `base`
changes none. Behind it stage 2 reads the texts of all training items, with stage 1 (`trained`) and
without (`fresh`), the Q-Former trained (variations.py). `longer` gives stage 2 as many steps more
as stage 1 would have cost, with the Q-Former frozen too (`frozen`, `fresh-frozen`): whether stage 1
is worth its computations. nll_content of test items is compared text by text over toy worlds, each
with a seed of its own, and world by world. Receipts: studies/receipts/ablations.

    python studies/ablations.py [--worlds 0 1 2] [--readers trained fresh frozen fresh-frozen]
                                [--variations base queries-1 …] [--model_dir runs/ablations]
"""

import dataclasses
import itertools
import pathlib
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar

import receipts
import variations
from exiting import exit_code
from variations import METRIC, Found, Row, Variation, Varied

from ilm_jax.metrics.intervals import mean_interval


def _both(**bindings: object) -> Variation:
    """Of the Q-Former, which both stages have."""
    named = {f"qformer.QFormerConfig.{name}": value for name, value in bindings.items()}
    return Variation(named, named)


# 120 steps of .19 to .25 core seconds, and stage 1's 300 of .44, in steps of stage 2.
LONGER = 720
# The recipes have eight queries, one item token, vectors of 32 dimensions, and start from data.
VARIATIONS = {
    "base": Variation(),
    "queries-1": _both(num_queries=1),
    "queries-2": _both(num_queries=2),
    "queries-4": _both(num_queries=4),
    "queries-16": _both(num_queries=16),
    "item-tokens-4": _both(num_item_tokens=4),
    "vectors-16": Variation(vectors=("--dim=16",)),
    "vectors-64": Variation(vectors=("--dim=64",)),
    "vectors+text": Variation(vectors=("--gin_file=runs/cf_combined.gin",)),
    "drawn-start": Variation(stage_two={"READER_START": "drawn"}),
    "longer": Variation(stage_two={"TRAIN_STEPS": LONGER}),
}
READERS = ("trained", "fresh", "frozen", "fresh-frozen")
# With the Q-Former frozen, the question is that of the steps alone.
OF_FROZEN = ("base", "longer")
# Rows that cost the same: with stage 1, and with more of stage 2.
EQUAL = (
    (Row("trained", "base"), Row("fresh", "longer")),
    (Row("frozen", "base"), Row("fresh-frozen", "longer")),
)
FOLDER = receipts.FOLDER / "ablations"


@dataclasses.dataclass(frozen=True)
class Ablations(Varied):
    """One toy world and seed."""

    receipts: pathlib.Path = FOLDER
    script: ClassVar[str] = "ablations.py"

    @property
    def variations(self) -> Mapping[str, Variation]:
        """See `Varied`."""
        return VARIATIONS


def of_world(
    world: int,
    folder: pathlib.Path,
    cache_dir: str | None = None,
    jobs: int = 1,
    *,
    most_steps: int = 0,
    receipts: pathlib.Path = FOLDER,
) -> Ablations:
    """The study of one toy world, whose number is the seed, in a folder of its own in `folder`."""
    where = variations.of_world(world, folder)
    return Ablations(*where, None, cache_dir, jobs, most_steps=most_steps, receipts=receipts)


def rows_of(readers: Iterable[str], names: Iterable[str] = VARIATIONS) -> list[Row]:
    """Every row of these readers and variations; frozen Q-Formers have few."""
    every = [Row(*pair) for pair in itertools.product(readers, names)]
    return [row for row in every if "frozen" not in row.reader or row.variation in OF_FROZEN]


def report(found: Found) -> str:
    """The text to print: each row's nll_content by world, and the difference to the base's.

    Raises:
      UserError: if two rows of a world were not measured on the same items.
    """
    lines = []
    for reader in dict.fromkeys(row.reader for row in found):
        rows = {row.variation: cells for row, cells in found.items() if row.reader == reader}
        lines += ["", f"{reader}; {METRIC} of test items by world, then pooled"]
        for name, cells in rows.items():
            each = "  ".join(f"{cell.mean(METRIC):.4f}" for cell in cells)
            pooled = mean_interval(*receipts.joined(cells, METRIC)).mean
            lines.append(f"  {name:14} {each}   {pooled:.4f}")
        for name, cells in rows.items():
            if name != "base" and "base" in rows:
                lines.append(variations.difference(name, cells, "base", rows["base"]))
    there = [pair for pair in EQUAL if found.keys() >= set(pair)]
    lines += ["", "stage 1 beside as many computations of stage 2"] if there else []
    for one, other in there:
        lines.append(variations.difference(str(one), found[one], str(other), found[other]))
    return "\n".join(lines).strip()


def main(argv: Sequence[str] | None = None) -> int:
    """Parses the words and runs the study; returns the exit code."""
    parser = variations.parser_of("ablations.py", __doc__, READERS)
    parser.add_argument("--variations", nargs="+", choices=VARIATIONS, default=list(VARIATIONS))
    flags = parser.parse_args(argv)
    folder = pathlib.Path(flags.model_dir)
    worlds = [of_world(world, folder, flags.cache_dir, flags.jobs) for world in flags.worlds]
    rows = rows_of(flags.readers, flags.variations)
    return exit_code(lambda: print("\n" + report(variations.measure(worlds, rows))), "ablations.py")


if __name__ == "__main__":
    sys.exit(main())
