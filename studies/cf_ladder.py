"""Popularity, item-kNN, iALS and sequential models on the same users: the ladder of one dataset.

    python studies/cf_ladder.py --sequences FILE --folder runs/ladder/ml1m \
        --recipes runs/cf_ml1m.gin runs/sasrec_ml1m.gin

Every recipe of `ilm fit_cf` is a row, with one method of its own (`--bind NAME=VALUE` sets what all
recipes share). Leave-one-out, test targets, every item a candidate, with what the user had before
left out and kept in. A sequential model reads the validation item too, which a user has met by the
time of the test; "item-kNN, up to date" and "iALS, folded in" score with the same history, where
the plain rows know the training interactions alone. Settings of item-kNN are tuned on validation.
Methods that are trained step by step train in the folder: a killed command goes on where it was,
and what was measured is kept. `--lists NAME=FOLDER` adds an evaluation of a run (`ilm evaluate`) on
the same users, to that half of the table of which it is.

With `--seeds 0 1 2` every recipe is fitted by each, and further lists by one name are a row's
other seeds. A row is then the mean over its seeds, taken user by user: intervals and tests are over
users.
"""

import argparse
import dataclasses
import itertools
import json
import pathlib
import sys
from collections.abc import Callable, Iterator

import cf_data
import cf_sweep
import numpy as np

from ilm_jax.cf import evaluation, ials, item_knn
from ilm_jax.cf.interactions import Interactions
from ilm_jax.cf.popularity import popularity_scorer
from ilm_jax.cf.sequences import Sequences
from ilm_jax.data.catalogue.splits import TEST, VALID, Splits
from ilm_jax.errors import UserError
from ilm_jax.evaluation.reports import results
from ilm_jax.files import atomic_write
from ilm_jax.metrics.intervals import compare, mean_interval
from ilm_jax.metrics.ranking import hit_rate, ndcg
from ilm_jax.runs import gin_config
from ilm_jax.runs.fitting import FitCF
from ilm_jax.runs.sequential import SequentialConfig, SequentialFit
from ilm_jax.training.host_memory import keep_freed_memory

Scorers = Iterator[tuple[str, Callable[[], evaluation.Scorer]]]


