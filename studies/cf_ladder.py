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
import re
import sys
from collections.abc import Callable, Container, Iterator, Mapping, Sequence

import cf_data
import cf_sweep
import ladder_picture
import numpy as np
import receipts
from exiting import exit_code
from receipts import Receipt

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
from ilm_jax.metrics.values import MetricValues
from ilm_jax.runs import gin_config
from ilm_jax.runs.fitting import FitCF
from ilm_jax.runs.sequential import SequentialConfig, SequentialFit
from ilm_jax.training.host_memory import keep_freed_memory

HALVES = "left out", "kept in"
PerUser = tuple[np.ndarray, np.ndarray]
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
        return str(seed) in self.ranks.get(name, [{}])[0]

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

    def rows(self, place: int) -> Iterator[tuple[str, PerUser, list[float]]]:
        """Of a half: each row's name, its users' HR@10 and NDCG@10, and NDCG@10 by seed."""
        for name, halves in self.ranks.items():
            if seeds := [np.array(ranks) for ranks in halves[place].values()]:
                hits = np.mean([hit_rate(ranks, 10) for ranks in seeds], axis=0)
                gains = [ndcg(ranks, 10) for ranks in seeds]
                means = [float(gain.mean()) for gain in gains]
                yield name, (hits, np.mean(gains, axis=0)), means

    def lines(self) -> list[str]:
        """The table, and the paired tests of each row against the one above it."""
        lines = [f"test, {len(self.ranks['popularity'][0]['0'])} users; HR@10 and NDCG@10"]
        for place, seen in enumerate(HALVES):
            lines.append(f"seen items {seen}")
            gains = {}
            for name, (hits, gain), seeds in self.rows(place):
                gains[name] = gain
                means = ", ".join(f"{mean:.4f}" for mean in seeds)
                each = f"  (seeds: {means})" if len(seeds) > 1 else ""
                lines.append(f"  {name:<28}{mean_interval(hits)}  {mean_interval(gain)}{each}")
            ordered = sorted(gains, key=lambda name: gains[name].mean())
            for lower, higher in zip(ordered[:-1], ordered[1:], strict=True):
                lines.append(f"  {compare(lower, gains[lower], higher, gains[higher])}")
        return lines

    def picture(self, names: Mapping[str, str], lists: Container[str], title: str) -> None:
        """Draws the first half into the folder, by other names where some are given."""
        drawn = {
            names.get(name, name): (mean_interval(gain), name in lists)
            for name, (_, gain), _ in self.rows(0)
        }
        whom = f"{title}, {len(self.ranks['popularity'][0]['0']):,} users, seen items {HALVES[0]}"
        ladder_picture.draw(drawn, whom, self.folder / "ladder.png")

    def keep(
        self, names: Mapping[str, str], lists: Container[str], title: str, folder: pathlib.Path
    ) -> None:
        """Leaves a receipt of each row of the first half, as `picture` names them.

        Raises:
          UserError: for two rows whose names differ in marks alone.
        """
        written = set[str]()
        for name, (hits, gain), means in self.rows(0):
            shown, users = names.get(name, name), np.arange(len(gain))
            row = re.sub(r"[^a-z0-9]+", "-", f"{title}_{shown}".lower()).strip("-")
            if row in written:
                raise UserError(f"--names: two rows would be called {row}: give another name")
            written.add(row)
            made = {
                "data": self.splits.fingerprint,
                "dataset": title,
                "row": shown,
                "kind": "lists" if name in lists else "fitted",
                "seeds": str(len(means)),
            }
            metrics = {
                metric: MetricValues(metric, "users", users, values, None, True)
                for metric, values in (("ndcg@10", gain), ("hr@10", hits))
            }
            receipts.write(folder, Receipt(row, made, receipts.commit(), 0.0, [], metrics))


def pairs_of(flag: str, words: Sequence[str]) -> list[tuple[str, str]]:
    """What words of the form A=B say.

    Raises:
      UserError: for another form.
    """
    for word in words:
        if "=" not in word:
            raise UserError(f"{flag} {word}: give two names with = between them")
    return [(name, value) for name, _, value in (word.partition("=") for word in words)]


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
    parser.add_argument(
        "--names", nargs="*", default=[], help="ROW=NAME in the picture, FOLDER/ladder.png"
    )
    parser.add_argument(
        "--receipts", type=pathlib.Path, help="leave a receipt of every row in this folder"
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
    lists = pairs_of("--lists", arguments.lists)
    for row, folder in lists:
        ladder.evaluated(row, pathlib.Path(folder))
    lines = ladder.lines()
    with atomic_write(arguments.folder / "table.txt") as stream:
        stream.write("\n".join(lines) + "\n")
    names = dict(pairs_of("--names", arguments.names))
    title = splits.catalogue.name.removeprefix("sequences/")
    ladder.picture(names, dict(lists), title)
    if arguments.receipts:
        ladder.keep(names, dict(lists), title, arguments.receipts)
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(exit_code(main))
