"""What the interaction losses of stage 1 are worth: stage 1 with both, with each, and without.

Every stage 1 takes as many steps of item-text losses, and those with item-item or user-item losses
take steps of these beside them (`STAGE_ONE`); `text-longer` takes as many steps of item-text losses
as `all` takes altogether, which tells more steps from other losses. Behind each, stage 2 reads the
texts of all training items, with the Q-Former frozen (the adaptor alone trains) or trained, both at
one learning rate (variations.py). nll_content of test items is compared text by text over toy
worlds, each with a seed of its own, and world by world. Receipts: studies/receipts/losses.

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
from variations import Found, Variation, Varied

# Losses of stage 1 -> (steps of each kind in turn, steps in all), of which 150 are of item_text but
# in the last.
STAGE_ONE = {
    "all": ({"item_text": 2, "item_item": 1, "user_item": 1}, 300),
    "text+items": ({"item_text": 2, "item_item": 1}, 225),
    "text+users": ({"item_text": 2, "user_item": 1}, 225),
    "text": ({"item_text": 1}, 150),
    "text-longer": ({"item_text": 1}, 300),
}
FOLDER = receipts.FOLDER / "losses"


@dataclasses.dataclass(frozen=True)
class Losses(Varied):
    """One toy world and seed."""

    receipts: pathlib.Path = FOLDER
    script: ClassVar[str] = "losses.py"
    readers: ClassVar[Sequence[str]] = ("frozen", "trained")
    rates: ClassVar[Mapping[str, float]] = {"frozen": 3e-3, "trained": 3e-3}

    @property
    def variations(self) -> Mapping[str, Variation]:
        """See `Varied`."""
        return {
            name: Variation(stage_one={"SCHEDULE": schedule, "TRAIN_STEPS": steps})
            for name, (schedule, steps) in STAGE_ONE.items()
        }


def pairs(names: Iterable[str]) -> list[tuple[str, str]]:
    """Losses of stage 1 that are compared: those with `all` and those with `text`."""
    every = itertools.combinations(names, 2)
    return [(first, second) for first, second in every if first == "all" or second == "text"]


def report(found: Found) -> str:
    """The text to print; errors as `variations.report`."""
    return variations.report(found, pairs)


if __name__ == "__main__":
    sys.exit(variations.run_script(Losses, __doc__, report))
