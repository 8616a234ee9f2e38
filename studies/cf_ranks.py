"""Does correcting sampled ranks help WARP and LambdaRank? Corrected, uncorrected and full ranks.

    python studies/cf_ranks.py --sequences FILE [--folder runs/cf_ranks] [--seeds 0 1 2]
    python studies/cf_ranks.py --dataset movielens/1m --data_dir DIR
    python studies/cf_ranks.py --sequences FILE --recipe runs/sasrec_ml1m.gin --epochs 8 \
        --rates .003 --drawn 10 100 500 [--folder runs/sasrec_ranks]

Matrix factorization, or the sequential model of a recipe, is trained with each loss at m shared
uniform negatives, with the rank of the sample and with the corrected rank, and once with all items
as candidates, where ranks are full. All runs take the same epochs at a rate that falls to 0; each
loss with each kind of rank has the rate that was best on validation at m = 100, seed 0 (full ranks:
that of corrected ones). Whether the epochs suffice is seen from the cells at m = 100, trained for
twice as many (not with one rate). Figures are NDCG@10 of the test targets over the whole catalogue,
what a user had masked, paired by user over the mean of the seeds; behind each test stands what it
finds: the difference that it would tell from none in four of five such samples of users. Table and
plot are written anew after every cell. Finished runs are kept, so the same command goes on where it
was.
"""

import argparse
import dataclasses
import functools
import itertools
import pathlib
import sys
import time
from collections.abc import Sequence

import cf_data
import numpy as np
from exiting import exit_code
from scheduling import positive

from ilm_jax.cf import evaluation
from ilm_jax.cf.interactions import Interactions
from ilm_jax.cf.negatives import SamplerConfig
from ilm_jax.cf.sequences import Sequences
from ilm_jax.data.catalogue.splits import TEST, VALID, Splits
from ilm_jax.errors import UserError
from ilm_jax.files import atomic_write, sha256_json
from ilm_jax.metrics.intervals import compare, mean_interval
from ilm_jax.metrics.ranking import ndcg
from ilm_jax.runs import gin_config, sampled
from ilm_jax.runs.fitting import FitCF
from ilm_jax.runs.sequential import SequentialFit
from ilm_jax.training.host_memory import keep_freed_memory

DRAWN = (10, 50, 100, 500)
LOSSES = ("warp", "lambdarank")
RANKS = ("sampled", "corrected")
FULL = 0  # stands for m where every item is a candidate
CUTOFF = {"lambdarank": 10}
# Of a paired test's standard error: what it finds at 5 % in four of five samples.
FOUND = 1.96 + 0.84


TUNED_AT = 100


