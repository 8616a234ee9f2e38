"""What the interaction losses of stage 1 are worth: stage 1 with both, with each, and without.

Every stage 1 takes as many steps of item-text losses, and those with item-item or user-item losses
take steps of these beside them (`STAGE_ONE`); `text-longer` takes as many steps of item-text losses
as `all` takes altogether, which tells more steps from other losses. Behind each, stage 2 reads the
texts of all training items, with the Q-Former frozen (the adaptor alone trains) or trained
(variations.py). nll_content of test items is compared text by text over toy worlds, each with a
seed of its own, and world by world. Receipts: studies/receipts/losses.

    python studies/losses.py [--worlds 0 1 2] [--readers frozen trained] [--model_dir runs/losses]
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

# Losses of stage 1 -> (steps of each kind in turn, steps in all), of which 150 are of item_text but
# in the last.
STAGE_ONE = {
    "all": ({"item_text": 2, "item_item": 1, "user_item": 1}, 300),
    "text+items": ({"item_text": 2, "item_item": 1}, 225),
    "text+users": ({"item_text": 2, "user_item": 1}, 225),
    "text": ({"item_text": 1}, 150),
    "text-longer": ({"item_text": 1}, 300),
}
READERS = ("frozen", "trained")
FOLDER = receipts.FOLDER / "losses"


@dataclasses.dataclass(frozen=True)
class Losses(Varied):
    """One toy world and seed."""

    receipts: pathlib.Path = FOLDER
    script: ClassVar[str] = "losses.py"

    @property
    def variations(self) -> Mapping[str, Variation]:
        """See `Varied`."""
        return {
            name: Variation(stage_one={"SCHEDULE": schedule, "TRAIN_STEPS": steps})
            for name, (schedule, steps) in STAGE_ONE.items()
        }


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
    where = variations.of_world(world, folder)
    return Losses(*where, None, cache_dir, jobs, most_steps=most_steps, receipts=receipts)


def rows_of(readers: Iterable[str]) -> list[Row]:
    """Every row of these readers."""
    return [Row(*pair) for pair in itertools.product(readers, STAGE_ONE)]


def report(found: Found) -> str:
    """The text to print: each row's nll_content, and what it lacks of `all` and has of `text`.

    Raises:
      UserError: if two rows of a world were not measured on the same items.
    """
    lines = []
    for reader in dict.fromkeys(row.reader for row in found):
        rows = {row.variation: cells for row, cells in found.items() if row.reader == reader}
        lines += ["", f"Q-Former {reader} in stage 2; {METRIC} of test items by world, then pooled"]
        for name, cells in rows.items():
            each = "  ".join(f"{cell.mean(METRIC):.4f}" for cell in cells)
            pooled = mean_interval(*receipts.joined(cells, METRIC)).mean
            lines.append(f"  {name:12} {each}   {pooled:.4f}")
        for first, second in pairs(rows):
            lines.append(variations.difference(first, rows[first], second, rows[second]))
    return "\n".join(lines).strip()


def pairs(rows: Iterable[str]) -> list[tuple[str, str]]:
    """Losses of stage 1 that are compared: those with `all` and those with `text`."""
    every = itertools.combinations(rows, 2)
    return [(first, second) for first, second in every if first == "all" or second == "text"]


def main(argv: Sequence[str] | None = None) -> int:
    """Parses the words and runs the study; returns the exit code."""
    flags = variations.parser_of("losses.py", __doc__, READERS).parse_args(argv)
    folder = pathlib.Path(flags.model_dir)
    worlds = [of_world(world, folder, flags.cache_dir, flags.jobs) for world in flags.worlds]
    rows = rows_of(flags.readers)
    return exit_code(lambda: print("\n" + report(variations.measure(worlds, rows))), "losses.py")


if __name__ == "__main__":
    sys.exit(main())
