"""Loss curves as PNG, from the metrics.jsonl of one or more runs."""

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ilm_jax.errors import UserError
from ilm_jax.files import atomic_write

Curve = tuple[list[float], list[float]]

# Okabe and Ito's colours: told apart by colour-blind readers too.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_HELD_OUT: dict[str, Any] = {"linestyle": "--", "marker": "o", "linewidth": 1.4, "markersize": 4}


def loss_curves(
    runs: Mapping[str, str | os.PathLike],
    output: str | os.PathLike,
    *,
    metrics: Sequence[str] = ("loss",),
    title: str = "",
    validation: bool = False,
) -> None:
    """Draws one panel per metric and one colour per run; noisy curves get a smooth line on top.

    Validation is dashed, with a mark at each measurement, on the axis of training: what overfits is
    seen to.

    Args:
      runs: metrics.jsonl of every run, by the name for the legend.
      output: the PNG to write.
      metrics: names in the files' records.
      title: above the panels.
      validation: whether the same metrics of validation ("validation/loss") are drawn too, where a
        run has them.

    Raises:
      UserError: if a file is absent, or no run has any of the metrics.
    """
    held_out = {metric: f"validation/{metric}" for metric in metrics if validation}
    read = [*metrics, *held_out.values()]
    curves = {name: _read(path, read) for name, path in runs.items()}
    shown = [metric for metric in metrics if any(metric in run for run in curves.values())]
    if not shown:
        where = ", ".join(str(path) for path in runs.values())
        raise UserError(f"none of the metrics {', '.join(metrics)} in {where}; nothing to draw")

    # Not pyplot: it would keep global state and look for a display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4 * len(shown), 4.2), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    for axes, metric in zip(np.ravel(figure.subplots(1, len(shown))), shown, strict=True):
        for number, (name, run) in enumerate(curves.items()):
            colour = _COLOURS[number % len(_COLOURS)]
            if metric in run:
                _draw(axes, *run[metric], name, colour)
            if (held := held_out.get(metric, "")) in run:
                axes.plot(*run[held], **_HELD_OUT, color=colour)
        if any(held_out.get(metric) in run for run in curves.values()):
            axes.plot([], [], **_HELD_OUT, color="#666666", label="validation")
        axes.set_xlabel("step")
        axes.set_ylabel(metric)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    if title:
        figure.suptitle(title)
    with atomic_write(output, "wb") as stream:
        figure.savefig(stream, format="png")


def _draw(axes, steps: list[float], values: list[float], name: str, colour: str) -> None:
    window = len(values) // 40
    if window < 2:
        marker = "o" if len(values) == 1 else None
        axes.plot(steps, values, color=colour, linewidth=1.6, marker=marker, label=name)
        return
    axes.plot(steps, values, color=colour, linewidth=0.8, alpha=0.25)
    # Centred mean over a window that shrinks at both ends, so that nothing is invented there.
    sums = np.concatenate([[0.0], np.cumsum(values)])
    at = np.arange(len(values))
    reach = np.minimum(window, np.minimum(at, len(values) - 1 - at))
    smooth = (sums[at + reach + 1] - sums[at - reach]) / (2 * reach + 1)
    axes.plot(steps, smooth, color=colour, linewidth=1.8, label=name)


def _read(path: str | os.PathLike, metrics: Sequence[str]) -> dict[str, Curve]:
    from ilm_jax.training.writers import read_metrics

    try:
        records = read_metrics(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; train the run first") from None
    curves: dict[str, Curve] = {}
    for record in records:
        for metric in metrics:
            value = record.get(metric)
            if value is not None and math.isfinite(value):
                steps, values = curves.setdefault(metric, ([], []))
                steps.append(record["step"])
                values.append(value)
    return curves
