"""Results of a sweep: a table of all runs, a plot with error bars over seeds, the best run."""

import collections
import csv
import math
import pathlib
import textwrap
from collections.abc import Mapping
from typing import Any

from ilm_jax.files import atomic_write
from ilm_jax.runs.sweeps import Bindings, Sweep
from ilm_jax.training import finished


def collect(
    folder: str, sweep: Sweep, runs: Mapping[str, Bindings], states: Mapping[str, str]
) -> None:
    """Writes results.csv, results.md and results.png, and prints the table and the best run."""
    rows = [_row(folder, name, bindings, states[name]) for name, bindings in runs.items()]
    here = pathlib.Path(folder if "://" not in folder else ".")
    metrics = sorted({key for row in rows for key in row["validation"]})
    head = ["run", *sweep.varied, "state", *metrics, "seconds"]
    table = [
        [
            row["run"],
            *(_shown(row["bindings"].get(name, "")) for name in sweep.varied),
            row["state"],
            *(_shown(row["validation"].get(m, "")) for m in metrics),
            _shown(row["seconds"]),
        ]
        for row in rows
    ]
    with atomic_write(here / "results.csv") as stream:
        csv.writer(stream).writerows([head, *table])
    lines = [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *table)]
    groups = averages(rows, sweep)
    lines += ["", *_best(rows, groups, sweep), *at_their_best(rows, sweep)]
    with atomic_write(here / "results.md") as stream:
        stream.write("\n".join(lines) + "\n")
    print("\n".join(lines))
    if groups:
        plot(groups, sweep, here / "results.png")
        print(f"wrote {here}/results.csv, results.md, results.png")


def _row(folder: str, name: str, bindings: Bindings, state: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if state == "finished":
        found = finished.read(f"{folder}/{name}") or {}
    figures = {"validation": found.get("validation", {}), "seconds": found.get("seconds", "")}
    return {"run": name, "bindings": bindings, "state": state, **figures}


def averages(rows: list[dict[str, Any]], sweep: Sweep) -> dict[str, tuple[float, float, int]]:
    """{bindings without the seed: (mean of the metric, its standard error, seeds)}.

    Of runs whose metric is a finite number.
    """
    values: dict[str, list[float]] = collections.defaultdict(list)
    for row in _measured(rows, sweep):
        values[label(row["bindings"], sweep)].append(float(row["validation"][sweep.metric]))
    found = {}
    for name, numbers in values.items():
        count = len(numbers)
        mean = sum(numbers) / count
        spread = math.sqrt(sum((x - mean) ** 2 for x in numbers) / max(1, count - 1))
        found[name] = (mean, spread / math.sqrt(count), count)
    return found


def _measured(rows: list[dict[str, Any]], sweep: Sweep) -> list[dict[str, Any]]:
    """Those whose metric is a finite number."""
    return [row for row in rows if math.isfinite(row["validation"].get(sweep.metric, math.nan))]


def label(bindings: Mapping[str, Any], sweep: Sweep) -> str:
    """The settings that differ, but for the seed; by their last words where those differ."""
    short = {name: name.rsplit(".", 1)[-1] for name in {*sweep.varied, *bindings}}
    once = collections.Counter(short.values())
    parts = [
        f"{short[name] if once[short[name]] == 1 else name}={_shown(value)}"
        for name, value in bindings.items()
        if name != sweep.seed_name
    ]
    return "  ".join(parts) or "all"


def _spoken(of: tuple[float, float, int]) -> str:
    """A mean, and over several seeds its standard error."""
    mean, error, count = of
    if count == 1:
        return f"{mean:.4f} (one seed)"
    return f"{mean:.4f} ± {error:.4f} (standard error, {count} seeds)"


def _best(
    rows: list[dict[str, Any]], groups: Mapping[str, tuple[float, float, int]], sweep: Sweep
) -> list[str]:
    odd = [row["run"] for row in rows if sweep.metric in row["validation"]]
    measured = _measured(rows, sweep)
    odd = [name for name in odd if name not in {row["run"] for row in measured}]
    lines = [f"left out: {sweep.metric} of {', '.join(odd)} is not a finite number"] if odd else []
    if not groups:
        return [*lines, f"no run has the validation metric {sweep.metric!r}"]
    choose = min if sweep.best == "min" else max
    name = choose(groups, key=lambda key: groups[key][0])
    run = choose(measured, key=lambda row: row["validation"][sweep.metric])
    return [
        *lines,
        f"best on average: {name}: {sweep.metric} {_spoken(groups[name])}",
        f"best run: {run['run']}: {sweep.metric} {run['validation'][sweep.metric]:.4f}",
    ]


def at_their_best(rows: list[dict[str, Any]], sweep: Sweep) -> list[str]:
    """A line for each setting of what is not tuned, at its own best value of what is."""
    if not sweep.tuned:
        return []
    settings: dict[str, list[dict[str, Any]]] = collections.defaultdict(list)
    for row in rows:
        fixed = {n: value for n, value in row["bindings"].items() if n not in sweep.tuned}
        settings[label(fixed, sweep)].append(row)
    choose = min if sweep.best == "min" else max
    lines = ["", f"each at its best {', '.join(sweep.tuned)}, by {sweep.metric}:"]
    for name, those in settings.items():
        found = averages(those, sweep)
        if not found:
            lines.append(f"- {name}: nothing measured")
            continue
        best = choose(found, key=lambda key: found[key][0])
        untried = "" if len(those) == sum(n for *_, n in found.values()) else " (runs are missing)"
        lines.append(f"- {best}: {_spoken(found[best])}{untried}")
    return lines


def _shown(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value).replace("|", "\\|")


def plot(
    groups: Mapping[str, tuple[float, float, int]], sweep: Sweep, output: pathlib.Path
) -> None:
    """The metric's mean of each group, with its standard error over seeds."""
    # Not pyplot: it would keep global state and look for a display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = ["\n".join(textwrap.wrap(name, 48)) for name in groups]
    lines = sum(name.count("\n") + 1 for name in names)
    figure = Figure(figsize=(9, 1.2 + 0.2 * len(names) + 0.2 * lines), dpi=120)
    figure.set_layout_engine("constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    places = range(len(groups))
    means, errors, _ = zip(*groups.values(), strict=True)
    axes.errorbar(means, places, xerr=errors, fmt="o", color="#0072B2", capsize=3)
    axes.set_yticks(list(places), names, fontsize=8)
    axes.invert_yaxis()
    axes.locator_params(axis="x", nbins=5)
    axes.set_xlabel(f"validation {sweep.metric}\n(mean and standard error over seeds)")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    with atomic_write(output, "wb") as stream:
        figure.savefig(stream, format="png")
