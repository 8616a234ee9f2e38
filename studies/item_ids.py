"""What items are best called: ids of several kinds, the same model and budget, seed by seed.

    python studies/item_ids.py [--recipe tiny/knowledge.gin] [--dataset toy] [--data_dir DIR]
                               [--seeds 0 1 2] [--rows random sequential collaborative semantic]
                               [--levels 16 16 16] [--model_dir DIR] [--gin.NAME=VALUE …]

The recipe trains retrieval alone, from the start: the ids of a history in, the next item's out.
Rows differ in the ids: OpenP5's random and sequential numbers and collaborative clusters, semantic
ids (residual k-means of iALS vectors), and `shuffled`, semantic ids whose vectors were dealt to
other items, which have the same words and lengths and mean nothing. Test users, full catalogue,
earlier choices left out, by beams over the trie of each kind. Metrics are paired by user, each
user's mean over the seeds, every row against `semantic`.
"""

import dataclasses
import pathlib
import sys
from collections.abc import Sequence

import seeded
from knowledge import by_popularity
from steps import Step

from ilm_jax.data.catalogue.splits import SplitConfig, make_splits
from ilm_jax.evaluation.reports import results
from ilm_jax.evaluation.reports.comparison import pair_all

ROWS = ("random", "sequential", "collaborative", "shuffled", "semantic")
SHOWN = ("retrieval/hr@10", "retrieval/ndcg@10")
# Retrieval alone of the mixture of recommendation knowledge, items by their ids.
RETRIEVAL = {"AUXILIARY": 0.0, "RANKING": 0.0, "RATING": 0.0, "MENTION": "id", "ANSWER": "id"}
SETTINGS = "task_settings.TaskSettings"


@dataclasses.dataclass(frozen=True)
class ItemIdsStudy(seeded.SeededStudy):
    """Rows by kind of id.

    Attributes:
      rows: of `ROWS`.
      levels: numbers of each level of a semantic id.
      held_out_items: share of the items in each held-out fold.
    """

    rows: tuple[str, ...] = ROWS
    levels: tuple[int, ...] = (16, 16, 16)
    held_out_items: float = 0.1

    def longer(self, stage: str) -> dict[str, object]:
        """See `Study`: what the command line binds."""
        return {"HELD_OUT_ITEMS": self.held_out_items, **super().longer(stage)}

    def codes(self, row: str) -> pathlib.Path:
        """File of a row's codes."""
        return self.folder / f"{row}.codes.safetensors"

    def ids(self, row: str) -> dict[str, object]:
        """Bindings that make prompts and answers name items by a row's ids."""
        index = "semantic" if row == "shuffled" else row
        found: dict[str, object] = {**RETRIEVAL, "ITEM_INDEX": index}
        if index in ("semantic", "collaborative"):
            found[f"{SETTINGS}.new_tokens"] = index
        if index == "semantic":
            found[f"{SETTINGS}.item_codes"] = str(self.codes(row))
        return found

    def code_steps(self, row: str) -> list[Step]:
        """What makes a row's codes."""
        share, table = [f"--held_out_items={self.held_out_items}"], self.table
        found: list[Step] = []
        if row == "shuffled":
            table = self.folder / "shuffled.cf.safetensors"
            words = ["shuffled_vectors.py", f"--table={self.table}", f"--output={table}"]
            found.append(("shuffle", words, table))
        levels = ",".join(map(str, self.levels))
        words = ["semantic_ids", *self.data_flags(), *share, f"--tables={table}"]
        words += [f"--levels={levels}", f"--output={self.codes(row)}"]
        return [*found, (f"codes of {row}", words, self.codes(row))]

    def steps(self, seeds: Sequence[int]) -> list[Step]:
        """Every step, in order."""
        words = ["fit_cf", *self.data_flags(), f"--held_out_items={self.held_out_items}"]
        found: list[Step] = []
        coded = [row for row in self.rows if row in ("shuffled", "semantic")]
        if coded:
            found.append(("cf", [*words, f"--output={self.table}"], self.table))
        for row in coded:
            found += self.code_steps(row)
        for seed in seeds:
            for row in self.rows:
                flags = ["--tasks=retrieval", "--exclude_seen"]
                found += self.row_steps(row, seed, flags, **self.ids(row))
        return found


def report(study: ItemIdsStudy, seeds: Sequence[int]) -> str:
    """The text to print."""
    stored = {row: [results.read(study.place(row, seed)) for seed in seeds] for row in study.rows}
    lines = ["  ".join(["row           ", *(f"{name:>26}" for name in SHOWN)])]
    means = {row: seeded.over_seeds(evaluations) for row, evaluations in stored.items()}
    for row, metrics in means.items():
        shown = [f"{metrics[name].interval()!s:>26}" for name in SHOWN]
        each = ", ".join(f"{one.metrics[SHOWN[1]].mean:.4f}" for one in stored[row])
        lines.append("  ".join([f"{row:14}", *shown]) + f"  (seeds: {each})")
    popular = by_popularity(make_splits(study.catalogue, SplitConfig(study.held_out_items)))
    figures = f"{popular['hr@10']:.4f} {popular['ndcg@10']:.4f}"
    lines.append(f"most popular items, seen ones too: {figures}")
    for row in study.rows:
        if row != "semantic" and "semantic" in study.rows:
            lines += ["", f"semantic - {row}, users' means over {len(seeds)} seeds:"]
            pairs = pair_all(means["semantic"], means[row])
            lines += [seeded.line_of(pair, "semantic", row) for pair in pairs if pair.name in SHOWN]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Parses the words and runs the study; returns the exit code."""
    parser = seeded.parser_of("item_ids.py", __doc__, "runs/item_ids")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--levels", nargs="+", type=int, default=[16, 16, 16])
    parser.add_argument("--held_out_items", type=float, default=0.1)
    flags, fields = seeded.parse(parser, argv)
    study = ItemIdsStudy(
        **fields,
        rows=tuple(row for row in ROWS if row in flags.rows),
        levels=tuple(flags.levels),
        held_out_items=flags.held_out_items,
    )
    return seeded.run("item_ids.py", study, flags.seeds, study.steps(flags.seeds), report)


if __name__ == "__main__":
    sys.exit(main())
