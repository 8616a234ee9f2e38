"""Receipts: what one row of a study measured, in a file that is small enough to be committed.

A receipt holds the command and the operative recipe that made the row, the data's fingerprint, the
version, metrics with the value of every text or user, and the curve of validation. A row whose
receipt fits what would be run now is not run again, on any machine; `check` runs it again and says
whether the figures match.
"""

import base64
import dataclasses
import json
import math
import pathlib
import subprocess
import zlib
from collections.abc import Mapping, Sequence

import numpy as np

from ilm_jax import __version__
from ilm_jax.errors import UserError
from ilm_jax.evaluation.reports.results import Stored
from ilm_jax.files import atomic_write
from ilm_jax.metrics.intervals import Comparison, compare
from ilm_jax.metrics.values import MetricValues

HERE = pathlib.Path(__file__).parent
FOLDER = HERE / "receipts"
FORMAT = "ilm_jax.receipt/1"
# Two runs that differ in rounding alone ended .10 nats apart on the toy world, where stages follow
# each other (docs/reproducing.md, "What rounding does").
TOLERANCE = 0.12


@dataclasses.dataclass(frozen=True)
class Receipt:
    """One row.

    Attributes:
      row: its name, which is the file's.
      made_from: {what: digest or word} that must be the same for the receipt to stand.
      commit: of the code that made it; "" outside of git.
      seconds: that training and evaluation took.
      curve: (step, metric) of every validation.
      metrics: with the values of every unit.
    """

    row: str
    made_from: Mapping[str, str]
    commit: str
    seconds: float
    curve: Sequence[tuple[int, float]]
    metrics: Mapping[str, MetricValues]

    def mean(self, metric: str) -> float:
        """Of a metric."""
        return self.metrics[metric].mean


def of_evaluation(
    row: str,
    made_from: Mapping[str, str],
    seconds: float,
    curve: Sequence[tuple[int, float]],
    stored: Stored,
    names: Sequence[str],
) -> Receipt:
    """The receipt of a row that was just evaluated; of its metrics, those of `names`."""
    metrics = {name: stored.metrics[name] for name in names if name in stored.metrics}
    return Receipt(row, dict(made_from), commit(), round(seconds, 1), curve, metrics)


def write(folder: pathlib.Path, receipt: Receipt) -> pathlib.Path:
    """Writes FOLDER/ROW.json, atomically."""
    record = {
        "format": FORMAT,
        "version": __version__,
        "row": receipt.row,
        "made_from": dict(receipt.made_from),
        "commit": receipt.commit,
        "seconds": receipt.seconds,
        "curve": [[step, round(value, 5)] for step, value in receipt.curve],
        "metrics": {name: _plain(metric) for name, metric in receipt.metrics.items()},
    }
    path = folder / f"{receipt.row}.json"
    with atomic_write(path) as stream:
        json.dump(record, stream, indent=1)
        stream.write("\n")
    return path


def read(folder: pathlib.Path, row: str) -> Receipt | None:
    """The receipt of a row; None if there is none.

    Raises:
      UserError: if the file is not a receipt.
    """
    path = folder / f"{row}.json"
    if not path.exists():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["format"] != FORMAT:
            raise ValueError(f"format {record['format']!r}, wanted {FORMAT!r}")
        metrics = {name: _metric(name, found) for name, found in record["metrics"].items()}
        curve = [(int(step), float(value)) for step, value in record["curve"]]
        return Receipt(
            record["row"], record["made_from"], record["commit"], record["seconds"], curve, metrics
        )
    except (ValueError, KeyError, TypeError, zlib.error) as error:
        raise UserError(f"{path} is no receipt ({error}): delete it to run its row") from error


def standing(folder: pathlib.Path, row: str, made_from: Mapping[str, str]) -> Receipt | None:
    """The receipt of a row, if it has one.

    Raises:
      UserError: if it was made from something else.
    """
    receipt = read(folder, row)
    if receipt is None:
        return None
    if other := changed(receipt, made_from):
        raise UserError(
            f"{folder / row}.json was made from another {', '.join(other)}: delete it to run its "
            "row anew"
        )
    return receipt


