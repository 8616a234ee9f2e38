"""Does correcting sampled ranks help WARP and LambdaRank? Corrected, uncorrected and full ranks.

    python launch/cf_ranks.py --sequences FILE [--folder runs/cf_ranks] [--seeds 0 1 2]
    python launch/cf_ranks.py --dataset movielens/1m --data_dir DIR

Matrix factorization is trained with each loss at m shared uniform negatives, with the rank of the
sample and with the corrected rank, and once with all items as candidates, where ranks are full.
One learning rate serves all (Adam's steps do not depend on a loss's scale), for a fixed number of
epochs. Figures are NDCG@10 of the test targets over the whole catalogue, training items masked,
paired by user over the mean of the seeds; table and plot are written anew after every cell.
Finished runs are kept, so the same command goes on where it was.
"""

import argparse
import dataclasses
import itertools
import pathlib
import sys
import time

import cf_data
import numpy as np

from ilm_jax.cf import evaluation, sampled
from ilm_jax.cf.interactions import Interactions
from ilm_jax.cf.negatives import SamplerConfig
from ilm_jax.data.splits import TEST, Splits
from ilm_jax.evaluation.intervals import compare, mean_interval
from ilm_jax.evaluation.metrics import ndcg
from ilm_jax.files import atomic_write
from ilm_jax.training.host_memory import keep_freed_memory

DRAWN = (10, 50, 100, 500)
LOSSES = ("warp", "lambdarank")
RANKS = ("sampled", "corrected")
FULL = 0  # stands for m where every item is a candidate


@dataclasses.dataclass(frozen=True)
class Bench:
    """The data, the folder of results, and what all runs share."""

    splits: Splits
    train: Interactions
    folder: pathlib.Path
    seeds: list[int]
    epochs: int
    rate: float

    def config(self, loss: str, rank: str, drawn: int) -> sampled.SampledConfig:
        """What is trained."""
        sampler = SamplerConfig("uniform", drawn) if drawn else SamplerConfig("all")
        return sampled.SampledConfig(
            loss=loss, rank=rank, sampler=sampler, dim=32, epochs=self.epochs, batch_size=2048,
            cutoff=10 if loss == "lambdarank" else None, learning_rate=self.rate,
        )  # fmt: skip

    def ranks(self, loss: str, rank: str, drawn: int) -> list[np.ndarray]:
        """Test ranks of every seed; trained unless they are there."""
        trainer = sampled.make_trainer(self.train, self.config(loss, rank, drawn))
        found = []
        for seed in self.seeds:
            path = self.folder / f"{loss}_{rank}_m{drawn}_seed{seed}.npz"
            if not path.exists():
                start = time.monotonic()
                factors = trainer.fit(seed=seed)
                scorer = evaluation.vector_scorer(factors.user, factors.item)
                result = evaluation.evaluate(scorer, self.splits, TEST)
                with atomic_write(path, "wb") as stream:
                    np.savez_compressed(stream, ranks=result.ranks, users=result.users)
                print(f"{path.stem}: NDCG@10 {result.ndcg(10).mean():.4f}, "
                      f"{time.monotonic() - start:.0f} s", flush=True)  # fmt: skip
            found.append(np.load(path, allow_pickle=False)["ranks"])
        return found


PerUser = dict[tuple[str, str, int], list[np.ndarray]]


def study(bench: Bench) -> PerUser:
    """NDCG@10 of every user and seed, by (loss, rank, m); the longest runs last."""
    found: PerUser = {}
    for drawn in (*DRAWN, FULL):
        for loss in LOSSES:
            for rank in RANKS if drawn else ("corrected",):
                ranks = bench.ranks(loss, rank, drawn)
                found[loss, rank, drawn] = [ndcg(x, 10) for x in ranks]
                report(found, bench)
    return found


