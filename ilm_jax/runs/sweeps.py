"""A sweep: gin bindings that differ from run to run, as a grid, a list or random draws."""

import dataclasses
import hashlib
import itertools
import json
import math
import random
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ilm_jax.checks import Number, Seed, check
from ilm_jax.errors import UserError

Bindings = dict[str, Any]
RECIPE = "gin_file"
_RANGE = re.compile(r"(log|uniform)\(([^,]+),([^,]+)\)")


@dataclasses.dataclass(frozen=True)
class Sweep:
    """A sweep: a recipe, and the settings that differ between its runs.

    Attributes:
      gin_file: recipes of every run; `RECIPE` in a grid, or in `runs`, names one more of each run.
      fixed: bindings of every run.
      grid: {name: values}; all combinations.
      runs: bindings of single runs, each combined with the grid.
      draws: how many random draws, each combined with the grid; 0 for none.
      random: {name: "log(1e-4, 1e-2)", "uniform(0, 1)" or a list to choose from}.
      draw_seed: of the draws.
      metric: of the validation, by which runs are compared.
      best: "min" or "max".
      seed_name: the binding over which results are averaged.
      tuned: bindings, such as ("LEARNING_RATE",), whose value every setting of the others chooses
        for itself: results compare each at its best.
    """

    gin_file: Sequence[str] = ()
    fixed: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    grid: Mapping[str, Sequence[Any]] = dataclasses.field(default_factory=dict)
    runs: Sequence[Mapping[str, Any]] = ()
    draws: Number = 0
    random: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    draw_seed: Seed = 0
    metric: str = "loss"
    best: str = "min"
    seed_name: str = "SEED"
    tuned: Sequence[str] = ()

    def __post_init__(self) -> None:
        check(self)

    def expand(self) -> dict[str, Bindings]:
        """{name of the run: its bindings}, in order.

        Raises:
          UserError: for a sweep without recipe or values, or two runs with the same bindings.
        """
        if not self.gin_file and RECIPE not in self.varied:
            raise UserError("a sweep needs a recipe: --gin_file=…, or Sweep.gin_file")
        if unknown := [name for name in self.tuned if name not in self.varied]:
            raise UserError(f"Sweep.tuned = {unknown}: no such binding differs between the runs")
        if self.best not in ("min", "max"):
            raise UserError(f"Sweep.best = {self.best!r}: use min or max")
        if self.random and self.draws < 1:
            raise UserError("random bindings need a number of draws: --draws=8")
        for name, values in self.grid.items():
            if isinstance(values, str) or not len(values):
                raise UserError(f"the grid's {name} needs a list of values")
        generator = random.Random(self.draw_seed)
        drawn: list[Bindings] = [
            {name: _draw(name, how, generator) for name, how in self.random.items()}
            for _ in range(self.draws)
        ] or [{}]
        points = [
            dict(zip(self.grid, p, strict=True)) for p in itertools.product(*self.grid.values())
        ]
        found: dict[str, Bindings] = {}
        for one, draw, point in itertools.product(self.runs or [{}], drawn, points):
            bindings = {**one, **draw, **point}
            name = run_name(bindings)
            if name in found:
                raise UserError(f"two runs of the sweep have the same bindings: {bindings}")
            found[name] = bindings
        return found

    @property
    def varied(self) -> list[str]:
        """Names of what differs between runs."""
        names = [*itertools.chain(*self.runs), *self.random, *self.grid]
        return list(dict.fromkeys(names))


def run_name(bindings: Mapping[str, Any]) -> str:
    """A folder name that a person can read, and that no other bindings have."""
    text = json.dumps(bindings, sort_keys=True, default=str)
    mark = hashlib.sha256(text.encode()).hexdigest()[:6]
    parts = [f"{name.rsplit('.', 1)[-1]}={value}" for name, value in bindings.items()]
    readable = re.sub(r"[^A-Za-z0-9=.,_-]+", "-", ",".join(parts))[:80].strip("-,.")
    return f"{readable}-{mark}" if readable else f"run-{mark}"


def parse_value(text: str) -> object:
    """A value as a shell user writes it: a Python literal, else the text itself."""
    import ast

    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _draw(name: str, how: Any, generator: random.Random) -> object:
    if not isinstance(how, str):
        return generator.choice(list(how))
    found = _RANGE.fullmatch(how.replace(" ", ""))
    if not found:
        raise UserError(f"random {name} = {how!r}: write log(1e-4,1e-2), uniform(0,1) or a|b|c")
    kind = found.group(1)
    try:
        low, high = float(found.group(2)), float(found.group(3))
    except ValueError:
        low = high = math.nan
    if not -math.inf < low < high < math.inf or (kind == "log" and low <= 0):
        raise UserError(
            f"random {name} = {how!r}: give two finite numbers, the smaller first"
            + (" and above 0" if kind == "log" else "")
        )
    if kind == "uniform":
        value = generator.uniform(low, high)
    else:
        value = math.exp(generator.uniform(math.log(low), math.log(high)))
    return float(f"{value:.4g}")
