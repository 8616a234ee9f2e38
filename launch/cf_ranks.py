"""Does correcting sampled ranks help WARP and LambdaRank? Corrected, uncorrected and full ranks.

    python launch/cf_ranks.py --sequences FILE [--folder runs/cf_ranks] [--seeds 0 1 2]
    python launch/cf_ranks.py --dataset movielens/1m --data_dir DIR

Matrix factorization is trained with each loss at m shared uniform negatives, with the rank of the
sample and with the corrected rank, and once with all items as candidates, where ranks are full.
Learning rates: each (loss, rank) takes the best of one grid on validation at m = 50, seed 0; full
ranks take the corrected ones' rate. The epoch is picked on validation; figures are NDCG@10 of the
test targets over the whole catalogue, training items masked, paired by user over the mean of the
seeds. Finished runs are kept, so the same command goes on where it was.
"""

import argparse
import dataclasses
import json
import pathlib
import sys
import time

import cf_data
import numpy as np

from ilm_jax.cf import evaluation, sampled
from ilm_jax.cf.early_stopping import EarlyStopping
from ilm_jax.cf.interactions import Interactions
from ilm_jax.cf.negatives import SamplerConfig
from ilm_jax.data.splits import TEST, VALID, Splits
from ilm_jax.evaluation.intervals import compare, mean_interval
from ilm_jax.evaluation.metrics import ndcg
from ilm_jax.files import atomic_write
from ilm_jax.training.host_memory import keep_freed_memory

DRAWN = (10, 50, 100, 500)
LOSSES = ("warp", "lambdarank")
RANKS = ("sampled", "corrected")
RATES = (1e-2, 3e-2)
FULL = 0  # stands for m where every item is a candidate


@dataclasses.dataclass(frozen=True)
class Cell:
    """One training run."""

    loss: str
    rank: str
    drawn: int
    seed: int
    rate: float

    @property
    def name(self) -> str:
        """Of its file."""
        return f"{self.loss}_{self.rank}_m{self.drawn}_seed{self.seed}_lr{self.rate:g}"

    def config(self, epochs: int) -> sampled.SampledConfig:
        """What is trained."""
        sampler = SamplerConfig("uniform", self.drawn) if self.drawn else SamplerConfig("all")
        return sampled.SampledConfig(
            loss=self.loss, rank=self.rank, sampler=sampler, seed=self.seed, dim=32,
            cutoff=10 if self.loss == "lambdarank" else None, epochs=epochs, batch_size=1024,
            learning_rate=self.rate,
        )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Bench:
    """The data and the folder of results."""

    splits: Splits
    train: Interactions
    folder: pathlib.Path
    epochs: int

    def run(self, cell: Cell) -> dict:
        """Trains unless the result is there; {"valid", "epoch", "seconds", "ranks"}."""
        path = self.folder / f"{cell.name}.json"
        if path.exists():
            return json.loads(path.read_text())
        start = time.monotonic()

        def measure(user, item) -> float:
            found = evaluation.evaluate(evaluation.vector_scorer(user, item), self.splits, VALID)
            return float(found.ndcg(10).mean())

        stop = EarlyStopping(measure, patience=self.epochs)
        sampled.fit(self.train, cell.config(self.epochs), stop)
        assert stop.user is not None and stop.item is not None, "every figure was NaN"
        scorer = evaluation.vector_scorer(stop.user, stop.item)
        found = evaluation.evaluate(scorer, self.splits, TEST)
        result = {
            **dataclasses.asdict(cell), "valid": stop.value, "epoch": stop.epoch,
            "curve": stop.history, "seconds": time.monotonic() - start,
            "test": float(found.ndcg(10).mean()), "ranks": found.ranks.tolist(),
        }  # fmt: skip
        with atomic_write(path) as stream:
            json.dump(result, stream)
        print(f"{cell.name}: valid {stop.value:.4f} (epoch {stop.epoch}), test "
              f"{result['test']:.4f}, {result['seconds']:.0f} s", flush=True)  # fmt: skip
        return result

    def rates(self) -> dict[tuple[str, str], float]:
        """Learning rate of every (loss, rank)."""
        chosen = {}
        for loss in LOSSES:
            for rank in RANKS:
                valid = {r: self.run(Cell(loss, rank, 50, 0, r))["valid"] for r in RATES}
                chosen[loss, rank] = max(valid, key=lambda rate: valid[rate])
        return chosen


