"""iALS against the PyPI library `implicit`: quality on equal grids, and seconds of an epoch.

    python -m tests.benchmarks.bench_cf quality --sequences FILE --peer_python VENV/bin/python
    python -m tests.benchmarks.bench_cf seconds --sequences FILE --peer_python VENV/bin/python

`quality` fits both over the same grid with several seeds, picks each one's setting by the mean on
validation, and compares the means of the seeds on test, by user; then, if they picked different
settings, ours with the peer's. It does so for NDCG@10 of the last item of each history (tuned on
the one before it), and for NDCG@20 of a random fifth of each user's items (tuned on a fifth of the
others). The peer minimises our objective at nu = 0, in other units: weights c = (1 + a)/a on
observed pairs and 1 elsewhere, target 1 and L2 l; which is alpha = a, lambda = l a / (1 + a) here.

`seconds` gives the least seconds of an epoch of several, two threads each, the two taking turns,
for Cholesky and for conjugate gradients (three steps in both), and test NDCG@10 of both fits. The
floor is the arithmetic at 100 GFLOP/s: per pair and side 2 d^2 to sum the normal equations, or 4 d
for each product with them (one more than there are steps).
"""

import argparse
import itertools
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np

Job = dict[str, Any]
"""What to fit: data, dim, alpha, ridge, nu, solver, epochs, seed."""
Judge = Callable[[dict[str, Any]], np.ndarray]
"""From a fit to one figure per user."""


def peer_fits(folder: pathlib.Path) -> None:
    """In the peer's interpreter: fits every job of jobs.json with `implicit`."""
    import implicit  # type: ignore[import-not-found]
    import scipy.sparse

    for number, job in enumerate(json.loads((folder / "jobs.json").read_text())):
        data = np.load(folder / f"{job['data']}.npz", allow_pickle=False)
        ones = np.ones(len(data["items"]), np.float32)
        shape = (len(data["offsets"]) - 1, int(data["num_items"]))
        matrix = scipy.sparse.csr_matrix((ones, data["items"], data["offsets"]), shape=shape)
        model = implicit.als.AlternatingLeastSquares(
            factors=job["dim"],
            regularization=job["ridge"] * (1 + job["alpha"]) / job["alpha"],
            alpha=(1 + job["alpha"]) / job["alpha"],
            use_cg=job["solver"] == "cg",
            iterations=job["epochs"],
            num_threads=2,
            random_state=job["seed"],
        )
        times: list[float] = []
        model.fit_callback = lambda _, seconds, *__, times=times: times.append(seconds)
        model.fit(matrix, show_progress=False)
        np.savez(
            folder / f"fit{number}.npz",
            user=model.user_factors,
            item=model.item_factors,
            seconds=min(times),
        )


