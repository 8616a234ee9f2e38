"""What is promised of collaborative vectors, measured on one dataset.

    python studies/cf_checks.py --sequences FILE [--folder runs/cf_checks]
    python studies/cf_checks.py --dataset movielens/1m --data_dir DIR

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
from collections.abc import Callable

import cf_data
import jax
import numpy as np
from exiting import exit_code
from jax.sharding import Mesh

from ilm_jax.cf import evaluation, ials
from ilm_jax.cf.ials import Factors, IALSConfig
from ilm_jax.cf.interactions import Interactions
from ilm_jax.cf.popularity import popularity_scorer
from ilm_jax.cf.sampled_metrics import Candidates, corrected_metric
from ilm_jax.data.catalogue.splits import TEST, VALID, Splits
from ilm_jax.files import atomic_write
from ilm_jax.metrics.intervals import compare, mean_interval
from ilm_jax.metrics.ranking import ndcg
from ilm_jax.runs import fitting

CHECKS = ("devices", "user_vectors", "sampled_metrics", "fold_in")


def devices(train: Interactions, config: IALSConfig, one: Factors) -> None:
    """Largest difference of any entry between one device and all."""
    mesh = Mesh(np.array(jax.devices()), ("data",))
    for gather in ("whole", "rows"):
        many = ials.fit_interactions(train, dataclasses.replace(config, gather=gather), mesh=mesh)
        gaps = [np.abs(a - b).max() for a, b in ((many.user, one.user), (many.item, one.item))]
        largest = np.abs(one.item).max()
        print(
            f"{mesh.size} devices, gather={gather}, {config.epochs} epochs: largest difference "
            f"{max(gaps):.1e} of entries up to {largest:.2f}",
            flush=True,
        )


Figures = dict[str, np.ndarray]
"""By name, of the users that have targets."""


def fold_in(
    splits: Splits, train: Interactions, config: IALSConfig, arguments: argparse.Namespace
) -> None:
    """Everybody is folded in once, into a fit that did without that part's users."""
    folds, seeds = arguments.folds, arguments.seeds
    settings = f"dim{config.dim}_alpha{config.alpha:g}_lambda{config.regularisation:g}"

    def kept(name: str, fit: Callable[[], Factors]) -> Figures:
        """NDCG of the fit's vectors, from the folder if it is there: a killed run goes on."""
        path = arguments.folder / f"fold_in_{settings}_epochs{config.epochs}_{name}.npz"
        if not path.exists():
            vectors = fit()
            figures: Figures = {}
            scorer = evaluation.vector_scorer(vectors.user, vectors.item)
            for kind, fold in (("test", TEST), ("validation", VALID)):
                found = evaluation.evaluate(scorer, splits, fold)
                figures |= {f"{kind}@{k}": found.ndcg(k) for k in (10, 100)}
            with atomic_write(path, "wb") as stream:
                np.savez_compressed(stream, allow_pickle=False, **figures)
            print(f"{path.stem}: test NDCG@10 {figures['test@10'].mean():.4f}", flush=True)
        return dict(np.load(path, allow_pickle=False))

    def without(new: np.ndarray, this: IALSConfig) -> Factors:
        """A fit that has not seen the users `new`, who are folded in."""
        left = ~np.isin(train.users, new)
        users, items = train.users[left], train.items[left]
        fitted = ials.fit(users, items, train.num_users, train.num_items, this)
        user = fitted.user.copy()
        user[new] = ials.fold_in([train.of(int(row)) for row in new], fitted.item, this)
        return Factors(user, fitted.item)

    judged = evaluation.held_back(splits, TEST)[1]
    folded: Figures = {}
    trained: Figures = {}
    for seed in range(seeds):
        this = dataclasses.replace(config, seed=seed)
        whole = kept(f"whole_seed{seed}", functools.partial(ials.fit_interactions, train, this))
        for name, values in whole.items():
            trained[name] = trained.get(name, 0) + values / seeds
        for number in range(folds):
            new = np.arange(number, train.num_users, folds)
            part = kept(f"{number}of{folds}_seed{seed}", functools.partial(without, new, this))
            mine = np.isin(judged, new)
            for name, values in part.items():
                folded[name] = folded.get(name, 0) + np.where(mine, values, 0.0) / seeds
    _print_fold_in(folded, trained, folds, seeds)


def _print_fold_in(folded: Figures, trained: Figures, folds: int, seeds: int) -> None:
    print(
        f"fold-in of all users, a fit without them for each of {folds} parts, mean of {seeds} "
        "seeds; relative to training with them:"
    )
    for figures in (folded, trained):
        for k in (10, 100):
            figures[f"mean of both targets@{k}"] = (
                figures[f"test@{k}"] + figures[f"validation@{k}"]
            ) / 2
    for name in (n for n in folded if not n.startswith("validation")):
        gap, whole = mean_interval(folded[name] - trained[name]), trained[name].mean()
        low, middle, high = (100 * x / whole for x in (gap.low, gap.mean, gap.high))
        print(
            f"  NDCG, {name}: {folded[name].mean():.4f} and {whole:.4f}: {middle:+.1f} % "
            f"[{low:+.1f}, {high:+.1f}]; within 2 %: "
            f"{_decided(low >= -2 and high <= 2, low > 2 or high < -2)}; no worse than "
            f"-2 %: {_decided(low >= -2, high < -2)}",
            flush=True,
        )


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
    print(
        "last training item, NDCG@10 by user vector:",
        ", ".join(f"{name} {mean_interval(v)}" for name, v in figures.items()),
    )
    print(f"  {compare('prefix', figures['prefix'], 'full', figures['full'])}", flush=True)


def sampled_metrics(splits: Splits, one: Factors, folder: pathlib.Path) -> None:
    """Test NDCG@10 and @50, full and by candidates."""
    seen, users, targets = evaluation.held_back(splits, TEST)
    scorers = {
        "iALS": evaluation.vector_scorer(one.user, one.item),
        "popularity": popularity_scorer(splits.train_counts()),
    }
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
    cf_data.claim(arguments.folder, splits)
    config = IALSConfig(
        dim=arguments.dim,
        alpha=arguments.alpha,
        epochs=arguments.epochs,
        regularisation=arguments.regularisation,
    )

    @functools.cache
    def one() -> Factors:
        """The fit that most checks are about."""
        fitted = ials.fit_interactions(train, config)
        scorer = evaluation.vector_scorer(fitted.user, fitted.item)
        found = evaluation.evaluate(scorer, splits, TEST)
        print(f"{splits.catalogue.name}: test NDCG@10 {mean_interval(found.ndcg(10))}", flush=True)
        return fitted

    checks = {
        "devices": lambda: devices(train, config, one()),
        "user_vectors": lambda: user_vectors(splits, train, config, one()),
        "sampled_metrics": lambda: sampled_metrics(splits, one(), arguments.folder),
        "fold_in": lambda: fold_in(splits, train, config, arguments),
    }
    for name in arguments.only:
        checks[name]()
    return 0


if __name__ == "__main__":
    sys.exit(exit_code(main))
