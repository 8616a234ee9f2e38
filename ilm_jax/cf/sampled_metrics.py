"""Ranking metrics from m sampled candidates, raw and corrected to the whole catalogue.

A target's rank among m sampled negatives says little of its rank among all N (Krichene and Rendle
2020): HR@10 of 100 candidates is high for any model, and may order two models wrongly. Given the
share p of negatives that score at least as high as its target, a user's count V is
Binomial(m, p), and the users' p have an unknown distribution. Its maximum-likelihood estimate on a
grid of ranks (by expectation-maximisation; Li et al. 2021 estimate the same from sampled ranks)
gives every full-catalogue metric as an average over ranks. What m draws cannot tell apart stays
apart in no estimate: below p = 1/m all users look alike, so that a cut-off k needs m >~ N/k; the
interval resamples users and says nothing of that, which the report states as `resolution`.
"""

import dataclasses
import os
from collections.abc import Callable

import numpy as np
import safetensors
import safetensors.numpy
import scipy.special
from jaxtyping import Float64, Int, Int32

from ilm_jax.cf.evaluation import Scorer
from ilm_jax.cf.interactions import Interactions
from ilm_jax.errors import UserError
from ilm_jax.evaluation.intervals import Interval, mean_interval
from ilm_jax.files import atomic_write

Metric = Callable[[Float64[np.ndarray, " ranks"]], Float64[np.ndarray, " ranks"]]
_FORMAT = "ilm_jax.candidates/1"


@dataclasses.dataclass(frozen=True, eq=False)
class Candidates:
    """Fixed negatives of every judged user, so that all models face the same ones.

    Attributes:
      users: rows of the users.
      targets: the held-out item of each.
      negatives: m items of each, drawn uniformly with replacement from those that the user never
        met (training items and the target left out).
      population: N of each user.
      fingerprint: of the split that they were drawn for.
    """

    users: Int32[np.ndarray, " users"]
    targets: Int32[np.ndarray, " users"]
    negatives: Int32[np.ndarray, "users drawn"]
    population: Int32[np.ndarray, " users"]
    fingerprint: str

    @classmethod
    def draw(
        cls,
        seen: Interactions,
        users: Int[np.ndarray, " users"],
        targets: Int[np.ndarray, " users"],
        drawn: int,
        seed: int,
        fingerprint: str,
    ) -> "Candidates":
        """Draws them; `seen` holds each user's history, which is left out.

        Raises:
          ValueError: if a user met every item.
        """
        generator = np.random.Generator(np.random.Philox(seed))
        negatives = np.empty((len(users), drawn), np.int32)
        population = np.empty(len(users), np.int32)
        for row, (user, target) in enumerate(zip(users, targets, strict=True)):
            out = np.unique(np.append(seen.of(user), target))
            population[row] = seen.num_items - len(out)
            if not population[row]:
                raise ValueError(f"user row {user} met every item: there is no negative")
            # The r-th item that is not in `out`: step over those before it.
            rank = generator.integers(population[row], size=drawn)
            negatives[row] = rank + np.searchsorted(out - np.arange(len(out)), rank, side="right")
        rows, wanted = np.asarray(users, np.int32), np.asarray(targets, np.int32)
        return cls(rows, wanted, negatives, population, fingerprint)

    def save(self, path: str | os.PathLike) -> None:
        """Writes a safetensors file."""
        names = ("users", "targets", "negatives", "population")
        tensors = {name: np.ascontiguousarray(getattr(self, name)) for name in names}
        metadata = {"format": _FORMAT, "fingerprint": self.fingerprint}
        with atomic_write(path, "wb") as stream:
            stream.write(safetensors.numpy.save(tensors, metadata))

    @classmethod
    def load(cls, path: str | os.PathLike, fingerprint: str) -> "Candidates":
        """Reads what `save` wrote.

        Raises:
          UserError: if there is no such file, or it was drawn for another split.
        """
        try:
            with safetensors.safe_open(path, framework="numpy") as stream:
                metadata = stream.metadata() or {}
                tensors = {name: stream.get_tensor(name) for name in stream.keys()}
        except (OSError, safetensors.SafetensorError) as error:
            raise UserError(f"{path}: no file of candidates ({error}); draw them again") from error
        if metadata.get("format") != _FORMAT or metadata.get("fingerprint") != fingerprint:
            raise UserError(f"{path}: candidates of another split or format; draw them again")
        return cls(**tensors, fingerprint=fingerprint)

    def violators(self, scorer: Scorer, block: int = 256) -> Int[np.ndarray, " users"]:
        """V: candidates that score at least as high as the target, for every user.

        Raises:
          ValueError: if a score is NaN.
        """
        counts = np.empty(len(self.users), np.int64)
        for first in range(0, len(self.users), block):
            part = slice(first, first + block)
            scores = np.asarray(scorer(self.users[part]))
            broken = np.isnan(scores).any(1)
            if broken.any():  # no comparison with NaN holds: its target would rank first
                user = self.users[part][broken][0]
                raise ValueError(f"NaN among the scores of user row {user}; mend the model")
            target = np.take_along_axis(scores, self.targets[part, None], axis=1)
            sampled = np.take_along_axis(scores, self.negatives[part], axis=1)
            counts[part] = (sampled >= target).sum(1)
        return counts


