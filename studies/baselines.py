"""Collaborative filtering alone, in the form of `ilm evaluate`: what rows of a table compete with.

    python studies/baselines.py --dataset toy --table runs/toy/cf.safetensors --folder FOLDER

Popularity, item-kNN (tuned on validation), iALS and SASRec list ten items of the whole catalogue
for every user, without what the user had before the test item. Item-kNN and SASRec read all of
that, the validation item included, as a language model's prompt does. `ials` folds every user in
from it, and `ials-training` has the table's own vectors of users, which know the training
interactions alone. FOLDER/ROW holds each row's evaluation, so that `ilm compare` and a study read
them; SASRec trains in FOLDER/sasrec, and a killed command goes on there.
"""

import argparse
import dataclasses
import json
import pathlib
import sys
from collections.abc import Iterator

import cf_sweep
import numpy as np
from exiting import exit_code
from jaxtyping import Float, Int

from ilm_jax.cf import evaluation, ials, item_knn
from ilm_jax.cf.interactions import Interactions, train_interactions
from ilm_jax.cf.popularity import popularity_scorer
from ilm_jax.cf.sequences import Sequences
from ilm_jax.cf.table import EmbeddingTable
from ilm_jax.data.catalogue.splits import TEST, VALID, Splits, make_splits
from ilm_jax.data.sources.prepare import load_catalogue
from ilm_jax.errors import UserError
from ilm_jax.evaluation.measures.ranking import Ranked
from ilm_jax.evaluation.reports import card, results, run_files
from ilm_jax.files import atomic_write
from ilm_jax.metrics.registry import measure
from ilm_jax.metrics.values import Evaluation
from ilm_jax.runs import gin_config
from ilm_jax.runs.fitting import FitCF
from ilm_jax.runs.sequential import SequentialFit
from ilm_jax.training.host_memory import keep_freed_memory

ROWS = ("popularity", "item-knn", "ials-training", "ials", "sasrec")
SASREC = "tiny/sasrec.gin"
LENGTH = 10
USERS = 512  # whose scores of all items exist at once
NOTES = {
    "popularity": "training interactions of each item",
    "item-knn": "scored with what the user had before the test item",
    "ials-training": "vectors of the table; users by their training interactions",
    "ials": "the same items; users folded in by what they had before the test item",
    "sasrec": "reads what the user had before the test item",
}


def scorers(
    splits: Splits, table: EmbeddingTable, sasrec: SequentialFit
) -> Iterator[tuple[str, evaluation.Scorer]]:
    """Every row and what scores all items for its users."""
    train, seen = train_interactions(splits), evaluation.held_back(splits, TEST)[0]
    yield "popularity", popularity_scorer(splits.train_counts())
    fits = [item_knn.fit(train, config) for config in cf_sweep.NEIGHBOURS]
    best = max(fits, key=lambda fit: evaluation.evaluate(fit, splits, VALID).ndcg(10).mean())
    yield "item-knn", dataclasses.replace(best, train=seen)
    yield "ials-training", evaluation.vector_scorer(table.user, table.item)
    names = {field.name for field in dataclasses.fields(ials.IALSConfig)}
    config = ials.IALSConfig(**{k: v for k, v in table.settings.items() if k in names})
    yield "ials", evaluation.vector_scorer(ials.fold_in(seen, table.item, config), table.item)
    item = sasrec.fit().item
    histories = Sequences.before(splits, TEST)
    yield "sasrec", evaluation.vector_scorer(sasrec.user_vectors(histories), item)


def lists(
    scorer: evaluation.Scorer,
    seen: Interactions,
    users: Int[np.ndarray, " users"],
    targets: Int[np.ndarray, " users"],
) -> Ranked:
    """The best items of every user but those it had, its target aside; ties by catalogue order."""
    rows, scores = [], []
    for first in range(0, len(users), USERS):
        some = np.arange(first, min(first + USERS, len(users)))
        padded = np.concatenate([some, np.full(USERS - len(some), some[-1])])
        found = np.array(scorer(users[padded]), np.float32)[: len(some)]
        best, values = _best(found, seen, users[some], targets[some])
        rows.append(best)
        scores.append(values)
    index = np.arange(len(users))
    both = np.concatenate(rows), np.concatenate(scores)
    return Ranked(index, targets.astype(np.int64), *both, seen.num_items)