@dataclasses.dataclass
class Ladder:
    """One dataset, and the ranks of its test targets, kept in a file.

    Attributes:
      ranks: by row, twice: seen items left out, and kept in; of each of the row's seeds, by its
        name, the ranks of all users.
    """

    splits: Splits
    train: Interactions
    folder: pathlib.Path

    def __post_init__(self) -> None:
        self.path = self.folder / "ranks.json"
        self.ranks = json.loads(self.path.read_text()) if self.path.exists() else {}

    def has(self, name: str, seed: int = 0) -> bool:
        """Whether a row was measured by a seed."""
        return str(seed) in self._row(name)[0]

    def _row(self, name: str) -> list[dict[str, list[int]]]:
        return self.ranks.setdefault(name, [{}, {}])

    def measure(self, name: str, make: Callable[[], evaluation.Scorer], seed: int = 0) -> None:
        """Ranks of a row by a seed, once."""
        if self.has(name, seed):
            return
        scorer = make()
        for kept, exclude in zip(self._row(name), (True, False), strict=True):
            found = evaluation.evaluate(scorer, self.splits, TEST, exclude_seen=exclude)
            kept[str(seed)] = found.ranks.tolist()
        with atomic_write(self.path) as stream:
            json.dump(self.ranks, stream)

    def baselines(self) -> Scorers:
        """Popularity, and item-kNN as training and as the test's history have it."""
        yield "popularity", lambda: popularity_scorer(self.splits.train_counts())
        if not self.has("item-kNN") or not self.has("item-kNN, up to date"):
            fits = [item_knn.fit(self.train, config) for config in cf_sweep.NEIGHBOURS]
            nearest = max(
                fits, key=lambda fit: evaluation.evaluate(fit, self.splits, VALID).ndcg(10).mean()
            )
            seen = evaluation.held_back(self.splits, TEST)[0]
            yield "item-kNN", lambda: nearest
            yield "item-kNN, up to date", lambda: dataclasses.replace(nearest, train=seen)

    def recipe(self, name: str, recipe: FitCF, config_text: str, seed: int) -> Scorers:
        """The rows of a recipe, by a seed that it binds."""
        method = recipe.methods[0]
        if isinstance(method, SequentialConfig):
            yield name, lambda: self._sequential(recipe, config_text)
        elif isinstance(method, ials.IALSConfig):
            if not self.has(name, seed) or not self.has(f"{name}, folded in", seed):
                fit = ials.fit_interactions(self.train, method)
                seen = evaluation.held_back(self.splits, TEST)[0]
                user = ials.fold_in(seen, fit.item, method)
                yield name, lambda: evaluation.vector_scorer(fit.user, fit.item)
                yield f"{name}, folded in", lambda: evaluation.vector_scorer(user, fit.item)
        else:
            table = recipe.fit(self.splits, config_text=config_text)
            yield name, lambda: evaluation.vector_scorer(table.user, table.item)

    def _sequential(self, recipe: FitCF, config_text: str) -> evaluation.Scorer:
        run = recipe.trained(self.splits, config_text=config_text)
        assert isinstance(run, SequentialFit)
        item = run.fit().item
        steps = run.examples.steps
        print(f"{steps} steps an epoch; epoch {run.best_epoch if run.measure else 'last'}")
        return evaluation.vector_scorer(run.user_vectors(Sequences.before(self.splits, TEST)), item)

    def evaluated(self, name: str, folder: pathlib.Path) -> None:
        """Ranks of a run's lists, a further seed of the row; none listed: the catalogue's last.

        Raises:
          UserError: if they are no evaluation's, or of other users or targets.
        """
        ranking = results.read(folder).record["protocol"].get("ranking")
        if not (folder / "ranks.jsonl").is_file():
            folder = folder / "evaluation"  # of a run
        if ranking is None or not (folder / "ranks.jsonl").is_file():
            raise UserError(f"{folder}: an evaluation without lists; evaluate a task that ranks")
        place = 0 if ranking["seen_items"].startswith("left out") else 1
        read = (folder / "ranks.jsonl").read_text(encoding="utf-8").splitlines()
        found = {line["user"]: (line["target"], line["rank"]) for line in map(json.loads, read)}
        catalogue = self.splits.catalogue
        _, users, targets = evaluation.held_back(self.splits, TEST)
        wanted = {
            catalogue.user_ids[user]: catalogue.item_ids[item]
            for user, item in zip(users, targets, strict=True)
        }
        if {user: target for user, (target, _) in found.items()} != wanted:
            raise UserError(f"{folder}: lists of other users or test items than {catalogue.name}")
        row = self._row(name)[place]
        row[str(folder)] = [found[user][1] or catalogue.num_items for user in wanted]

    def lines(self) -> list[str]:
        """The table, and the paired tests of each row against the one above it."""
        lines = [f"test, {len(self.ranks['popularity'][0]['0'])} users; HR@10 and NDCG@10"]
        for place, seen in enumerate(("seen items left out", "seen items kept in")):
            lines.append(seen)
            gains = {}
            for name, row in ((name, ranks[place]) for name, ranks in self.ranks.items()):
                if not row:
                    continue
                seeds = [np.array(ranks) for ranks in row.values()]
                hits = np.mean([hit_rate(ranks, 10) for ranks in seeds], axis=0)
                gain = [ndcg(ranks, 10) for ranks in seeds]
                gains[name] = np.mean(gain, axis=0)
                means = ", ".join(f"{one.mean():.4f}" for one in gain)
                each = f"  (seeds: {means})" if len(seeds) > 1 else ""
                figures = f"{mean_interval(hits)}  {mean_interval(gains[name])}"
                lines.append(f"  {name:<28}{figures}{each}")
            ordered = sorted(gains, key=lambda name: gains[name].mean())
            for lower, higher in zip(ordered[:-1], ordered[1:], strict=True):
                lines.append(f"  {compare(lower, gains[lower], higher, gains[higher])}")
        return lines


def main() -> int:
    """Parses the words, trains what is not trained, and prints the ladder."""
    parser = argparse.ArgumentParser(
        prog="cf_ladder.py", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    cf_data.add_arguments(parser)
    parser.add_argument("--folder", default="runs/cf_ladder", type=pathlib.Path)
    parser.add_argument("--recipes", nargs="*", default=["runs/cf.gin", "runs/sasrec.gin"])
    parser.add_argument("--bind", nargs="*", default=[], help="NAME=VALUE of every recipe")
    parser.add_argument("--seeds", nargs="+", default=[0], type=int, help="of every recipe")
    parser.add_argument(
        "--lists", nargs="*", default=[], help="NAME=FOLDER of an evaluation of a run"
    )
    arguments = parser.parse_args()
    keep_freed_memory()
    splits, train = cf_data.load(arguments)
    cf_data.claim(arguments.folder, splits, bound=arguments.bind, ranks="by seed")
    ladder = Ladder(splits, train, arguments.folder)
    for name, make in ladder.baselines():
        ladder.measure(name, make)
    for file, seed in itertools.product(arguments.recipes, arguments.seeds):
        name = pathlib.Path(file).stem
        recipe = gin_config.build(FitCF, [file], [*arguments.bind, f"SEED={seed}"])
        if any(isinstance(method, SequentialConfig) for method in recipe.methods):
            recipe = dataclasses.replace(recipe, model_dir=str(arguments.folder / f"{name}_{seed}"))
        for row, make in ladder.recipe(name, recipe, gin_config.operative_config(), seed):
            ladder.measure(row, make, seed)
    for words in arguments.lists:
        row, given, folder = words.partition("=")
        if not given:
            raise UserError(f"--lists {words}: give NAME=FOLDER")
        ladder.evaluated(row, pathlib.Path(folder))
    lines = ladder.lines()
    with atomic_write(arguments.folder / "table.txt") as stream:
        stream.write("\n".join(lines) + "\n")
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(cf_data.exit_code(main))