@dataclasses.dataclass(frozen=True)
class Corrected:
    """A metric by sampled candidates, beside its estimate for the whole catalogue.

    Attributes:
      raw: over ranks among the candidates.
      estimate, low, high: of the full-catalogue figure; the 95 % interval resamples users.
      drawn: m.
      resolution: N / m: full ranks below it cannot be told apart.
    """

    raw: Interval
    estimate: float
    low: float
    high: float
    drawn: int
    resolution: float

    def __str__(self) -> str:
        return (
            f"raw {self.raw} of {self.drawn} candidates; catalogue {self.estimate:.4f} "
            f"[{self.low:.4f}, {self.high:.4f}] (ranks under {self.resolution:.0f} look alike)"
        )


def corrected_metric(
    metric: Metric,
    violators: Int[np.ndarray, " users"],
    drawn: int,
    population: float,
    *,
    samples: int = 200,
    seed: int = 0,
) -> Corrected:
    """Raw and corrected figure of a metric of ranks, such as `lambda r: ndcg(r, 10)`.

    Args:
      metric: of full ranks; is averaged over users.
      violators: V of every user.
      drawn: m.
      population: N (the mean, where users differ).
      samples: bootstrap samples of users.
      seed: of the bootstrap.
    """
    grid = rank_grid(population)
    values = np.asarray(metric(grid), np.float64)
    histogram = np.bincount(violators, minlength=drawn + 1).astype(float)
    generator = np.random.Generator(np.random.Philox(seed))
    drawn_again = generator.multinomial(len(violators), histogram / histogram.sum(), size=samples)
    every = np.concatenate([histogram[None], drawn_again])
    figures = mixing_distribution(every, drawn, (grid - 1) / population) @ values
    low, high = np.quantile(figures[1:], [0.025, 0.975])
    raw = mean_interval(np.asarray(metric(1.0 + violators), np.float64), seed=seed)
    return Corrected(raw, float(figures[0]), float(low), float(high), drawn, population / drawn)


def rank_grid(population: float, points: int = 200) -> Float64[np.ndarray, " ranks"]:
    """Whole ranks from 1 to N + 1: all of the first, then ever wider apart."""
    spaced = np.round(np.geomspace(1, population + 1, points))
    return np.unique(np.concatenate([np.arange(1.0, min(21, population + 2)), spaced]))


def mixing_distribution(
    histograms: Float64[np.ndarray, "samples counts"],
    drawn: int,
    chances: Float64[np.ndarray, " ranks"],
    steps: int = 300,
) -> Float64[np.ndarray, "samples ranks"]:
    """Distribution over `chances` under which the counts are likeliest, of each histogram.

    V is Binomial(drawn, p) with p drawn from the distribution; expectation-maximisation from the
    prior 1 / rank, which positives of a useful model follow roughly.
    """
    counts = np.arange(drawn + 1)[:, None]
    p = np.clip(chances, 1e-12, 1 - 1e-12)[None, :]
    log = (
        scipy.special.gammaln(drawn + 1) - scipy.special.gammaln(counts + 1)
        - scipy.special.gammaln(drawn - counts + 1)
        + counts * np.log(p) + (drawn - counts) * np.log1p(-p)
    )  # fmt: skip
    likely = np.exp(log)
    share = histograms / histograms.sum(1, keepdims=True)
    weights = np.gradient(np.log(1.0 + np.arange(len(chances))))
    found = np.tile(weights / weights.sum(), (len(histograms), 1))
    for _ in range(steps):
        expected = found @ likely.T
        found *= (share / np.maximum(expected, 1e-300)) @ likely
        found /= found.sum(1, keepdims=True)
    return found
