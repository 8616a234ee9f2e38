"""Memory of collaborative filtering at MovieLens 25M's size.

    python -m tests.benchmarks.bench_cf_memory [--epochs 2] [--dim 64] [--judged USERS]

Generates 162,541 users, 59,047 items and 25 million distinct interactions with long tails, fits
iALS, ranks every user's held-out item among all, makes top-20 lists, and prints the process's peak
of resident memory; the exit code says whether it was below 8 GiB.
"""

import argparse
import json
import pathlib
import sys
import time

import numpy as np

from ilm_jax.cf import evaluation, ials
from ilm_jax.cf.interactions import Interactions
from ilm_jax.cf.topk import best_items, list_metrics

USERS, ITEMS, PAIRS = 162_541, 59_047, 25_000_000
BOUND = 8 * 2**30


def generated(users: int, items: int, pairs: int, seed: int = 0) -> Interactions:
    """Distinct pairs with log-normal activity and Zipf-like popularity, of the given number."""
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

    def peak() -> float:
        status = pathlib.Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 2**20

    seen = generated(USERS, ITEMS, PAIRS)
    print(
        f"generated {seen.num_users} users, {seen.num_items} items, {len(seen.items)} "
        f"interactions, longest history {seen.lengths.max()}",
        flush=True,
    )
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
    print(
        f"{len(ranks)} full ranks: {time.monotonic() - start:.0f} s, peak {peak():.2f} GiB",
        flush=True,
    )
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
    """Parses the words and measures."""
    parser = argparse.ArgumentParser(
        prog="bench_cf_memory", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--solver", default="cholesky", choices=("cholesky", "cg"))
    parser.add_argument("--judged", type=int, default=0, help="users that are ranked; 0 for all")
    return memory(parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
