"""A run's report: one table for people, report.json for programs, and what was measured how."""

import dataclasses
import json
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

from ilm_jax.files import atomic_write
from ilm_jax.metrics.intervals import Comparison, Interval

COLUMNS = ("nll", "nll_content", "worth_content", "hr@10", "ndcg@10", "semantic")


@dataclasses.dataclass(frozen=True)
class Row:
    """One model of a comparison.

    Attributes:
      model: "text-zero", "prompt", "mlp", "ilm-rand", "ilm", "text-full" or another name.
      metrics: by name; those of `COLUMNS` stand in the table, others in the file only.
      intervals: of some of the metrics.
      trainable_params, frozen_params: numbers of parameters; None: none are counted.
      seconds: of training, earlier stages that only this row needs included; None: not measured.
      note: short remark for the table, such as "trained LM".
      missing: metrics that could not be had, and why.
    """

    model: str
    metrics: Mapping[str, float]
    trainable_params: int | None = 0
    frozen_params: int | None = 0
    seconds: float | None = 0.0
    intervals: Mapping[str, Interval] = dataclasses.field(default_factory=dict)
    note: str = ""
    missing: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The row of report.json; a metric that was not measured is null."""
        return {
            "model": self.model,
            **{name: _number(self.metrics.get(name)) for name in COLUMNS},
            "trainable_params": self.trainable_params,
            "frozen_params": self.frozen_params,
            "seconds": None if self.seconds is None else round(float(self.seconds), 3),
            "other": {
                name: _number(value) for name, value in self.metrics.items() if name not in COLUMNS
            },
            "intervals": {name: _interval(value) for name, value in self.intervals.items()},
            "note": self.note,
            "not_available": dict(self.missing),
        }


def write_report(
    path: str | os.PathLike,
    dataset: str,
    seed: int,
    rows: Sequence[Row],
    *,
    protocol: Mapping[str, Any],
    comparisons: Sequence[Comparison] = (),
    ceiling: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """Writes report.json atomically and returns its content.

    `{"dataset", "seed", "rows": [{"model", "nll", "nll_content", "worth_content", "hr@10",
    "ndcg@10", "semantic", "trainable_params", "frozen_params", "seconds", …}], …}`. It is strict
    JSON: NaN and infinite numbers are null.

    Args:
      path: the file.
      dataset, seed: of the run.
      rows: in the order of the table.
      protocol: the card of an evaluation, see `ilm_jax.evaluation.reports.card`.
      comparisons: paired verdicts.
      ceiling: best possible value of some metrics, where the dataset knows it.
    """
    report = {
        "dataset": dataset,
        "seed": seed,
        "rows": [row.to_json() for row in rows],
        "comparisons": [
            {
                "first": c.first,
                "second": c.second,
                "difference": _interval(c.difference),
                "p_value": _number(c.p_value),
                "verdict": c.verdict,
            }
            for c in comparisons
        ],
        "ceiling": None if ceiling is None else {k: _number(v) for k, v in ceiling.items()},
        "protocol": dict(protocol),
    }
    with atomic_write(path) as stream:
        json.dump(report, stream, indent=2, ensure_ascii=False, allow_nan=False)
        stream.write("\n")
    return report


def format_table(
    rows: Sequence[Row],
    *,
    ceiling: Mapping[str, float] | None = None,
    floor: str = "text-zero",
) -> str:
    """The rows as aligned plain text; the floor is named, the ceiling stands last.

    Args:
      rows: in order.
      ceiling: best possible value of some metrics.
      floor: the model that nothing was trained for.
    """
    head = ["model", *COLUMNS, "trainable", "frozen", "seconds", ""]
    lines = [head]
    for row in rows:
        numbers = [_cell(row.metrics.get(name)) for name in COLUMNS]
        note = row.note or ("floor" if row.model == floor else "")
        sizes = [_count(row.trainable_params), _count(row.frozen_params)]
        seconds = "-" if row.seconds is None else f"{row.seconds:.0f}"
        lines.append([row.model, *numbers, *sizes, seconds, note])
    if ceiling:
        numbers = [_cell(ceiling.get(name)) for name in COLUMNS]
        lines.append(["ceiling", *numbers, "", "", "", "by the generator"])
    return _aligned(lines)


def format_intervals(rows: Sequence[Row]) -> str:
    """The same metrics' intervals, one line per row."""
    lines = [["model", *COLUMNS, ""]]
    for row in rows:
        found = [row.intervals.get(name) for name in COLUMNS]
        cells = ["-" if i is None else f"[{_cell(i.low)}, {_cell(i.high)}]" for i in found]
        lines.append([row.model, *cells, ""])
    return _aligned(lines)


def _aligned(lines: Sequence[Sequence[str]]) -> str:
    """Names and remarks to the left, numbers to the right."""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column in (0, len(widths) - 1) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _cell(value: float | None) -> str:
    return "-" if value is None or not math.isfinite(value) else f"{value:z.4f}"


def _count(number: int | None) -> str:
    if number is None:
        return "-"
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.2f}{unit}"
    return str(number)


def _number(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


def _interval(value: Interval) -> dict[str, Any]:
    numbers = {name: _number(getattr(value, name)) for name in ("mean", "low", "high", "level")}
    return numbers | {"units": value.units, "method": value.method}