def _best(
    scores: Float[np.ndarray, "batch items"],
    seen: Interactions,
    users: Int[np.ndarray, " batch"],
    targets: Int[np.ndarray, " batch"],
) -> tuple[Int[np.ndarray, "batch length"], Float[np.ndarray, "batch length"]]:
    for row, (user, target) in enumerate(zip(users, targets, strict=True)):
        had = seen.items[seen.offsets[user] : seen.offsets[user + 1]]
        scores[row, had[had != target]] = -np.inf
    best = np.argsort(-scores, axis=1, kind="stable")[:, :LENGTH].astype(np.int32)
    values = np.take_along_axis(scores, best, axis=1)
    return np.where(np.isneginf(values), -1, best), values


def write(
    folder: pathlib.Path, name: str, answers: Ranked, splits: Splits, users: list[str]
) -> None:
    """One row's evaluation: evaluation.json, per_unit.npz and every user's list."""
    measured = measure("items", answers)
    protocol = card.ranking_card(
        task="next item",
        split="test",
        users=len(users),
        users_total=len(users),
        items=answers.items,
        beams=LENGTH,
        excludes_history=True,
        found={},
        score=NOTES[name],
    )
    evaluated = Evaluation(measured.metrics, answers.totals(), {"ranking": protocol})
    evaluated += Evaluation([], protocol=card.interactions_card(splits.report()))

    def lists_of_users(at: pathlib.Path) -> list[str]:
        """Writes the run files."""
        run_files.write_ranks(at, answers, users, splits.catalogue.item_ids, tag=name)
        return list(run_files.NAMES)

    at = folder / name
    results.write(at, evaluated, writers=[lists_of_users], model_dir=str(at), step=0)


def sasrec_of(arguments: argparse.Namespace, splits: Splits, folder: pathlib.Path) -> SequentialFit:
    """The fit of `SASREC`, trained in the folder."""
    recipe = gin_config.build(FitCF, [SASREC], [f"SEED={arguments.seed}"])
    recipe = dataclasses.replace(recipe, model_dir=str(folder / "sasrec"))
    run = recipe.trained(splits, config_text=gin_config.operative_config())
    assert isinstance(run, SequentialFit)
    return run


def main() -> int:
    """Measures every row; the last file to be written says that all are there."""
    parser = argparse.ArgumentParser(
        prog="baselines.py", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--dataset", default="toy")
    parser.add_argument("--data_dir", help="folder of the raw files (not for toy)")
    parser.add_argument("--cache_dir", help="prepared data (default: $ILM_CACHE or ~/.cache)")
    parser.add_argument(
        "--table", required=True, help="vectors of iALS, as `ilm fit_cf` wrote them"
    )
    parser.add_argument("--folder", required=True, type=pathlib.Path)
    parser.add_argument("--seed", type=int, default=0, help="of SASRec")
    arguments = parser.parse_args()
    keep_freed_memory()
    catalogue = load_catalogue(
        arguments.dataset, data_dir=arguments.data_dir, cache_dir=arguments.cache_dir
    )
    splits = make_splits(catalogue)
    table = EmbeddingTable.load(arguments.table, splits)
    if table.settings.get("method") != "ials":
        raise UserError(f"{arguments.table} holds no iALS: give the table of runs/cf.gin")
    seen, users, targets = evaluation.held_back(splits, TEST)
    names, ndcg = [catalogue.user_ids[user] for user in users], {}
    for name, scorer in scorers(splits, table, sasrec_of(arguments, splits, arguments.folder)):
        answers = lists(scorer, seen, users, targets)
        write(arguments.folder, name, answers, splits, names)
        found = {metric.name: metric.mean for metric in measure("items", answers).metrics}
        ndcg[name] = found["ndcg@10"]
        print(f"{name:<14} hr@10 {found['hr@10']:.4f}  ndcg@10 {ndcg[name]:.4f}", flush=True)
    with atomic_write(arguments.folder / "baselines.json") as stream:
        json.dump(ndcg, stream, indent=1)
    return 0


if __name__ == "__main__":
    sys.exit(exit_code(main))