def study(bench: Bench, seeds: list[int]) -> tuple[dict, list[str]]:
    """Runs everything; (per-user NDCG@10 by (loss, rank, m), mean over seeds; table lines)."""
    rates = bench.rates()
    per_user: dict[tuple[str, str, int], list[np.ndarray]] = {}
    # All sampled runs of a seed before the next, full ranks (the longest) last.
    rounds = [(seed, DRAWN) for seed in seeds] + [(seed, (FULL,)) for seed in seeds]
    for seed, several in rounds:
        for drawn in several:
            for loss in LOSSES:
                for rank in RANKS if drawn else ("corrected",):
                    cell = Cell(loss, rank, drawn, seed, rates[loss, rank])
                    ranks = np.array(bench.run(cell)["ranks"])
                    per_user.setdefault((loss, rank, drawn), []).append(ndcg(ranks, 10))
    mean = {name: np.mean(values, axis=0) for name, values in per_user.items()}
    return mean, table(mean, rates, seeds, per_user)


def table(mean: dict, rates: dict, seeds: list[int], per_user: dict) -> list[str]:
    """Figures with intervals over users, and the paired tests."""
    lines = [f"test NDCG@10, mean of seeds {seeds}, {len(next(iter(mean.values())))} users; "
             "95 % intervals over users; +- is the spread (sd) over seeds",
             f"{'loss':<11} {'m':>5} {'uncorrected':<34} {'corrected':<34}"]  # fmt: skip
    for loss in LOSSES:
        for drawn in (*DRAWN, FULL):
            cells = []
            for rank in RANKS:
                if (loss, rank, drawn) in mean:
                    spread = np.std([v.mean() for v in per_user[loss, rank, drawn]], ddof=1) \
                        if len(seeds) > 1 else float("nan")  # fmt: skip
                    cells.append(f"{mean_interval(mean[loss, rank, drawn])} +- {spread:.4f}")
                else:
                    cells.append("-")
            lines.append(f"{loss:<11} {drawn or 'full':>5} {cells[0]:<34} {cells[1]:<34}".rstrip())
    lines.append("paired by user:")
    for loss in LOSSES:
        full = mean[loss, "corrected", FULL]
        for drawn in DRAWN:
            raw, corrected = (mean[loss, rank, drawn] for rank in RANKS)
            lines.append(
                f"  {loss} m={drawn}: {compare('uncorrected', raw, 'corrected', corrected)}"
            )
            lines.append(f"  {loss} m={drawn}: {compare('corrected', corrected, 'full', full)}")
            lines.append(f"  {loss} m={drawn}: {compare('uncorrected', raw, 'full', full)}")
    chosen = ", ".join(f"{loss} {rank} {rate:g}" for (loss, rank), rate in rates.items())
    return [*lines, f"learning rates: {chosen}"]


def draw(mean: dict, path: pathlib.Path) -> None:
    """NDCG@10 against m, a panel for each loss."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    for axes, loss in zip(figure.subplots(1, 2), LOSSES, strict=True):
        for rank, colour in zip(RANKS, ("#D55E00", "#0072B2"), strict=True):
            found = [mean_interval(mean[loss, rank, m]) for m in DRAWN]
            centre = np.array([x.mean for x in found])
            ends = np.array([[x.mean - x.low, x.high - x.mean] for x in found]).T
            label = {"sampled": "uncorrected"}.get(rank, rank)
            axes.errorbar(DRAWN, centre, ends, marker="o", color=colour, capsize=3, label=label)
        full = mean[loss, "corrected", FULL].mean()
        axes.axhline(full, color="#000000", linestyle=":", label="full ranks")
        axes.set(xscale="log", xlabel="negatives m", ylabel="test NDCG@10", title=loss)
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
    arguments = parser.parse_args()
    keep_freed_memory()
    splits, train = cf_data.load(arguments)
    bench = Bench(splits, train, arguments.folder, arguments.epochs)
    mean, lines = study(bench, arguments.seeds)
    print("\n" + "\n".join(lines))
    draw(mean, arguments.folder / "ranks.png")
    with atomic_write(arguments.folder / "table.txt") as stream:
        stream.write("\n".join(lines) + "\n")
    print(f"wrote {arguments.folder}/table.txt, ranks.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