@dataclasses.dataclass(frozen=True, eq=False)
class Bench:
    """The data, the folder of results, and what all runs share."""

    splits: Splits
    train: Interactions
    folder: pathlib.Path
    seeds: list[int]
    epochs: int
    rates: list[float]
    drawn: list[int]
    only_kept: bool = False
    recipe: str = ""

    def path(
        self, loss: str, rank: str, drawn: int, rate: float, seed: int, longer: int = 1
    ) -> pathlib.Path:
        """The file of a run."""
        name = f"{loss}_{rank}_m{drawn}_rate{rate:g}_epochs{longer * self.epochs}_seed{seed}.npz"
        return self.folder / name

    def run(
        self, loss: str, rank: str, drawn: int, rate: float, seed: int, longer: int = 1
    ) -> tuple[float, np.ndarray]:
        """(validation NDCG@10, test ranks); trained unless they are there."""
        epochs = longer * self.epochs
        path = self.path(loss, rank, drawn, rate, seed, longer)
        if not path.exists():
            start = time.monotonic()
            fit = self._sequential if self.recipe else self._factors
            scorers = fit(loss, rank, drawn, rate, epochs, seed)
            valid, test = (
                evaluation.evaluate(scorer, self.splits, fold)
                for scorer, fold in zip(scorers, (VALID, TEST), strict=True)
            )
            with atomic_write(path, "wb") as stream:
                np.savez_compressed(stream, valid=valid.ranks, ranks=test.ranks, users=test.users)
            print(
                f"{path.stem}: NDCG@10 validation {valid.ndcg(10).mean():.4f}, test "
                f"{test.ndcg(10).mean():.4f}, {time.monotonic() - start:.0f} s",
                flush=True,
            )
        kept = np.load(path, allow_pickle=False)
        return float(ndcg(kept["valid"], 10).mean()), kept["ranks"]

    def _factors(
        self, loss: str, rank: str, drawn: int, rate: float, epochs: int, seed: int
    ) -> tuple[evaluation.Scorer, evaluation.Scorer]:
        config = sampled.SampledConfig(
            loss=loss,
            rank=rank,
            sampler=SamplerConfig("uniform", drawn) if drawn else SamplerConfig("all"),
            dim=32,
            epochs=epochs,
            batch_size=2048,
            cutoff=CUTOFF.get(loss),
            learning_rate=rate,
            schedule="linear",
            seed=seed,
        )
        factors = sampled.fit(self.train, config)
        return (evaluation.vector_scorer(factors.user, factors.item),) * 2

    def _sequential(
        self, loss: str, rank: str, drawn: int, rate: float, epochs: int, seed: int
    ) -> tuple[evaluation.Scorer, evaluation.Scorer]:
        """Scores of the validation and of the test target, each with what came before it."""
        bound = {
            "sequential.SequentialConfig.loss": loss,
            "sequential.SequentialConfig.rank": rank,
            "sequential.SequentialConfig.cutoff": CUTOFF.get(loss),
            "sequential.SequentialConfig.epochs": epochs,
            "negatives.SamplerConfig.kind": "uniform" if drawn else "all",
            "optimizers.OptimizerConfig.learning_rate": rate,
            "optimizers.OptimizerConfig.schedule": "linear",
            "fitting.FitCF.patience": 0,
            "SEED": seed,
            **({"negatives.SamplerConfig.drawn": drawn} if drawn else {}),
        }
        words = [f"{name}={value!r}" for name, value in bound.items()]
        run = gin_config.build(FitCF, [self.recipe], words).trained(self.splits)
        if not isinstance(run, SequentialFit):
            raise UserError(f"--recipe={self.recipe} trains no sequential model")
        try:
            item = run.fit().item
        except ValueError as error:
            raise UserError(f"{loss}, {rank} ranks, m={drawn}, rate {rate:g}: {error}") from error
        users = [run.user_vectors(Sequences.before(self.splits, fold)) for fold in (VALID, TEST)]
        valid, test = (evaluation.vector_scorer(user, item) for user in users)
        return valid, test

    @functools.cache  # noqa: B019 - lives as long as the program
    def tried(self, loss: str, rank: str) -> dict[float, float]:
        """Validation NDCG@10 of each rate."""
        return {rate: self.run(loss, rank, TUNED_AT, rate, 0)[0] for rate in self.rates}

    def rate(self, loss: str, rank: str) -> float:
        """The best of them."""
        if len(self.rates) == 1:
            return self.rates[0]
        if self.only_kept:
            there = [r for r in self.rates if self.path(loss, rank, TUNED_AT, r, 0).exists()]
            if len(there) < len(self.rates):
                raise UserError(
                    f"{self.folder} has no runs at all rates of {loss}, {rank} ranks yet"
                )
        tried = self.tried(loss, rank)
        return max(tried, key=lambda rate: tried[rate])


PerUser = dict[tuple[str, str, int], list[np.ndarray]]


def study(bench: Bench) -> PerUser:
    """NDCG@10 of every user and seed, by (loss, rank, m); the longest runs last."""
    found: PerUser = {}
    for drawn in (*bench.drawn, FULL):
        for loss in LOSSES:
            for rank in RANKS if drawn else ("corrected",):
                rate = bench.rate(loss, rank)
                seeds = [
                    seed
                    for seed in bench.seeds
                    if not bench.only_kept or bench.path(loss, rank, drawn, rate, seed).exists()
                ]
                runs = [bench.run(loss, rank, drawn, rate, seed)[1] for seed in seeds]
                if runs:
                    found[loss, rank, drawn] = [ndcg(ranks, 10) for ranks in runs]
                if not bench.only_kept:
                    report(found, bench)
    return found


def convergence(bench: Bench) -> list[str]:
    """Validation NDCG@10 at m = 100, seed 0, of every rate, and of twice the epochs."""
    head = f"validation NDCG@10 at m={TUNED_AT}, seed 0, by learning rate; twice the epochs:"
    lines = []
    for loss in LOSSES:
        for rank in RANKS:
            rate = bench.rate(loss, rank)
            if bench.only_kept and not bench.path(loss, rank, TUNED_AT, rate, 0, 2).exists():
                continue
            shown = "  ".join(f"{r:g} {v:.4f}" for r, v in bench.tried(loss, rank).items())
            longer = bench.run(loss, rank, TUNED_AT, rate, 0, longer=2)
            once = ndcg(bench.run(loss, rank, TUNED_AT, rate, 0)[1], 10)
            test = compare("twice", ndcg(longer[1], 10), "once", once)
            lines.append(
                f"  {loss} {rank}: {shown}; twice at {rate:g} {longer[0]:.4f}, on test {test}"
            )
    return [head, *lines] if lines else []