def joined(rows: Sequence[Receipt], metric: str) -> tuple[np.ndarray, np.ndarray | None]:
    """(values, weights if there are any) of a metric of a row's receipts.

    Receipts of one catalogue are seeds of the same units, whose mean is taken unit by unit: they
    are no more units. Those of several catalogues stand one behind the other.

    Raises:
      UserError: if two of one catalogue were not measured on the same units.
    """
    found = [receipt.metrics[metric] for receipt in rows]
    weights = [one.weights for one in found if one.weights is not None]
    values = [one.values for one in found]
    if "data" in rows[0].made_from and len({row.made_from.get("data") for row in rows}) == 1:
        for row, one in zip(rows, found, strict=True):
            if one.index.tolist() != found[0].index.tolist():
                raise UserError(f"{rows[0].row} and {row.row} were measured on different items")
        return np.mean(values, axis=0), np.mean(weights, axis=0) if weights else None
    return np.concatenate(values), np.concatenate(weights) if weights else None


def compare_rows(
    first: str, ours: Sequence[Receipt], second: str, theirs: Sequence[Receipt], metric: str
) -> Comparison:
    """Paired test of two rows, unit by unit (see `joined`); their receipts are in one order.

    Raises:
      UserError: if two of a pair were not measured on the same units.
    """
    for one, two in zip(ours, theirs, strict=True):
        if one.metrics[metric].index.tolist() != two.metrics[metric].index.tolist():
            raise UserError(f"{one.row} and {two.row} were measured on different items")
    values, weights = joined(ours, metric)
    return compare(first, values, second, joined(theirs, metric)[0], weights)


def changed(receipt: Receipt, made_from: Mapping[str, str]) -> list[str]:
    """What a receipt was made from that is another thing now; none where it stands."""
    names = dict.fromkeys([*receipt.made_from, *made_from])
    return [name for name in names if receipt.made_from.get(name) != made_from.get(name)]


def compared(kept: Receipt, again: Receipt, tolerance: float = TOLERANCE) -> tuple[bool, list[str]]:
    """(whether two runs of one row match, a line for each metric)."""
    lines, match = [], True
    for name, metric in kept.metrics.items():
        if name not in again.metrics:
            match = False
            lines.append(f"{name}: {metric.mean:.4f} kept, not measured again")
            continue
        difference = again.mean(name) - metric.mean
        near = math.isfinite(difference) and abs(difference) <= tolerance
        match &= near
        lines.append(
            f"{name}: {metric.mean:.4f} kept, {again.mean(name):.4f} now "
            f"({'within' if near else 'beyond'} {tolerance:g})"
        )
    return match, lines


def _plain(metric: MetricValues) -> dict[str, object]:
    packed = {"index": _pack(metric.index, "<i4"), "values": _pack(metric.values, "<f4")}
    if metric.weights is not None:
        packed["weights"] = _pack(metric.weights, "<f4")
    return {
        "mean": round(metric.mean, 6),
        "unit": metric.unit,
        "higher_is_better": metric.higher_is_better,
        **packed,
    }


def _metric(name: str, found: Mapping[str, str]) -> MetricValues:
    arrays = {
        key: _unpack(found[key], kind)
        for key, kind in (("index", "<i4"), ("values", "<f4"), ("weights", "<f4"))
        if key in found
    }
    return MetricValues(
        name,
        found["unit"],
        arrays["index"].astype(np.int64),
        arrays["values"].astype(np.float64),
        arrays["weights"].astype(np.float64) if "weights" in arrays else None,
        bool(found["higher_is_better"]) if found["higher_is_better"] is not None else None,
    )


def _pack(values: np.ndarray, kind: str) -> str:
    return base64.b85encode(zlib.compress(np.asarray(values).astype(kind).tobytes(), 9)).decode()


def _unpack(text: str, kind: str) -> np.ndarray:
    return np.frombuffer(zlib.decompress(base64.b85decode(text)), kind)


def commit() -> str:
    """Of the code that runs; "" outside of git."""
    words = ["git", "-C", str(HERE), "rev-parse", "--short=12", "HEAD"]
    found = subprocess.run(words, capture_output=True, text=True, check=False)
    return found.stdout.strip() if not found.returncode else ""
