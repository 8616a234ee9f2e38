"""What is promised of collaborative vectors, measured on one dataset.

    python launch/cf_checks.py --sequences FILE [--folder runs/cf_checks]
    python launch/cf_checks.py --dataset movielens/1m --data_dir DIR

Same factors on all devices as on one (run it with 8 virtual ones:
XLA_FLAGS=--xla_force_host_platform_device_count=8); NDCG of users that are folded in, beside that
of training with them; what a full user vector knows of its training targets, beside a prefix
one; and test figures by sampled candidates, raw and corrected, beside the full catalogue's.
"""

import argparse
import dataclasses
import functools
import pathlib
import sys

import cf_data
import jax
import numpy as np
from jax.sharding import Mesh

from ilm_jax.cf import evaluation, fitting, ials
from ilm_jax.cf.ials import Factors, IALSConfig
from ilm_jax.cf.interactions import Interactions
from ilm_jax.cf.popularity import popularity_scorer
from ilm_jax.cf.sampled_metrics import Candidates, corrected_metric
from ilm_jax.data.splits import TEST, VALID, Splits
from ilm_jax.evaluation.intervals import compare, mean_interval
from ilm_jax.evaluation.metrics import ndcg

CHECKS = ("devices", "user_vectors", "sampled_metrics", "fold_in")


def devices(train: Interactions, config: IALSConfig, one: Factors) -> None:
    """Largest difference of any entry between one device and all."""
    mesh = Mesh(np.array(jax.devices()), ("data",))
    for gather in ("whole", "rows"):
        many = ials.fit_interactions(train, dataclasses.replace(config, gather=gather), mesh=mesh)
        gaps = [np.abs(a - b).max() for a, b in ((many.user, one.user), (many.item, one.item))]
        largest = np.abs(one.item).max()
        print(f"{mesh.size} devices, gather={gather}, {config.epochs} epochs: largest difference "
              f"{max(gaps):.1e} of entries up to {largest:.2f}", flush=True)  # fmt: skip


def fold_in(
    splits: Splits, train: Interactions, config: IALSConfig, folds: int, seeds: int
) -> None:
    """Everybody is folded in once, into a fit that did without that fold's users."""
    scores: dict[str, np.ndarray] = {}

    def score(name: str, user: np.ndarray, item: np.ndarray, mine: np.ndarray) -> None:
        """Keeps the figures of some users, which have their places in all users' order."""
        for fold, kind in ((TEST, "test"), (VALID, "validation")):
            found = evaluation.evaluate(evaluation.vector_scorer(user, item), splits, fold)
            for k in (10, 100):
                kept = scores.setdefault(f"{kind}@{k}/{name}", np.zeros(train.num_users))
                values = np.zeros(train.num_users)
                values[found.users] = found.ndcg(k)
                kept[mine] += values[mine] / seeds

    for number in range(folds):
        new = np.arange(number, train.num_users, folds)
        kept = ~np.isin(train.users, new)
        users, items = train.users[kept], train.items[kept]
        for seed in range(seeds):
            this = dataclasses.replace(config, seed=seed)
            without = ials.fit(users, items, train.num_users, train.num_items, this)
            user = without.user.copy()
            user[new] = ials.fold_in([train.of(int(row)) for row in new], without.item, this)
            score("folded in", user, without.item, new)
    for seed in range(seeds):
        whole = ials.fit_interactions(train, dataclasses.replace(config, seed=seed))
        score("trained with", whole.user, whole.item, np.arange(train.num_users))
    print(f"fold-in of all users, a fit without them for each of {folds} parts, mean of {seeds} "
          "seeds; relative to training with them:")  # fmt: skip
    judged = evaluation.held_back(splits, TEST)[1]
    both = {name: values[judged] for name, values in scores.items()}
    for k in (10, 100):
        pooled = {who: (both[f"test@{k}/{who}"] + both[f"validation@{k}/{who}"]) / 2
                  for who in ("folded in", "trained with")}  # fmt: skip
        of_test = {who: both[f"test@{k}/{who}"] for who in pooled}
        for title, pair in (("test target", of_test), ("both held-back targets", pooled)):
            folded, trained = pair["folded in"], pair["trained with"]
            gap = mean_interval(folded - trained)
            low, middle, high = (100 * x / trained.mean() for x in (gap.low, gap.mean, gap.high))
            print(f"  NDCG@{k} of the {title}: {folded.mean():.4f} and {trained.mean():.4f}: "
                  f"{middle:+.1f} % [{low:+.1f}, {high:+.1f}]; within 2 %: "
                  f"{_decided(low >= -2 and high <= 2, low > 2 or high < -2)}; no worse than "
                  f"-2 %: {_decided(low >= -2, high < -2)}", flush=True)  # fmt: skip