class Bench:
    """One data set, its splits, and the two libraries that fit it."""

    def __init__(self, arguments: argparse.Namespace, folder: pathlib.Path) -> None:
        from ilm_jax.cf.interactions import Interactions, catalogue_from_sequences, hold_out
        from ilm_jax.data.catalogue.splits import SplitConfig, make_splits

        self.folder, self.python = folder, arguments.peer_python
        catalogue = catalogue_from_sequences(arguments.sequences, "bench")
        self.splits = make_splits(catalogue, SplitConfig(held_out_items=0.0))
        sizes = catalogue.num_users, catalogue.num_items
        train = Interactions.from_pairs(*self.splits.train_interactions(), *sizes)
        users = np.repeat(np.arange(sizes[0]), np.diff(catalogue.offsets))
        rest, held = hold_out(Interactions.from_pairs(users, catalogue.items, *sizes))
        inner, inner_held = hold_out(rest, seed=1)
        self.parts = {"leave_one_out": train, "rest": rest, "inner": inner}
        self.held = {"rest": held, "inner": inner_held}
        for name, part in self.parts.items():
            np.savez(
                folder / f"{name}.npz", offsets=part.offsets, items=part.items, num_items=sizes[1]
            )

    def peer(self, jobs: list[Job]) -> list[Any]:
        """The peer's fits, made in its interpreter."""
        (self.folder / "jobs.json").write_text(json.dumps(jobs))
        words = [self.python, __file__, "peer-fits", "--folder", str(self.folder)]
        threads = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "2"}
        subprocess.run(words, check=True, env=os.environ | threads)
        files = [self.folder / f"fit{number}.npz" for number in range(len(jobs))]
        return [dict(np.load(file, allow_pickle=False)) for file in files]

    def ours(self, jobs: list[Job]) -> list[Any]:
        """Our fits: vectors and the least seconds of an epoch."""
        from ilm_jax.cf import ials

        def fit(job: Job) -> dict[str, Any]:
            config = ials.IALSConfig(
                dim=job["dim"],
                alpha=job["alpha"],
                regularisation=job["ridge"],
                nu=job["nu"],
                epochs=job["epochs"],
                solver=job["solver"],
                seed=job["seed"],
            )
            times = [time.monotonic()]
            factors = ials.fit_interactions(
                self.parts[job["data"]], config, lambda *_: times.append(time.monotonic())
            )
            return {"user": factors.user, "item": factors.item, "seconds": np.diff(times).min()}

        return [fit(job) for job in jobs]

    def ndcg10(self, fit: dict[str, Any], fold: int) -> np.ndarray:
        """By user, everything ranked, training items masked."""
        from ilm_jax.cf import evaluation

        scorer = evaluation.vector_scorer(fit["user"], fit["item"])
        return evaluation.evaluate(scorer, self.splits, fold).ndcg(10)

    def ndcg20(self, fit: dict[str, Any], part: str) -> np.ndarray:
        """By user, of the items that were held out of the part at random."""
        from ilm_jax.cf.topk import best_items, list_metrics

        lists = best_items(fit["user"], fit["item"], self.parts[part], 20)
        return list_metrics(lists, self.held[part], 20)[2]


def quality(arguments: argparse.Namespace, bench: Bench) -> int:
    """Both tuned on the same grid, then compared, for two ways of holding out."""
    from ilm_jax.data.catalogue.splits import TEST, VALID

    grid: list[Job] = [
        {
            "dim": dim,
            "alpha": alpha,
            "ridge": ridge,
            "nu": 0,
            "epochs": arguments.epochs,
            "solver": arguments.solvers[0],
        }
        for dim, alpha, ridge in itertools.product(
            arguments.dims, arguments.alphas, arguments.ridges
        )
    ]

    def mean(who: str, job: Job, data: str, judge: Judge) -> np.ndarray:
        """By user, the mean of all seeds."""
        jobs = [job | {"data": data, "seed": seed} for seed in range(arguments.seeds)]
        fits = bench.ours(jobs) if who == "ours" else bench.peer(jobs)
        return np.mean([judge(fit) for fit in fits], axis=0)

    def best(who: str, data: str, judge: Judge) -> Job:
        """The setting that is best on validation."""
        print(f"{who}, validation, mean of {arguments.seeds} seeds:")
        valid = []
        for job in grid:
            valid.append(mean(who, job, data, judge).mean())
            print(f"  {_name(job)}: {valid[-1]:.4f}", flush=True)
        return grid[int(np.argmax(valid))]

    def contest(title: str, tune: tuple[str, Judge], test: tuple[str, Judge]) -> None:
        print(title, flush=True)
        theirs, mine = best("implicit", *tune), best("ours", *tune)
        peer = mean("implicit", theirs, *test)
        for job in [mine] if mine == theirs else [mine, theirs]:
            print(f"{title}: ours at {_name(job)}, implicit at {_name(theirs)}")
            print(f"  {_gap(mean('ours', job, *test), peer)}", flush=True)

    contest(
        "leave-one-out, NDCG@10",
        ("leave_one_out", lambda fit: bench.ndcg10(fit, VALID)),
        ("leave_one_out", lambda fit: bench.ndcg10(fit, TEST)),
    )
    contest(
        "random 80/20, NDCG@20",
        ("inner", lambda fit: bench.ndcg20(fit, "inner")),
        ("rest", lambda fit: bench.ndcg20(fit, "rest")),
    )
    return 0


