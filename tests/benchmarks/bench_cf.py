"""iALS against the PyPI library `implicit`, and its memory at MovieLens 25M's size.

    python -m tests.benchmarks.bench_cf peer --sequences FILE --peer_python VENV/bin/python
    python -m tests.benchmarks.bench_cf seconds --sequences FILE --peer_python VENV/bin/python
    python -m tests.benchmarks.bench_cf memory [--epochs 2] [--dim 64]

`peer` fits both over the same grid, picks each one's settings on the validation targets
(leave-one-out), and compares test NDCG@10 by user; then fits both on a random 80 % of each user's
items and compares NDCG@20 of the rest with the same settings. The peer minimises the same
objective at nu = 0, in other units: weights c = (1 + a)/a on observed pairs and 1 elsewhere, target
1 and L2 l; which is alpha = a, lambda = l a / (1 + a) here. So the peer gets our grid at nu = 0;
ours has the same number of points at nu = 1, lambda divided by the mean of (|I_u| + a |I|).

`seconds` gives the least seconds of an epoch of several, two threads each, the two taking turns,
for Cholesky and for conjugate gradients (three steps in both), and test NDCG@10 of both fits. The
floor is the arithmetic at 100 GFLOP/s: per pair and side 2 d^2 to sum the normal equations, or 4 d
for each product with them (one more than there are steps).

`memory` generates 162,541 users, 59,047 items and 25 million distinct interactions with long tails,
fits, ranks every user's held-out item, makes top-20 lists, and prints the process's peak; the exit
code says whether it was below 8 GiB.
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
from typing import Any

import numpy as np

USERS, ITEMS, PAIRS = 162_541, 59_047, 25_000_000
BOUND = 8 * 2**30


def peer_fits(folder: pathlib.Path) -> None:
    """In the peer's interpreter: fits every job of jobs.json with `implicit`."""
    import implicit  # type: ignore[import-not-found]
    import scipy.sparse

    for number, job in enumerate(json.loads((folder / "jobs.json").read_text())):
        data = np.load(folder / job["data"], allow_pickle=False)
        ones = np.ones(len(data["items"]), np.float32)
        shape = (len(data["offsets"]) - 1, int(data["num_items"]))
        matrix = scipy.sparse.csr_matrix((ones, data["items"], data["offsets"]), shape=shape)
        model = implicit.als.AlternatingLeastSquares(
            factors=job["dim"], regularization=job["ridge"] * (1 + job["alpha"]) / job["alpha"],
            alpha=(1 + job["alpha"]) / job["alpha"], use_cg=job["solver"] == "cg",
            iterations=job["epochs"], num_threads=2, random_state=job["seed"],
        )  # fmt: skip
        times: list[float] = []
        model.fit_callback = lambda _, seconds, *__, times=times: times.append(seconds)
        model.fit(matrix, show_progress=False)
        np.savez(folder / f"fit{number}.npz", user=model.user_factors, item=model.item_factors,
                 seconds=min(times))  # fmt: skip


def peer(python: str, folder: pathlib.Path, jobs: list[dict[str, Any]]) -> list[Any]:
    """Runs jobs in the peer's interpreter; their fits."""
    (folder / "jobs.json").write_text(json.dumps(jobs))
    words = [python, __file__, "peer-fits", "--folder", str(folder)]
    threads = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "2"}
    subprocess.run(words, check=True, env=os.environ | threads)
    return [np.load(folder / f"fit{n}.npz", allow_pickle=False) for n in range(len(jobs))]


def ours(train, job: dict[str, Any]) -> dict[str, Any]:  # noqa: ANN001
    """Fits one job; vectors and the least seconds of an epoch."""
    from ilm_jax.cf import ials

    config = ials.IALSConfig(
        dim=job["dim"], alpha=job["alpha"], regularisation=job["ridge"], nu=job["nu"],
        epochs=job["epochs"], solver=job["solver"], seed=job["seed"],
    )  # fmt: skip
    times = [time.monotonic()]
    factors = ials.fit_interactions(train, config, lambda *_: times.append(time.monotonic()))
    return {"user": factors.user, "item": factors.item, "seconds": np.diff(times).min()}


