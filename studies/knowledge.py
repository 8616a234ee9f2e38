"""What the auxiliary tasks of recommendation knowledge are worth: with and without, seed by seed.

    python studies/knowledge.py [--recipe tiny/knowledge.gin] [--dataset toy] [--data_dir DIR]
                                [--seeds 0 1 2] [--users N] [--model_dir DIR] [--gin.NAME=VALUE …]

Trains the recipe with its auxiliary tasks and, by AUXILIARY=0, without, as many steps each, and
measures both on test: retrieval over the full catalogue, ranking among candidates, ratings. Every
metric is paired by user, each user's values averaged over the seeds. Finished steps are skipped,
half-done ones resume.
"""

import dataclasses
import sys
from collections.abc import Mapping, Sequence

import numpy as np
import seeded
from steps import Step

from ilm_jax.data.catalogue.splits import SplitConfig, Splits, make_splits
from ilm_jax.data.examples.candidates import targets_of
from ilm_jax.data.sources.prepare import load_catalogue
from ilm_jax.evaluation.reports import results
from ilm_jax.evaluation.reports.comparison import pair_all

# Row -> the rate of the auxiliary tasks; None: the recipe's.
ROWS: Mapping[str, float | None] = {"with": None, "without": 0.0}
TASKS = ("retrieval", "ranking", "rating")
SHOWN = ("retrieval/hr@10", "retrieval/ndcg@10", "ranking/hr@1", "ranking/ndcg@10", "rating/mae")


@dataclasses.dataclass(frozen=True)
class KnowledgeStudy(seeded.SeededStudy):
    """With the auxiliary tasks and without.

    Attributes:
      tasks: that are measured.
    """

    tasks: tuple[str, ...] = TASKS

    def steps(self, seeds: Sequence[int]) -> list[Step]:
        """Every step, in order."""
        found: list[Step] = []
        for seed in seeds:
            for row, rate in ROWS.items():
                own: dict[str, object] = {} if rate is None else {"AUXILIARY": rate}
                found += self.row_steps(row, seed, [f"--tasks={','.join(self.tasks)}"], **own)
        return found


def by_popularity(splits: Splits, length: int = 10) -> dict[str, float]:
    """Metrics of the one list of the items that training chose most, on all users of test."""
    best = np.argsort(-splits.train_counts(), kind="stable")[:length].tolist()
    targets = [row for (split, _), row in targets_of(splits).items() if split == "test"]
    places = np.array([best.index(row) if row in best else -1 for row in targets])
    gains = np.where(places < 0, 0.0, 1 / np.log2(np.maximum(places, 0) + 2.0))
    return {"hr@10": float(np.mean(places >= 0)), "ndcg@10": float(gains.mean())}


def report(study: KnowledgeStudy, seeds: Sequence[int]) -> str:
    """The text to print."""
    stored = {row: [results.read(study.place(row, seed)) for seed in seeds] for row in ROWS}
    shown = [name for name in SHOWN if name in stored["with"][0].metrics]
    lines = ["  ".join(["row      seed", *(f"{name:>17}" for name in shown)])]
    for row, evaluations in stored.items():
        for seed, evaluation in zip(seeds, evaluations, strict=True):
            means = [f"{evaluation.metrics[name].mean:17.4f}" for name in shown]
            lines.append("  ".join([f"{row:8} {seed:4}", *means]))
    split = stored["with"][0].record["protocol"]["split"]
    catalogue = load_catalogue(study.dataset, data_dir=study.data_dir, cache_dir=study.cache_dir)
    config = {name: split[name] for name in ("held_out_items", "seed", "item_pairs_of_held_out")}
    popular = by_popularity(make_splits(catalogue, SplitConfig(**config)))
    lines += [
        f"popularity    {popular['hr@10']:17.4f}  {popular['ndcg@10']:17.4f}",
        f"chance        {10 / catalogue.num_items:17.4f}",
        "",
        f"with - without the auxiliary tasks, users' means over {len(seeds)} seeds:",
    ]
    pairs = pair_all(seeded.over_seeds(stored["with"]), seeded.over_seeds(stored["without"]))
    return "\n".join([*lines, *(seeded.line_of(pair, *ROWS) for pair in pairs)])


def main(argv: Sequence[str] | None = None) -> int:
    """Parses the words and runs the study; returns the exit code."""
    parser = seeded.parser_of("knowledge.py", __doc__, "runs/knowledge")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), help="that are measured")
    flags, fields = seeded.parse(parser, argv)
    study = KnowledgeStudy(**fields, tasks=tuple(flags.tasks))
    return seeded.run("knowledge.py", study, flags.seeds, study.steps(flags.seeds), report)


if __name__ == "__main__":
    sys.exit(main())
