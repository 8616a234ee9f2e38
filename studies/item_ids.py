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

import argparse
import dataclasses
import pathlib
import sys
from collections.abc import Mapping, Sequence

import numpy as np
import scheduling
from knowledge import by_popularity, line_of, over_seeds
from steps import Step
from study import Study

from ilm_jax.cf.table import EmbeddingTable
from ilm_jax.cli.words import split_bindings
from ilm_jax.data.catalogue.splits import SplitConfig, make_splits
from ilm_jax.errors import UserError
from ilm_jax.evaluation.reports import results
from ilm_jax.evaluation.reports.comparison import pair_all
from ilm_jax.files import trouble
from ilm_jax.locks import one_writer
from ilm_jax.runs.sweeps import parse_value

ROWS = ("random", "sequential", "collaborative", "shuffled", "semantic")
SHOWN = ("retrieval/hr@10", "retrieval/ndcg@10")
# Retrieval alone of the mixture of recommendation knowledge, items by their ids.
RETRIEVAL = {"AUXILIARY": 0.0, "RANKING": 0.0, "RATING": 0.0, "MENTION": "id", "ANSWER": "id"}
SETTINGS = "task_settings.TaskSettings"


@dataclasses.dataclass(frozen=True)
class ItemIdsStudy(Study):
    """One dataset, one recipe, several kinds of ids and seeds, one folder.

    Attributes:
      recipe: of gin.
      bindings: {name: value} of all rows.
      rows: of `ROWS`.
      levels: numbers of each level of a semantic id.
      held_out_items: share of the items in each held-out fold.
      users: so many are measured; 0: all.
    """

    recipe: str = "tiny/knowledge.gin"
    bindings: Mapping[str, object] = dataclasses.field(default_factory=dict)
    rows: tuple[str, ...] = ROWS
    levels: tuple[int, ...] = (16, 16, 16)
    held_out_items: float = 0.1
    users: int = 0

    def longer(self, stage: str) -> dict[str, object]:
        """See `Study`: what the command line binds."""
        del stage
        return {"HELD_OUT_ITEMS": self.held_out_items, **self.bindings}

    def place(self, row: str, seed: int) -> pathlib.Path:
        """Folder of a row's run."""
        return self.folder / f"{row}-{seed}"

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
            words = ["item_ids.py", f"--shuffle={self.table}", f"--output={table}"]
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
                run = self.place(row, seed)
                words = self.train(run.name, self.recipe, SEED=seed, **self.ids(row))
                found.append((run.name, words, run / "last_run.json"))
                words = ["evaluate", f"--model_dir={run}", "--tasks=retrieval", "--exclude_seen"]
                words += [f"--users={self.users}"] if self.users else []
                found.append((f"evaluate {run.name}", words, run / "evaluation/evaluation.json"))
        return found


def shuffle(source: str, output: str) -> None:
    """Writes a table whose item vectors were dealt anew to the items that have one."""
    table = EmbeddingTable.load(source)
    known = np.flatnonzero(np.abs(table.item).sum(axis=1) > 0)
    item = table.item.copy()
    item[known] = item[np.random.default_rng(0).permutation(known)]
    dataclasses.replace(table, item=item).save(output)


def report(study: ItemIdsStudy, seeds: Sequence[int]) -> str:
    """The text to print."""
    stored = {row: [results.read(study.place(row, seed)) for seed in seeds] for row in study.rows}
    lines = ["  ".join(["row           ", *(f"{name:>26}" for name in SHOWN)])]
    means = {row: over_seeds(evaluations) for row, evaluations in stored.items()}
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
            lines += [line_of(pair, "semantic", row) for pair in pairs if pair.name in SHOWN]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Parses the words and runs the study; returns the exit code."""
    bound, words = split_bindings(list(sys.argv[1:] if argv is None else argv))
    parser = argparse.ArgumentParser(
        prog="item_ids.py", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--recipe", default="tiny/knowledge.gin")
    parser.add_argument("--dataset", default="toy")
    parser.add_argument("--data_dir", help="folder of the raw files (not for toy)")
    parser.add_argument("--cache_dir", help="prepared data (default: $ILM_CACHE or ~/.cache)")
    parser.add_argument("--model_dir", default="runs/item_ids", help="where everything is written")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--levels", nargs="+", type=int, default=[16, 16, 16])
    parser.add_argument("--held_out_items", type=float, default=0.1)
    parser.add_argument("--users", type=int, default=0, help="so many are measured (0: all)")
    parser.add_argument("--jobs", type=int, default=1, help="steps that run side by side")
    parser.add_argument("--shuffle", help="instead: a table whose items' vectors are dealt anew")
    parser.add_argument("--output", help="of --shuffle")
    flags = parser.parse_args(words)
    study = ItemIdsStudy(
        flags.dataset,
        flags.seeds[0],
        pathlib.Path(flags.model_dir),
        flags.data_dir,
        flags.cache_dir,
        flags.jobs,
        recipe=flags.recipe,
        bindings={n: parse_value(v) for n, _, v in (b.partition("=") for b in bound)},
        rows=tuple(row for row in ROWS if row in flags.rows),
        levels=tuple(flags.levels),
        held_out_items=flags.held_out_items,
        users=flags.users,
    )
    try:
        if flags.shuffle:
            shuffle(flags.shuffle, flags.output)
            return 0
        with one_writer(study.folder, "studies/item_ids.py"):
            scheduling.run_steps(study, study.steps(flags.seeds))
        print("\n" + report(study, flags.seeds))
    except (UserError, OSError) as error:
        print(f"item_ids: error: {trouble(error) or error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