def _name(job: Job) -> str:
    return f"dim {job['dim']} alpha {job['alpha']:g} lambda {job['ridge']:g}"


def _gap(ours: np.ndarray, theirs: np.ndarray) -> str:
    """Both figures, the difference in per cent with interval, and the verdict."""
    from ilm_jax.metrics.intervals import compare, mean_interval

    gap = mean_interval(ours - theirs)
    low, middle, high = (100 * x / theirs.mean() for x in (gap.low, gap.mean, gap.high))
    relative = f"{middle:+.1f} % [{low:+.1f}, {high:+.1f}]"
    verdict = compare("ours", ours, "implicit", theirs)
    return f"{ours.mean():.4f} and {theirs.mean():.4f}: {relative}; {verdict}"


def seconds(arguments: argparse.Namespace, bench: Bench) -> int:
    """Least seconds of an epoch of both, in turns, at one setting with nu = 0."""
    from ilm_jax.data.catalogue.splits import TEST

    pairs = len(bench.parts["leave_one_out"].items)
    for dim, solver in itertools.product(arguments.dims, arguments.solvers):
        job = {
            "dim": dim,
            "epochs": arguments.epochs,
            "seed": 0,
            "nu": 0,
            "alpha": 0.3,
            "ridge": 1.6,
            "solver": solver,
            "data": "leave_one_out",
        }
        mine, theirs = np.inf, np.inf
        for _ in range(arguments.turns):
            own, fit = bench.ours([job])[0], bench.peer([job])[0]
            mine = min(mine, float(own["seconds"]))
            theirs = min(theirs, float(fit["seconds"]))
        per_pair = 2 * dim**2 if solver == "cholesky" else 4 * 4 * dim
        print(
            json.dumps(
                {
                    "benchmark": f"ials_epoch_{solver}_dim{dim}",
                    "peer": "implicit, 2 threads",
                    "ours_s": round(mine, 4),
                    "peer_s": round(theirs, 4),
                    "ratio": round(theirs / mine, 3),
                    "floor_s": round(2 * pairs * per_pair / 1e11, 4),
                    "ours_ndcg10": round(float(bench.ndcg10(own, TEST).mean()), 4),
                    "peer_ndcg10": round(float(bench.ndcg10(fit, TEST).mean()), 4),
                }
            ),
            flush=True,
        )
    return 0


def main() -> int:
    """Parses the words and runs a benchmark."""
    parser = argparse.ArgumentParser(
        prog="bench_cf", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    kinds = parser.add_subparsers(dest="kind", required=True)
    tuned, speed = kinds.add_parser("quality"), kinds.add_parser("seconds")
    for both in (tuned, speed):
        both.add_argument("--sequences", required=True)
        both.add_argument("--peer_python", default=sys.executable)
        both.add_argument("--dims", type=int, nargs="+", default=[32])
        both.add_argument("--epochs", type=int, default=8)
        both.add_argument(
            "--solvers", nargs="+", default=["cholesky", "cg"], help="quality: the first alone"
        )
    speed.add_argument("--turns", type=int, default=3)
    tuned.add_argument("--alphas", type=float, nargs="+", default=[0.03, 0.1, 0.3, 1.0, 3.0])
    tuned.add_argument("--ridges", type=float, nargs="+", default=[1.6, 5.0, 16.0, 50.0])
    tuned.add_argument("--seeds", type=int, default=3)
    fits = kinds.add_parser("peer-fits")
    fits.add_argument("--folder", type=pathlib.Path, required=True)
    arguments = parser.parse_args()
    if arguments.kind == "peer-fits":
        peer_fits(arguments.folder)
        return 0
    with tempfile.TemporaryDirectory() as name:
        bench = Bench(arguments, pathlib.Path(name))
        return {"quality": quality, "seconds": seconds}[arguments.kind](arguments, bench)


if __name__ == "__main__":
    sys.exit(main())