def compare_with_peer(arguments: argparse.Namespace) -> int:
    """Quality over the same grid, then seconds."""
    from ilm_jax.cf import evaluation
    from ilm_jax.cf.interactions import Interactions, catalogue_from_sequences, hold_out
    from ilm_jax.cf.topk import best_items, list_metrics
    from ilm_jax.data.splits import TEST, VALID, SplitConfig, make_splits
    from ilm_jax.evaluation.intervals import compare

    splits = make_splits(
        catalogue_from_sequences(arguments.sequences, "bench"), SplitConfig(held_out_items=0.0)
    )
    sizes = splits.catalogue.num_users, splits.catalogue.num_items
    train = Interactions.from_pairs(*splits.train_interactions(), *sizes)
    whole = np.repeat(np.arange(sizes[0]), np.diff(splits.catalogue.offsets))
    rest, held = hold_out(Interactions.from_pairs(whole, splits.catalogue.items, *sizes))
    common = {"dim": arguments.dim, "epochs": arguments.epochs, "seed": 0}

    def job(alpha: float, ridge: float, nu: float, solver: str, data: str) -> dict[str, Any]:
        scale = (train.lengths.mean() + alpha * sizes[1]) ** nu
        return {**common, "alpha": alpha, "ridge": ridge / scale, "nu": nu, "solver": solver,
                "data": data}  # fmt: skip

    def ranks(fit, fold: int):  # noqa: ANN001, ANN202
        return evaluation.evaluate(evaluation.vector_scorer(fit["user"], fit["item"]), splits, fold)

    grid = list(itertools.product(arguments.alphas, arguments.ridges))
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        for file, part in (("loo.npz", train), ("rest.npz", rest)):
            np.savez(folder / file, offsets=part.offsets, items=part.items, num_items=sizes[1])
        theirs = peer(arguments.peer_python, folder,
                      [job(a, r, 0, "cholesky", "loo.npz") for a, r in grid])  # fmt: skip
        mine = [ours(train, job(a, r, 1, "cholesky", "")) for a, r in grid]
        best = {}
        for who, fits in (("implicit", theirs), ("ours", mine)):
            valid = [ranks(fit, VALID).ndcg(10).mean() for fit in fits]
            best[who] = int(np.argmax(valid))
            shown = "  ".join(f"{a:g}/{r:g} {v:.4f}" for (a, r), v in zip(grid, valid, strict=True))
            print(f"{who}, validation NDCG@10 by alpha/lambda: {shown}", flush=True)
        same = ours(train, job(*grid[best["implicit"]], 0, "cholesky", ""))
        figures = {who: ranks(fits[best[who]], TEST).ndcg(10)
                   for who, fits in (("implicit", theirs), ("ours", mine))}  # fmt: skip
        print("leave-one-out, test NDCG@10:", *(f"{w} {v.mean():.4f}" for w, v in figures.items()))
        print("  tuned:", compare("implicit", figures["implicit"], "ours", figures["ours"]))
        print("  the peer's settings in both:", compare(
            "implicit", figures["implicit"], "ours", ranks(same, TEST).ndcg(10)))  # fmt: skip
        at = {"implicit": job(*grid[best["implicit"]], 0, "cholesky", "rest.npz"),
              "ours": job(*grid[best["ours"]], 1, "cholesky", "")}  # fmt: skip
        fits = {"implicit": peer(arguments.peer_python, folder, [at["implicit"]])[0],
                "ours": ours(rest, at["ours"])}  # fmt: skip
        lists = {w: list_metrics(best_items(f["user"], f["item"], rest, 20), held, 20)[2]
                 for w, f in fits.items()}  # fmt: skip
        print("80/20, NDCG@20:", *(f"{w} {v.mean():.4f}" for w, v in lists.items()))
        print("  ", compare("implicit", lists["implicit"], "ours", lists["ours"]), flush=True)
    return 0


