"""What single settings are worth: queries, item tokens, vectors, start, steps, length of texts.

Each variation (`VARIATIONS`) changes one setting of the tiny recipes; `base` changes none. Behind
it stage 2 reads the texts of all training items, with stage 1 (`trained`) and without (`fresh`),
the Q-Former trained, each reader at the learning rate that few_texts.py chose for it. `longer` has
stage 2 take as many steps more as stage 1 would have cost, without stage 1, the Q-Former trained or
frozen, at two rates: whether stage 1 is worth its computations. `text-8` and `text-16` cut the
texts of stage 2 and of the measurement, of 24 to 32 tokens, at their eighth and sixteenth token,
for every reader: whether stage 1 pays where texts are short. nll_content of test items is
compared text by text over toy worlds, each with a seed of its own, and world by world. Receipts:
studies/receipts/ablations.

    python studies/ablations.py [--worlds 0 1 2] [--readers trained fresh frozen fresh-frozen]
                                [--variations base queries-1 …] [--model_dir runs/ablations]
"""

import dataclasses
import pathlib
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar

import receipts
import variations
from variations import Found, Row, Variation, Varied

# Queries of the recipes, texts that share a row there, and that row in lengths of one.
QUERIES, SHARING, ROOM = 8, 5, 1.8
LENGTH, PROMPTS = 136, 100
# A text has about so many tokens.
TOKENS = 27


def _qformer(**bindings: object) -> dict[str, object]:
    return {f"qformer.QFormerConfig.{name}": value for name, value in bindings.items()}


def _queries(count: int) -> Variation:
    """So many soft tokens, in rows as much longer or shorter: a step reads as many texts."""
    room = round(ROOM + SHARING * (count - QUERIES) / LENGTH, 3)
    bound = _qformer(num_queries=count)
    return Variation(bound, {**bound, "PACK_ROOM": room})


def _cut(tokens: int) -> Variation:
    """Texts of so many tokens, in rows as much shorter: a step reads as many texts."""
    length = PROMPTS + tokens
    room = round((ROOM * LENGTH - SHARING * (TOKENS - tokens)) / length, 3)
    bound: dict[str, object] = {
        "TASK_FEATURE_LENGTHS": {"inputs": PROMPTS, "targets": tokens},
        "dataset_config.DatasetConfig.truncate_targets": True,
        "PACK_ROOM": room,
    }
    return Variation(stage_two=bound)


def _longer(rate: float) -> Variation:
    return Variation(stage_two={"TRAIN_STEPS": LONGER, "LEARNING_RATE": rate})


# 120 steps of .19 to .25 core seconds, and stage 1's 300 of .44, in steps of stage 2.
LONGER = 720
# The recipes have eight queries, one item token, vectors of 32 dimensions, and start from data.
VARIATIONS = {
    "base": Variation(),
    "queries-1": _queries(1),
    "queries-2": _queries(2),
    "queries-4": _queries(4),
    "queries-16": _queries(16),
    "item-tokens-4": Variation(_qformer(num_item_tokens=4), _qformer(num_item_tokens=4)),
    "vectors-16": Variation(vectors=("--dim=16",)),
    "vectors-64": Variation(vectors=("--dim=64",)),
    "vectors+text": Variation(vectors=("--gin_file=runs/cf_combined.gin",)),
    "drawn-start": Variation(stage_two={"READER_START": "drawn"}),
    "longer-.003": _longer(3e-3),
    "longer-.01": _longer(1e-2),
    "text-8": _cut(8),
    "text-16": _cut(16),
}
LONG = tuple(name for name in VARIATIONS if name.startswith("longer"))
CUT = tuple(name for name in VARIATIONS if name.startswith("text-"))
# Readers with stage 1, and without.
STAGE_ONE = (("trained", "fresh"), ("frozen", "fresh-frozen"))
# Rows with stage 1, and rows without that cost as much.
EQUAL = [
    (Row(with_it, "base"), Row(without, name)) for with_it, without in STAGE_ONE for name in LONG
]
# Rows with stage 1 and without, of texts of one length.
SHORT = [(Row(with_it, name), Row(without, name)) for with_it, without in STAGE_ONE for name in CUT]
SETTINGS = tuple(name for name in VARIATIONS if name not in (*LONG, *CUT))
FOLDER = receipts.FOLDER / "ablations"


@dataclasses.dataclass(frozen=True)
class Ablations(Varied):
    """One toy world and seed."""

    receipts: pathlib.Path = FOLDER
    script: ClassVar[str] = "ablations.py"
    readers: ClassVar[Sequence[str]] = ("trained", "fresh", "frozen", "fresh-frozen")
    rates: ClassVar[Mapping[str, float]] = {
        "trained": 3e-3,
        "fresh": 1e-2,
        "frozen": 1e-2,
        "fresh-frozen": 1e-3,
    }

    @property
    def variations(self) -> Mapping[str, Variation]:
        """See `Varied`."""
        return VARIATIONS

    def rows(self, readers: Iterable[str] = (), names: Iterable[str] = ()) -> list[Row]:
        """See `Varied`: with the Q-Former frozen, and of more steps, what is compared alone."""
        paired = {row for pair in (*EQUAL, *SHORT) for row in pair}
        return [
            row
            for row in super().rows(readers, names)
            if row in paired or ("frozen" not in row.reader and row.variation in SETTINGS)
        ]


def pairs(names: Sequence[str]) -> list[tuple[str, str]]:
    """Every variation that reads the same texts as the base, with it."""
    others = [name for name in names if name not in ("base", *CUT)]
    return [(name, "base") for name in others if "base" in names]


def report(found: Found) -> str:
    """The text to print; errors as `variations.report`."""
    lines = [variations.report(found, pairs)]
    for said, compared in (
        ("stage 1 less as many computations of stage 2", EQUAL),
        ("stage 1 less none, texts cut", SHORT),
    ):
        there = [pair for pair in compared if found.keys() >= set(pair)]
        lines += ["", said] if there else []
        for one, other in there:
            test = variations.compared(one, found[one], other, found[other])
            lines.append(variations.line_of(*test))
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(variations.run_script(Ablations, __doc__, report))