def report(found: PerUser, bench: Bench) -> None:
    """Writes table and plot of what there is."""
    mean = {name: np.mean(values, axis=0) for name, values in found.items()}
    with atomic_write(bench.folder / "table.txt") as stream:
        stream.write("\n".join(table(mean, found, bench)) + "\n")
    draw(mean, bench.folder / "ranks.png")


def table(mean: dict, per_user: PerUser, bench: Bench) -> list[str]:
    """Figures with intervals over users, and the paired tests."""
    users = len(next(iter(mean.values())))
    lines = [
        f"test NDCG@10, mean of seeds {bench.seeds}, {users} users, {bench.epochs} epochs at "
        f"learning rate {bench.rate:g}; 95 % intervals over users; +- is the spread over seeds",
        f"{'loss':<11} {'m':>5}  {'uncorrected':<34} {'corrected':<34}",
    ]
    for loss in LOSSES:
        for drawn in (*DRAWN, FULL):
            cells = [_cell(mean.get((loss, rank, drawn)), per_user.get((loss, rank, drawn)))
                     for rank in RANKS]  # fmt: skip
            lines.append(f"{loss:<11} {drawn or 'full':>5}  {cells[0]:<34} {cells[1]:<34}".rstrip())
    lines.append("paired by user:")
    for loss in LOSSES:
        for drawn in DRAWN:
            named = {
                "uncorrected": mean.get((loss, "sampled", drawn)),
                "corrected": mean.get((loss, "corrected", drawn)),
                "full": mean.get((loss, "corrected", FULL)),
            }
            there = {name: values for name, values in named.items() if values is not None}
            lines += [f"  {loss} m={drawn}: {compare(a, there[a], b, there[b])}"
                      for a, b in itertools.combinations(there, 2)]  # fmt: skip
    return lines


def _cell(mean: np.ndarray | None, seeds: list[np.ndarray] | None) -> str:
    if mean is None or seeds is None:
        return "-"
    spread = np.std([x.mean() for x in seeds], ddof=1) if len(seeds) > 1 else np.nan
    return f"{mean_interval(mean)} +- {spread:.4f}"


def draw(mean: dict, path: pathlib.Path) -> None:
    """NDCG@10 against m, a panel for each loss."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    for axes, loss in zip(figure.subplots(1, 2), LOSSES, strict=True):
        for rank, colour in zip(RANKS, ("#D55E00", "#0072B2"), strict=True):
            there = [m for m in DRAWN if (loss, rank, m) in mean]
            if not there:
                continue
            found = [mean_interval(mean[loss, rank, m]) for m in there]
            centre = np.array([x.mean for x in found])
            ends = np.array([[x.mean - x.low, x.high - x.mean] for x in found]).T
            label = {"sampled": "uncorrected"}.get(rank, rank)
            axes.errorbar(there, centre, ends, marker="o", color=colour, capsize=3, label=label)
        if (loss, "corrected", FULL) in mean:
            full = mean[loss, "corrected", FULL].mean()
            axes.axhline(full, color="#000000", linestyle=":", label="full ranks")
        axes.set(xscale="log", xlabel="negatives m", ylabel="test NDCG@10", title=loss)
        if axes.has_data():
            axes.legend(frameon=False)
    with atomic_write(path, "wb") as stream:
        figure.savefig(stream, format="png")


def main() -> int:
    """Parses the words and runs the study."""
    parser = argparse.ArgumentParser(
        prog="cf_ranks.py", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    cf_data.add_arguments(parser)
    parser.add_argument("--folder", default="runs/cf_ranks", type=pathlib.Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--rate", type=float, default=1e-2, help="learning rate of every run")
    arguments = parser.parse_args()
    keep_freed_memory()
    splits, train = cf_data.load(arguments)
    bench = Bench(
        splits, train, arguments.folder, arguments.seeds, arguments.epochs, arguments.rate
    )
    study(bench)
    print((arguments.folder / "table.txt").read_text())
    print(f"wrote {arguments.folder}/table.txt, ranks.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