def seconds(arguments: argparse.Namespace) -> int:
    """Least seconds of an epoch of both, in turns, at one setting with nu = 0."""
    from ilm_jax.cf import evaluation
    from ilm_jax.cf.interactions import Interactions, catalogue_from_sequences
    from ilm_jax.data.splits import TEST, SplitConfig, make_splits

    splits = make_splits(
        catalogue_from_sequences(arguments.sequences, "bench"), SplitConfig(held_out_items=0.0)
    )
    sizes = splits.catalogue.num_users, splits.catalogue.num_items
    train = Interactions.from_pairs(*splits.train_interactions(), *sizes)

    def quality(fit) -> float:  # noqa: ANN001
        scorer = evaluation.vector_scorer(fit["user"], fit["item"])
        return round(float(evaluation.evaluate(scorer, splits, TEST).ndcg(10).mean()), 4)

    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        np.savez(folder / "loo.npz", offsets=train.offsets, items=train.items, num_items=sizes[1])
        for solver in arguments.solvers:
            job = {"dim": arguments.dim, "epochs": arguments.epochs, "seed": 0, "nu": 0,
                   "alpha": 0.3, "ridge": 1.6, "solver": solver, "data": "loo.npz"}  # fmt: skip
            mine, theirs = np.inf, np.inf
            for _ in range(arguments.turns):
                own = ours(train, job)
                mine = min(mine, float(own["seconds"]))
                fit = peer(arguments.peer_python, folder, [job])[0]
                theirs = min(theirs, float(fit["seconds"]))
            dim = job["dim"]
            per_pair = 2 * dim**2 if solver == "cholesky" else 4 * 4 * dim
            print(json.dumps({
                "benchmark": f"ials_epoch_{solver}_dim{dim}", "peer": "implicit, 2 threads",
                "ours_s": round(mine, 4), "peer_s": round(theirs, 4),
                "ratio": round(theirs / mine, 3),
                "floor_s": round(2 * len(train.items) * per_pair / 1e11, 4),
                "ours_ndcg10": quality(own), "peer_ndcg10": quality(fit),
            }), flush=True)  # fmt: skip
    return 0