def report(found: PerUser, bench: Bench, more: Sequence[str] = ()) -> None:
    """Writes table and plot of what there is."""
    if not found:
        raise UserError(f"{bench.folder} holds no finished run: leave out --only_kept")
    mean = {name: np.mean(values, axis=0) for name, values in found.items()}
    with atomic_write(bench.folder / "table.txt") as stream:
        stream.write("\n".join([*table(mean, found, bench), *more]) + "\n")
    draw(mean, bench)


def table(mean: dict, per_user: PerUser, bench: Bench) -> list[str]:
    """Figures with intervals over users, and the paired tests."""
    users = len(next(iter(mean.values())))
    lines = [
        f"test NDCG@10, mean of seeds {bench.seeds}, {users} users, {bench.epochs} epochs; 95 % "
        "intervals over users; +- is the spread over seeds",
        f"{'loss':<11} {'m':>5}  {'uncorrected':<34} {'corrected':<34}",
    ]
    for loss in LOSSES:
        for drawn in (*bench.drawn, FULL):
            cells = [
                _cell(
                    mean.get((loss, rank, drawn)),
                    per_user.get((loss, rank, drawn)),
                    len(bench.seeds),
                )
                for rank in RANKS
            ]
            lines.append(f"{loss:<11} {drawn or 'full':>5}  {cells[0]:<34} {cells[1]:<34}".rstrip())
    lines.append("paired by user:")
    for loss in LOSSES:
        for drawn in bench.drawn:
            named = {
                "uncorrected": mean.get((loss, "sampled", drawn)),
                "corrected": mean.get((loss, "corrected", drawn)),
                "full": mean.get((loss, "corrected", FULL)),
            }
            there = {name: values for name, values in named.items() if values is not None}
            lines += [
                f"  {loss} m={drawn}: {compare(a, there[a], b, there[b])}, finds "
                f"{findable(there[a], there[b]):.4f}"
                for a, b in itertools.combinations(there, 2)
            ]
    return lines


def findable(one: np.ndarray, other: np.ndarray) -> float:
    """The difference that a paired test over these users would find in four of five samples."""
    spread = np.std(one - other, ddof=1)
    return float(FOUND * spread / np.sqrt(len(one)))


def _cell(mean: np.ndarray | None, seeds: list[np.ndarray] | None, expected: int) -> str:
    if mean is None or seeds is None:
        return "-"
    spread = np.std([x.mean() for x in seeds], ddof=1) if len(seeds) > 1 else np.nan
    few = f" ({len(seeds)} seeds)" if len(seeds) != expected else ""
    return f"{mean_interval(mean)} +- {spread:.4f}{few}"


def draw(mean: dict, bench: Bench) -> None:
    """NDCG@10 against m, a panel for each loss."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    for axes, loss in zip(figure.subplots(1, 2), LOSSES, strict=True):
        for rank, colour in zip(RANKS, ("#D55E00", "#0072B2"), strict=True):
            there = [m for m in bench.drawn if (loss, rank, m) in mean]
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
    with atomic_write(bench.folder / "ranks.png", "wb") as stream:
        figure.savefig(stream, format="png")


def recipe_digest(recipe: str) -> str:
    """Of all that a recipe binds."""
    gin_config.build(FitCF, [recipe], [])
    return sha256_json(gin_config.bindings_of(gin_config.operative_config()))


def main() -> int:
    """Parses the words and runs the study."""
    parser = argparse.ArgumentParser(
        prog="cf_ranks.py", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    cf_data.add_arguments(parser)
    parser.add_argument("--folder", default="runs/cf_ranks", type=pathlib.Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=positive, default=10)
    parser.add_argument(
        "--rates",
        type=float,
        nargs="+",
        default=[5e-3, 1e-2, 2e-2],
        help="learning rates tried for each loss and kind of rank",
    )
    parser.add_argument("--drawn", type=positive, nargs="+", default=DRAWN, help="negatives m")
    parser.add_argument("--recipe", default="", help="of a sequential model; default: factors")
    parser.add_argument("--only_kept", action="store_true", help="table of finished runs")
    arguments = parser.parse_args()
    keep_freed_memory()
    splits, train = cf_data.load(arguments)
    cf_data.claim(
        arguments.folder, splits, **{"recipe": arguments.recipe} if arguments.recipe else {}
    )
    bench = Bench(
        splits,
        train,
        arguments.folder,
        arguments.seeds,
        arguments.epochs,
        arguments.rates,
        arguments.drawn,
        arguments.only_kept,
        arguments.recipe,
    )
    found = study(bench)
    report(found, bench, convergence(bench) if len(bench.rates) > 1 else ())
    print((arguments.folder / "table.txt").read_text())
    print(f"wrote {arguments.folder}/table.txt, ranks.png")
    return 0


if __name__ == "__main__":
    sys.exit(exit_code(main))
