"""Ranking metrics from m sampled candidates, raw and corrected to the whole catalogue.

A target's rank among m sampled negatives says little of its rank among all N (Krichene and Rendle
2020): HR@10 of 100 candidates is high for any model, and may order two models wrongly. Given the
share p of negatives that score at least as high as its target, a user's count V is
Binomial(m, p), and the users' p have an unknown distribution: every distribution on a grid of ranks
gives a full-catalogue metric as an average over ranks (Li et al. 2021 estimate one from sampled
ranks). What m draws cannot tell apart no estimate can: below p = 1/m users look alike, so that a
cut-off k needs m >~ N/k, and the report states N / m as `resolution`. The interval therefore holds
the figure of every distribution that the counts allow, not the noise of one estimate alone.
"""

import dataclasses
import os
from collections.abc import Callable

import numpy as np
import safetensors
import safetensors.numpy
from jaxtyping import Float64, Int, Int32

from ilm_jax.cf.evaluation import Scorer
from ilm_jax.cf.interactions import Interactions
from ilm_jax.cf.rank_mixture import binomial, mean_range, rank_grid, smooth_distribution
from ilm_jax.errors import UserError
from ilm_jax.files import atomic_write
from ilm_jax.metrics.intervals import Interval, mean_interval

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
      estimate, low, high: of the full-catalogue metric, with its 95 % interval; see
        `corrected_metric`.
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
    seed: int = 0,
) -> Corrected:
    """Raw and corrected value of a metric of ranks, such as `lambda r: ndcg(r, 10)`.

    The interval is the profile likelihood's of 95 %: the figures of all distributions of ranks
    that explain the counts almost as well as the best one (`mean_range`). It is for these users and
    for those of whom they are a sample. No theorem gives its coverage where the best distribution
    is on the bounds of what can be, so it was simulated: NDCG at 10, 50 and 100, N = 1999, 500 and
    5000 users, m = 100 and 500, p from Beta(.35, 3), Beta(1, 20) and a mixture of five points. All
    36 x 24 seeds held these users' figure (a slow test). Widths were .6 to 2.9 times the truth at
    m = 100, and .2 to 1.5 times at m = 500.

    The estimate is of one smooth distribution (`smooth_distribution`), moved into the interval if
    it lies outside. Where N / m exceeds k it errs far: there the interval is what is known.

    Args:
      metric: of full ranks; is averaged over users.
      violators: V of every user.
      drawn: m.
      population: N (the mean, where users differ).
      seed: of the raw value's bootstrap.

    Raises:
      ValueError: if there is no user, or a V is outside [0, m].
    """
    violators = np.asarray(violators)
    outside = np.flatnonzero((violators < 0) | (violators > drawn))
    if not len(violators) or len(outside):
        what = f"user {outside[0]} has {violators[outside[0]]}" if len(outside) else "there is none"
        raise ValueError(f"violators: {what}; give each user's count among {drawn} candidates")
    grid = rank_grid(population)
    values = np.asarray(metric(grid), np.float64)
    histogram = np.bincount(violators, minlength=drawn + 1).astype(float)
    likely = binomial(drawn, np.minimum((grid - 1) / population, 1.0))
    low, high = mean_range(histogram, likely, values)
    estimate = float(np.clip(smooth_distribution(histogram, likely, grid) @ values, low, high))
    raw = mean_interval(np.asarray(metric(1.0 + violators), np.float64), seed=seed)
    return Corrected(raw, estimate, low, high, drawn, population / drawn)