def generated(users: int, items: int, pairs: int, seed: int = 0):  # noqa: ANN201
    """Distinct pairs with log-normal activity and Zipf-like popularity, of the given number."""
    from ilm_jax.cf.interactions import Interactions

    draw = np.random.default_rng(seed)
    activity = draw.lognormal(4.2, 1.25, users)
    popularity = 1.0 / (np.arange(items) + 50.0) ** 1.1
    cumulative = np.cumsum(popularity / popularity.sum())
    keys = np.zeros(0, np.int64)
    while len(keys) < pairs:
        missing = int((pairs - len(keys)) * 1.3) + 1000
        counts = draw.multinomial(missing, activity / activity.sum())
        who = np.repeat(np.arange(users, dtype=np.int64), counts)
        what = np.minimum(np.searchsorted(cumulative, draw.random(missing)), items - 1)
        keys = np.concatenate([keys, who * items + what])
        del who, what
        keys.sort()
        keys = keys[np.append(True, keys[1:] != keys[:-1])]
    keys = np.delete(keys, draw.choice(len(keys), len(keys) - pairs, replace=False))
    lengths = np.bincount(keys // items, minlength=users)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return Interactions(offsets, (keys % items).astype(np.int32), items)


def memory(arguments: argparse.Namespace) -> int:
    """Fit and evaluation at full size; peak of resident memory, generation left out."""
    from ilm_jax.cf import evaluation, ials
    from ilm_jax.cf.interactions import Interactions
    from ilm_jax.cf.topk import best_items, list_metrics

    def peak() -> float:
        status = pathlib.Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 2**20

    seen = generated(USERS, ITEMS, PAIRS)
    print(f"generated {seen.num_users} users, {seen.num_items} items, {len(seen.items)} "
          f"interactions, longest history {seen.lengths.max()}", flush=True)  # fmt: skip
    pathlib.Path("/proc/self/clear_refs").write_text("5")
    # One item of everybody with two or more is the target.
    last = (seen.offsets[1:] - 1)[seen.lengths >= 2]
    held_users, targets = seen.users[last], seen.items[last]
    users, items = np.delete(seen.users, last), np.delete(seen.items, last)
    del seen
    train = Interactions.from_pairs(users, items, USERS, ITEMS)
    del users, items
    config = ials.IALSConfig(dim=arguments.dim, epochs=arguments.epochs, solver=arguments.solver)
    start = time.monotonic()
    factors = ials.fit_interactions(train, config)
    print(f"fit: {time.monotonic() - start:.0f} s, peak {peak():.2f} GiB", flush=True)
    start = time.monotonic()
    part = slice(0, arguments.judged or None)
    scorer = evaluation.vector_scorer(factors.user, factors.item)
    ranks = evaluation.rank_targets(scorer, train, held_users[part], targets[part])
    print(f"{len(ranks)} full ranks: {time.monotonic() - start:.0f} s, peak {peak():.2f} GiB",
          flush=True)  # fmt: skip
    start = time.monotonic()
    held = Interactions.from_pairs(held_users, targets, USERS, ITEMS)
    lists = best_items(factors.user, factors.item, train, 20)
    recall = list_metrics(lists, held, 20)[1].mean()
    top = peak()
    print(f"top-20 of {len(lists)} users: {time.monotonic() - start:.0f} s, peak {top:.2f} GiB")
    share = float((ranks <= 20).mean())
    print(f"Recall@20 by lists {recall:.4f}, by ranks {share:.4f}")
    print(json.dumps({"benchmark": "cf_memory_25m", "peak_gib": round(top, 2), "bound_gib": 8}))
    return int(top * 2**30 > BOUND)


def main() -> int:
    """Parses the words and runs a benchmark."""
    parser = argparse.ArgumentParser(
        prog="bench_cf", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    kinds = parser.add_subparsers(dest="kind", required=True)
    one, speed = kinds.add_parser("peer"), kinds.add_parser("seconds")
    for both in (one, speed):
        both.add_argument("--sequences", required=True)
        both.add_argument("--peer_python", default=sys.executable)
        both.add_argument("--dim", type=int, default=32)
        both.add_argument("--epochs", type=int, default=10)
    speed.add_argument("--turns", type=int, default=3)
    speed.add_argument("--solvers", nargs="+", default=["cholesky", "cg"])
    one.add_argument("--alphas", type=float, nargs="+", default=[0.03, 0.1, 0.3])
    one.add_argument("--ridges", type=float, nargs="+", default=[0.5, 1.6, 5.0, 16.0],
                     help="lambda at nu = 0")  # fmt: skip
    fits = kinds.add_parser("peer-fits")
    fits.add_argument("--folder", type=pathlib.Path, required=True)
    big = kinds.add_parser("memory")
    big.add_argument("--epochs", type=int, default=2)
    big.add_argument("--dim", type=int, default=64)
    big.add_argument("--solver", default="cholesky")
    big.add_argument("--judged", type=int, default=0, help="users that are ranked; 0 for all")
    arguments = parser.parse_args()
    if arguments.kind == "peer-fits":
        peer_fits(arguments.folder)
        return 0
    kind = {"peer": compare_with_peer, "seconds": seconds, "memory": memory}
    return kind[arguments.kind](arguments)


if __name__ == "__main__":
    sys.exit(main())
