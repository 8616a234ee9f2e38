"""Tunes iALS on one dataset by validation NDCG@10, beside popularity and item-kNN.

    python launch/cf_sweep.py --sequences FILE --folder runs/cf_sweep/ml1m
    python launch/cf_sweep.py --dataset movielens/latest_small --data_dir DIR --dims 16 32 64

Every setting is fitted for the same number of epochs; the best on validation is fitted again with
two more seeds, and its test figure is given beside popularity's and item-kNN's (tuned on validation
too). Finished settings are kept, so the same command, with a wider grid too, goes on where it was;
the table holds all that were ever run in the folder. The recipes runs/cf_*.gin hold what it found.
"""

import argparse
import functools
import itertools
import json
import pathlib
import sys
import time
from collections.abc import Callable
from typing import Any

import cf_data
import numpy as np

from ilm_jax.cf import evaluation, ials, item_knn
from ilm_jax.cf.popularity import popularity_scorer
from ilm_jax.data.splits import TEST, VALID
from ilm_jax.evaluation.intervals import compare, mean_interval
from ilm_jax.files import atomic_write

Setting = tuple[int, float, float, float]
"""dim, alpha, lambda, nu."""


def sweep(arguments: argparse.Namespace) -> list[str]:
    """Runs the grid; lines to print."""
    splits, train = cf_data.load(arguments)
    path = arguments.folder / "results.json"
    results: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}

    def kept(name: str, measure: Callable[[], Any]) -> Any:
        """What is in the file, or is measured now and put there."""
        if name not in results:
            start = time.monotonic()
            results[name] = measure()
            with atomic_write(path) as stream:
                json.dump(results, stream)
            print(f"{name}: NDCG@10 {np.mean(results[name]):.4f}, "
                  f"{time.monotonic() - start:.0f} s", flush=True)  # fmt: skip
        return results[name]

    def ndcg(scorer: evaluation.Scorer, fold: int) -> np.ndarray:
        return evaluation.evaluate(scorer, splits, fold).ndcg(10)

    def valid_of(setting: Setting) -> float:
        return float(ndcg(fit(setting), VALID).mean())

    def neighbours_valid(config: item_knn.ItemKNNConfig) -> float:
        return float(ndcg(item_knn.fit(train, config), VALID).mean())

    def test_of(make: Callable[[], evaluation.Scorer]) -> list[float]:
        return ndcg(make(), TEST).tolist()

    def fit(setting: Setting, seed: int = 0) -> evaluation.Scorer:
        dim, alpha, ridge, nu = setting
        factors = ials.fit_interactions(train, ials.IALSConfig(
            dim=dim, alpha=alpha, regularisation=ridge, nu=nu, epochs=arguments.epochs, seed=seed,
            solver=arguments.solver, cg_steps=arguments.cg_steps))  # fmt: skip
        return evaluation.vector_scorer(factors.user, factors.item)

    grid = itertools.product(arguments.dims, arguments.alphas, arguments.ridges, arguments.nus)
    for setting in grid:
        kept(_name(setting), functools.partial(valid_of, setting))
    found: dict[Setting, float] = {}
    for name, value in results.items():
        if name[0].isdigit():
            dim, alpha, ridge, nu = map(float, name.split("/"))
            found[int(dim), alpha, ridge, nu] = value
    lines = [f"validation NDCG@10 ({arguments.epochs} epochs, {arguments.solver}, seed 0)"]
    lines += _grid(found)
    best = max(found, key=lambda setting: found[setting])
    lines.append(f"best: dim {best[0]}, alpha {best[1]:g}, lambda {best[2]:g}, nu {best[3]:g}")
    if arguments.grid_only:
        return lines

    def test(name: str, make: Callable[[], evaluation.Scorer]) -> np.ndarray:
        return np.array(kept(f"test/{name}", functools.partial(test_of, make)))

    tests = [test(f"{_name(best)}/seed{seed}", functools.partial(fit, best, seed))
             for seed in (0, 1, 2)]  # fmt: skip
    neighbours = {f"item-kNN/{number}/{shrinkage:g}": item_knn.ItemKNNConfig(number, shrinkage)
                  for number in (50, 200) for shrinkage in (0.0, 10.0, 50.0)}  # fmt: skip
    valid = {name: kept(name, functools.partial(neighbours_valid, at))
             for name, at in neighbours.items()}  # fmt: skip
    nearest = max(valid, key=lambda name: valid[name])
    lines.append("  ".join(f"{name} {value:.4f}" for name, value in valid.items()))
    figures = {
        "iALS": np.mean(tests, axis=0),
        "popularity": test("popularity", lambda: popularity_scorer(splits.train_counts())),
        "item-kNN": test(nearest, lambda: item_knn.fit(train, neighbours[nearest])),
    }
    lines.append("test NDCG@10 (iALS: mean of seeds 0, 1, 2):")
    lines += [f"  {name:<11}{mean_interval(values)}" for name, values in figures.items()]
    for name in ("popularity", "item-kNN"):
        lines.append(f"  {compare(name, figures[name], 'iALS', figures['iALS'])}")
    return lines


def _name(setting: Setting) -> str:
    return "/".join(f"{x:g}" for x in setting)


def _grid(found: dict[Setting, float]) -> list[str]:
    """A line for each dim, nu and alpha."""
    lines = []
    for dim, nu, alpha in sorted({(s[0], s[3], s[1]) for s in found}):
        mine = sorted(s for s in found if (s[0], s[3], s[1]) == (dim, nu, alpha))
        shown = "  ".join(f"{s[2]:g}: {found[s]:.4f}" for s in mine)
        lines.append(f"  dim {dim:3} nu {nu:<4g} alpha {alpha:<5g} lambda {shown}")
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
    parser.add_argument("--nus", type=float, nargs="+", default=[1.0])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--solver", default="cholesky", choices=("cholesky", "cg"))
    parser.add_argument("--cg_steps", type=int, default=3)
    parser.add_argument("--grid_only", action="store_true", help="no test figures yet")
    arguments = parser.parse_args()
    lines = sweep(arguments)
    with atomic_write(arguments.folder / "table.txt") as stream:
        stream.write("\n".join(lines) + "\n")
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
