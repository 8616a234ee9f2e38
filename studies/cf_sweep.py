"""Tunes iALS on one dataset by validation NDCG@10, beside popularity and item-kNN.

    python studies/cf_sweep.py --sequences FILE --folder runs/cf_sweep/ml1m
    python studies/cf_sweep.py --dataset movielens/latest_small --data_dir DIR --dims 16 32 64

Every setting is fitted for the same number of epochs, with as many seeds as `--seeds` says; the
best by the mean on validation is given on test with three seeds, beside popularity and item-kNN
(tuned on validation too). Finished fits are kept, so the same command, with a wider grid too, goes
on where it was; the table holds all that were ever run in the folder. The recipes runs/cf_*.gin
hold what it found.
"""

import argparse
import dataclasses
import functools
import itertools
import json
import pathlib
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import cf_data
import numpy as np
from exiting import exit_code

from ilm_jax.cf import evaluation, ials, item_knn
from ilm_jax.cf.interactions import Interactions
from ilm_jax.cf.popularity import popularity_scorer
from ilm_jax.data.catalogue.splits import TEST, VALID, Splits
from ilm_jax.files import atomic_write
from ilm_jax.metrics.intervals import compare, mean_interval

NEIGHBOURS = [
    item_knn.ItemKNNConfig(number, shrinkage)
    for number in (50, 200)
    for shrinkage in (0.0, 10.0, 50.0)
]


class Setting(NamedTuple):
    """What is tuned."""

    dim: int
    alpha: float
    regularisation: float
    nu: float

    def __str__(self) -> str:
        """Numbers with slashes, as the kept file has them."""
        return "/".join(f"{x:g}" for x in self)


@dataclasses.dataclass
class Study:
    """One dataset, and the figures that were measured on it, kept in a file."""

    splits: Splits
    train: Interactions
    base: ials.IALSConfig
    path: pathlib.Path

    def __post_init__(self) -> None:
        self.results: dict[str, Any] = (
            json.loads(self.path.read_text()) if self.path.exists() else {}
        )

    def kept(self, name: str, measure: Callable[[], Any]) -> Any:
        """What is in the file, or is measured now and put there."""
        if name not in self.results:
            start = time.monotonic()
            self.results[name] = measure()
            with atomic_write(self.path) as stream:
                json.dump(self.results, stream)
            print(
                f"{name}: NDCG@10 {np.mean(self.results[name]):.4f}, "
                f"{time.monotonic() - start:.0f} s",
                flush=True,
            )
        return self.results[name]

    def valid(self, name: str, make: Callable[[], evaluation.Scorer]) -> float:
        """Mean over users, on validation."""
        return self.kept(name, lambda: float(self._ndcg(make(), VALID).mean()))

    def test(self, name: str, make: Callable[[], evaluation.Scorer]) -> np.ndarray:
        """By user, on test."""
        return np.array(self.kept(f"test/{name}", lambda: self._ndcg(make(), TEST).tolist()))

    def _ndcg(self, scorer: evaluation.Scorer, fold: int) -> np.ndarray:
        return evaluation.evaluate(scorer, self.splits, fold).ndcg(10)

    def fit(self, setting: Setting, seed: int) -> evaluation.Scorer:
        """iALS."""
        config = dataclasses.replace(self.base, **setting._asdict(), seed=seed)
        factors = ials.fit_interactions(self.train, config)
        return evaluation.vector_scorer(factors.user, factors.item)

    def grid(self, settings: list[Setting], seeds: int) -> dict[Setting, list[float]]:
        """Validation figures by setting, one per seed; earlier runs' too."""
        for setting, seed in itertools.product(settings, range(seeds)):
            self.valid(f"{setting}/seed{seed}", functools.partial(self.fit, setting, seed))
        found: dict[Setting, list[float]] = {}
        for name, value in self.results.items():
            if name[0].isdigit():
                dim, *others = map(float, name.split("/")[:4])
                found.setdefault(Setting(int(dim), *others), []).append(value)
        return found


def sweep(study: Study, settings: list[Setting], seeds: int, grid_only: bool) -> list[str]:
    """Runs the grid; lines to print."""
    found = study.grid(settings, seeds)
    epochs, solver = study.base.epochs, study.base.solver
    lines = [f"validation NDCG@10 ({epochs} epochs, {solver}; mean of seeds)", *_table(found)]
    # A mean of fewer seeds than others have would win by luck.
    most = max(map(len, found.values()))
    best = max((s for s in found if len(found[s]) == most), key=lambda s: np.mean(found[s]))
    lines.append(
        f"best of those with {most} seeds: dim {best.dim}, alpha {best.alpha:g}, "
        f"lambda {best.regularisation:g}, nu {best.nu:g}"
    )
    return lines if grid_only else lines + _tests(study, best)


def _table(found: dict[Setting, list[float]]) -> list[str]:
    """A line for each dim, nu and alpha."""
    lines = []
    for dim, nu, alpha in sorted({(s.dim, s.nu, s.alpha) for s in found}):
        mine = sorted(s for s in found if (s.dim, s.nu, s.alpha) == (dim, nu, alpha))
        shown = "  ".join(f"{s.regularisation:g}: {np.mean(found[s]):.4f}" for s in mine)
        lines.append(f"  dim {dim:3} nu {nu:<4g} alpha {alpha:<5g} lambda {shown}")
    return lines


def _tests(study: Study, best: Setting) -> list[str]:
    """Test figures of the best setting and of the baselines."""
    fits = [
        study.test(f"{best}/seed{seed}", functools.partial(study.fit, best, seed))
        for seed in (0, 1, 2)
    ]
    makers = {
        f"item-kNN/{config.neighbours}/{config.shrinkage:g}": functools.partial(
            item_knn.fit, study.train, config
        )
        for config in NEIGHBOURS
    }
    valid = {name: study.valid(name, make) for name, make in makers.items()}
    nearest = max(valid, key=lambda name: valid[name])
    popular = functools.partial(popularity_scorer, study.splits.train_counts())
    figures = {
        "iALS": np.mean(fits, axis=0),
        "popularity": study.test("popularity", popular),
        "item-kNN": study.test(nearest, makers[nearest]),
    }
    lines = [
        "  ".join(f"{name} {value:.4f}" for name, value in valid.items()),
        "test NDCG@10 (iALS: mean of seeds 0, 1, 2):",
    ]
    lines += [f"  {name:<11}{mean_interval(values)}" for name, values in figures.items()]
    lines += [
        f"  {compare(name, figures[name], 'iALS', figures['iALS'])}"
        for name in ("popularity", "item-kNN")
    ]
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
    parser.add_argument("--seeds", type=int, default=1, help="of each setting")
    parser.add_argument("--grid_only", action="store_true", help="no test figures yet")
    arguments = parser.parse_args()
    splits, train = cf_data.load(arguments)
    shared = {name: getattr(arguments, name) for name in ("epochs", "solver", "cg_steps")}
    cf_data.claim(arguments.folder, splits, **shared)
    base = ials.IALSConfig(**shared)
    study = Study(splits, train, base, arguments.folder / "results.json")
    grid = itertools.product(arguments.dims, arguments.alphas, arguments.ridges, arguments.nus)
    settings = [Setting(*point) for point in grid]
    lines = sweep(study, settings, arguments.seeds, arguments.grid_only)
    with atomic_write(arguments.folder / "table.txt") as stream:
        stream.write("\n".join(lines) + "\n")
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(exit_code(main))
