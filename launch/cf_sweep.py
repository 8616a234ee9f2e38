"""Tunes iALS on one dataset by validation NDCG@10, beside popularity and item-kNN.

    python launch/cf_sweep.py --sequences FILE --folder runs/cf_sweep/ml1m
    python launch/cf_sweep.py --dataset movielens/latest_small --data_dir DIR --dims 16 32 64

Every setting is fitted for the same number of epochs (nu = 1); the best on validation is fitted
again with two more seeds, and its test figure is given beside the baselines'. Finished settings
are kept, so the same command goes on where it was. The recipes runs/cf_*.gin hold what it found.
"""

import argparse
import dataclasses
import itertools
import json
import pathlib
import sys
import time

import cf_data
import numpy as np

from ilm_jax.cf import evaluation, ials, item_knn
from ilm_jax.cf.popularity import popularity_scorer
from ilm_jax.data.splits import TEST, VALID
from ilm_jax.evaluation.intervals import compare, mean_interval
from ilm_jax.files import atomic_write


def sweep(arguments: argparse.Namespace) -> list[str]:
    """Runs the grid; lines to print."""
    splits, train = cf_data.load(arguments)
    path = arguments.folder / "results.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    grid = list(itertools.product(arguments.dims, arguments.alphas, arguments.ridges))

    def run(config: ials.IALSConfig) -> dict:
        name = f"{config.dim}/{config.alpha:g}/{config.regularisation:g}/seed{config.seed}"
        if name not in results:
            start = time.monotonic()
            factors = ials.fit_interactions(train, config)
            scorer = evaluation.vector_scorer(factors.user, factors.item)
            seconds = time.monotonic() - start
            found = {fold: evaluation.evaluate(scorer, splits, fold) for fold in (VALID, TEST)}
            results[name] = {
                "valid": float(found[VALID].ndcg(10).mean()), "seconds": seconds,
                "valid_recall20": float(found[VALID].recall(20).mean()),
                "test": found[TEST].ndcg(10).tolist(),
            }  # fmt: skip
            with atomic_write(path) as stream:
                json.dump(results, stream)
            print(f"{name}: validation NDCG@10 {results[name]['valid']:.4f}, {seconds:.0f} s",
                  flush=True)  # fmt: skip
        return results[name]

    configs = {at: ials.IALSConfig(dim=at[0], alpha=at[1], regularisation=at[2],
                                   epochs=arguments.epochs) for at in grid}  # fmt: skip
    found = {at: run(config) for at, config in configs.items()}
    best = max(found, key=lambda at: found[at]["valid"])
    lines = [f"validation NDCG@10 / Recall@20 ({arguments.epochs} epochs, nu 1, seed 0)"]
    for dim, alpha in itertools.product(arguments.dims, arguments.alphas):
        cells = [found[dim, alpha, r] for r in arguments.ridges]
        shown = "  ".join(
            f"{r:g}: {c['valid']:.4f}/{c['valid_recall20']:.4f}"
            for r, c in zip(arguments.ridges, cells, strict=True)
        )
        lines.append(f"  dim {dim:3} alpha {alpha:<5g} lambda {shown}")
    lines.append(f"best: dim {best[0]}, alpha {best[1]:g}, lambda {best[2]:g}")

    seeds = [run(dataclasses.replace(configs[best], seed=seed)) for seed in (0, 1, 2)]
    test = {"iALS": np.mean([seed["test"] for seed in seeds], axis=0)}
    scorers: dict[str, evaluation.Scorer] = {"popularity": popularity_scorer(splits.train_counts()),
               "item-kNN": item_knn.fit(train)}  # fmt: skip
    for name, scorer in scorers.items():
        test[name] = evaluation.evaluate(scorer, splits, TEST).ndcg(10)
    lines.append("test NDCG@10 (iALS: mean of seeds 0, 1, 2):")
    lines += [f"  {name:<11}{mean_interval(values)}" for name, values in test.items()]
    for name in scorers:
        lines.append(f"  {compare(name, test[name], 'iALS', test['iALS'])}")
    return lines


def main() -> int:
    """Parses the words and sweeps."""
    parser = argparse.ArgumentParser(
        prog="cf_sweep.py", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    cf_data.add_arguments(parser)
    parser.add_argument("--folder", default="runs/cf_sweep", type=pathlib.Path)
    parser.add_argument("--dims", type=int, nargs="+", default=[32])
    parser.add_argument("--alphas", type=float, nargs="+", default=[0.03, 0.1, 0.3, 1.0])
    parser.add_argument("--ridges", type=float, nargs="+", default=[1e-3, 3e-3, 1e-2, 3e-2])
    parser.add_argument("--epochs", type=int, default=10)
    arguments = parser.parse_args()
    lines = sweep(arguments)
    with atomic_write(arguments.folder / "table.txt") as stream:
        stream.write("\n".join(lines) + "\n")
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
