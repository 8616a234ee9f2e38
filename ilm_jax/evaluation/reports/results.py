"""Files that `ilm evaluate` writes into a folder, and how they are read back.

evaluation.json  metrics ("figures"), intervals, which end is better, protocol card
per_unit.npz     the values of every user and text, for paired comparisons
ranks.jsonl      every user's list and rank; ranks.trec and qrels.trec the same as TREC files
*.jsonl          generated texts, in seqio's format

evaluation.json is written last, names the others and has the digest of per_unit.npz: a folder
without it holds no evaluation, and files of two evaluations are told apart.
"""

import dataclasses
import hashlib
import json
import math
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ilm_jax.errors import UserError
from ilm_jax.files import atomic_write, read_arrays
from ilm_jax.metrics.intervals import Interval
from ilm_jax.metrics.registry import METRICS
from ilm_jax.metrics.values import SAMPLES, Evaluation, MetricValues
from ilm_jax.progress import Watch, unseen

# Writes files into a folder and returns their names there.
Writer = Callable[[pathlib.Path], list[str]]
SUMMARY, VALUES = "evaluation.json", "per_unit.npz"
_LOWER = ("nll", "mse", "mae")


def _begin(folder: pathlib.Path) -> None:
    """Takes off what an earlier evaluation left, so that none of its files pass for the next's."""
    try:
        names = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))["files"]
    except (OSError, ValueError, KeyError, TypeError):  # none, or not ours to judge
        names = []
    (folder / SUMMARY).unlink(missing_ok=True)
    for name in names:
        file = folder / str(name)
        if folder.resolve() in file.resolve().parents:
            file.unlink(missing_ok=True)


def write(
    folder: str | os.PathLike,
    evaluation: Evaluation,
    watch: Watch = unseen,
    writers: Sequence[Writer] = (),
    **more: Any,
) -> dict[str, Any]:
    """Writes evaluation.json and per_unit.npz; returns the former's record.

    What an earlier evaluation left in the folder goes when everything is there to be written.

    Args:
      folder: made if absent.
      evaluation: what was measured.
      watch: hears how many intervals are ready.
      writers: of further files.
      **more: further entries of evaluation.json, such as model_dir.
    """
    folder = pathlib.Path(folder)
    intervals = _intervals(evaluation, watch)
    arrays = _arrays(evaluation.metrics)
    _begin(folder)
    files = [name for writer in writers for name in writer(folder)]
    with atomic_write(folder / VALUES, "wb") as stream:
        np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]
    record = {
        **more,
        "ceiling": dict(evaluation.ceiling) or None,
        "files": [*files, VALUES],
        "values_sha256": _digest(arrays),
        "figures": {**{name: i.mean for name, i in intervals.items()}, **evaluation.totals},
        "intervals": {name: _plain(dataclasses.asdict(i)) for name, i in intervals.items()},
        "higher_is_better": {m.name: m.higher_is_better for m in evaluation.metrics},
        "not_available": dict(evaluation.missing),
        "protocol": dict(evaluation.protocol),
    }
    with atomic_write(folder / SUMMARY) as stream:
        json.dump(_plain(record), stream, indent=1, default=float, allow_nan=False)
    return record


def _intervals(evaluation: Evaluation, watch: Watch) -> dict[str, Interval]:
    """Of every metric by name."""
    advance = watch("intervals", max(1, len(evaluation.metrics)))
    intervals = {}
    for metric in evaluation.metrics:
        intervals[metric.name] = metric.interval()
        advance(1)
    for name, statistic in evaluation.statistics.items():
        intervals[name] = statistic.interval(watch(f"interval of {name}", SAMPLES))
    return intervals


def _arrays(metrics: Sequence[MetricValues]) -> dict[str, np.ndarray]:
    """What per_unit.npz holds."""
    arrays: dict[str, np.ndarray] = {}
    for metric in metrics:
        key = f"{metric.unit}|{metric.name}"
        arrays |= {f"{key}|index": metric.index, f"{key}|values": metric.values}
        if metric.weights is not None:
            arrays[f"{key}|weights"] = metric.weights
    return arrays


@dataclasses.dataclass(frozen=True)
class Stored:
    """An evaluation read back."""

    record: dict[str, Any]
    metrics: dict[str, MetricValues]

    @property
    def intervals(self) -> dict[str, Interval]:
        """Intervals of the metrics by name."""
        found = {}
        for name, value in self.record["intervals"].items():
            low, high = (
                -math.inf if value["low"] is None else value["low"],
                math.inf if value["high"] is None else value["high"],
            )
            found[name] = Interval(**{**value, "low": low, "high": high})
        return found


def read(folder: str | os.PathLike) -> Stored:
    """Reads what `write` wrote: an evaluation's folder, or a run's that has one in it.

    Raises:
      UserError: if the folder holds no evaluation, or one that cannot be read.
    """
    folder = pathlib.Path(folder)
    if not (folder / SUMMARY).is_file() and (folder / "evaluation" / SUMMARY).is_file():
        folder = folder / "evaluation"
    if not (folder / SUMMARY).is_file() or not (folder / VALUES).is_file():
        there = "" if folder.is_dir() else " (there is no such folder)"
        raise UserError(
            f"{folder} holds no {SUMMARY} with {VALUES}{there}: run `ilm evaluate "
            f"--output={folder}`"
        )
    try:
        record = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
        absent = [
            n for n in ("figures", "intervals", "not_available", "protocol") if n not in record
        ]
        if absent:
            raise ValueError(f"{SUMMARY} has no {absent[0]!r}")
        arrays = read_arrays(folder / VALUES)
        if record.get("values_sha256") not in (None, _digest(arrays)):
            raise ValueError(f"{VALUES} is of another evaluation than {SUMMARY}")
        return Stored(record, _metrics(arrays, record.get("higher_is_better")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder} cannot be read: {error}; evaluate again") from error


def _metrics(
    arrays: Mapping[str, np.ndarray], better: Mapping[str, bool | None] | None
) -> dict[str, MetricValues]:
    """The metrics of per_unit.npz by name, with what evaluation.json says is better, if it does."""
    metrics = {}
    for key in (key for key in arrays if key.endswith("|values")):
        unit, name, _ = key.split("|")
        kind = name.rpartition("/")[2]
        if better is None:  # written before evaluation.json said so, of metrics known by name
            higher = None if kind.startswith("popularity") else not kind.startswith(_LOWER)
        else:
            higher = better[name]
        metrics[name] = MetricValues(
            name,
            unit,
            arrays[f"{unit}|{name}|index"],
            arrays[key],
            arrays.get(f"{unit}|{name}|weights"),
            higher,
            METRICS[kind].total if kind in METRICS else None,
        )
    return metrics


def _digest(arrays: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _plain(value: object) -> object:
    """JSON has neither infinities nor NaN: they are null."""
    if isinstance(value, Mapping):
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    return value