def _decided(yes: bool, no: bool) -> str:
    return "yes" if yes else "no" if no else "undecided"


def user_vectors(splits: Splits, train: Interactions, config: IALSConfig, one: Factors) -> None:
    """Rank of the last training item among what the user had not met before it."""
    users = np.flatnonzero(train.lengths >= 2)
    known = [splits.train_sequence(int(row)) for row in users]
    lengths = np.array([len(sequence) - 1 for sequence in known])
    targets = np.array([sequence[-1] for sequence in known], np.int32)
    before = np.repeat(users, lengths), np.concatenate([sequence[:-1] for sequence in known])
    seen = Interactions.from_pairs(*before, train.num_users, train.num_items)
    prefix = one.user.copy()
    prefix[users] = fitting.prefix_users(splits, one.item, config, users, lengths)
    figures = {}
    for name, user in (("full", one.user), ("prefix", prefix)):
        scorer = evaluation.vector_scorer(user, one.item)
        ranks = evaluation.rank_targets(scorer, seen, users.astype(np.int32), targets)
        figures[name] = ndcg(ranks, 10)
    print("last training item, NDCG@10 by user vector:",
          ", ".join(f"{name} {mean_interval(v)}" for name, v in figures.items()))  # fmt: skip
    print(f"  {compare('prefix', figures['prefix'], 'full', figures['full'])}", flush=True)


def sampled_metrics(splits: Splits, one: Factors, folder: pathlib.Path) -> None:
    """Test NDCG@10 and @50, full and by candidates."""
    seen, users, targets = evaluation.held_back(splits, TEST)
    scorers = {"iALS": evaluation.vector_scorer(one.user, one.item),
               "popularity": popularity_scorer(splits.train_counts())}  # fmt: skip
    for drawn in (100, 500):
        path = folder / f"candidates_{drawn}.safetensors"
        if not path.exists():
            fresh = Candidates.draw(seen, users, targets, drawn, 0, splits.fingerprint)
            fresh.save(path)
        candidates = Candidates.load(path, splits.fingerprint)
        for name, scorer in scorers.items():
            violators = candidates.violators(scorer)
            ranks = evaluation.rank_targets(scorer, seen, users, targets)
            for k in (10, 50):
                metric = functools.partial(ndcg, k=k)
                population = candidates.population.mean()
                found = corrected_metric(metric, violators, drawn, population)
                print(f"NDCG@{k} {name}: truth {ndcg(ranks, k).mean():.4f}; {found}", flush=True)


def main() -> int:
    """Parses the words and measures."""
    parser = argparse.ArgumentParser(
        prog="cf_checks.py", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    cf_data.add_arguments(parser)
    parser.add_argument("--folder", default="runs/cf_checks", type=pathlib.Path)
    parser.add_argument("--dim", type=int, default=32)
    parser.add_argument("--alpha", type=float, default=0.1)
    parser.add_argument("--regularisation", type=float, default=0.01)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--folds", type=int, default=10, help="of the users that are folded in")
    parser.add_argument("--seeds", type=int, default=3, help="of fits for folding in")
    parser.add_argument("--only", nargs="+", choices=CHECKS, default=CHECKS)
    arguments = parser.parse_args()
    splits, train = cf_data.load(arguments)
    config = IALSConfig(dim=arguments.dim, alpha=arguments.alpha, epochs=arguments.epochs,
                        regularisation=arguments.regularisation)  # fmt: skip
    one = ials.fit_interactions(train, config)
    found = evaluation.evaluate(evaluation.vector_scorer(one.user, one.item), splits, TEST)
    print(f"{splits.catalogue.name}: test NDCG@10 {mean_interval(found.ndcg(10))}", flush=True)
    checks = {
        "devices": lambda: devices(train, config, one),
        "user_vectors": lambda: user_vectors(splits, train, config, one),
        "sampled_metrics": lambda: sampled_metrics(splits, one, arguments.folder),
        "fold_in": lambda: fold_in(splits, train, config, arguments.folds, arguments.seeds),
    }
    for name in arguments.only:
        checks[name]()
    return 0


if __name__ == "__main__":
    sys.exit(main())
