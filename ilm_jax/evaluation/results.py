"""What `ilm evaluate` leaves in a folder, and how it is read back.

evaluation.json  figures, intervals, protocol card
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

from ilm_jax.data.catalogue.splits import TEST
from ilm_jax.errors import UserError
from ilm_jax.evaluation.figures import Figure
from ilm_jax.evaluation.language import LanguageResult
from ilm_jax.evaluation.passes import Watch, unseen
from ilm_jax.evaluation.trained import TrainedModel
from ilm_jax.files import atomic_write, read_arrays
from ilm_jax.metrics.intervals import Comparison, Interval, compare

# Writes files into a folder and returns their names there.
Writer = Callable[[pathlib.Path], list[str]]
SUMMARY, VALUES = "evaluation.json", "per_unit.npz"


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Everything measured of a run.

    Attributes:
      figures: with their values.
      totals: figures without an interval, such as coverage.
      protocol: the card, by kind of measure.
      missing: figures that could not be had, and why; none of them is 0.
      others: figures that are no means over units, such as AUC, with their intervals.
    """

    figures: Sequence[Figure]
    totals: Mapping[str, float] = dataclasses.field(default_factory=dict)
    protocol: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    missing: Mapping[str, str] = dataclasses.field(default_factory=dict)
    others: Mapping[str, Interval] = dataclasses.field(default_factory=dict)

    def __add__(self, other: "Evaluation") -> "Evaluation":
        """Both together."""
        return Evaluation(
            [*self.figures, *other.figures],
            {**self.totals, **other.totals},
            {**self.protocol, **other.protocol},
            {**self.missing, **other.missing},
            {**self.others, **other.others},
        )

    def under(self, name: str) -> "Evaluation":
        """The same with every name behind "name/", where several tasks are measured."""

        def named(found: Mapping[str, Any]) -> dict[str, Any]:
            return {f"{name}/{key}": value for key, value in found.items()}

        figures = [dataclasses.replace(f, name=f"{name}/{f.name}") for f in self.figures]
        return Evaluation(
            figures, named(self.totals), named(self.protocol), named(self.missing),
            named(self.others),
        )  # fmt: skip


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
    found: Evaluation,
    watch: Watch = unseen,
    writers: Sequence[Writer] = (),
    **more: Any,
) -> dict[str, Any]:
    """Writes evaluation.json and per_unit.npz; returns the former's record.

    What an earlier evaluation left in the folder goes when everything is there to be written.

    Args:
      folder: made if absent.
      found: what was measured.
      watch: hears how many intervals are found.
      writers: of further files.
      **more: further entries of evaluation.json, such as model_dir.
    """
    folder = pathlib.Path(folder)
    advance = watch("intervals", max(1, len(found.figures)))
    intervals: dict[str, Interval] = {}
    for figure in found.figures:
        intervals[figure.name] = figure.interval()
        advance(1)
    intervals |= found.others
    arrays: dict[str, np.ndarray] = {}
    for figure in found.figures:
        key = f"{figure.unit}|{figure.name}"
        arrays |= {f"{key}|index": figure.index, f"{key}|values": figure.values}
        if figure.weights is not None:
            arrays[f"{key}|weights"] = figure.weights
    _begin(folder)
    files = [name for writer in writers for name in writer(folder)]
    with atomic_write(folder / VALUES, "wb") as stream:
        np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]
    record = {
        **more,
        "files": [*files, VALUES],
        "values_sha256": _digest(arrays),
        "figures": {**{name: i.mean for name, i in intervals.items()}, **found.totals},
        "intervals": {name: _plain(dataclasses.asdict(i)) for name, i in intervals.items()},
        "not_available": dict(found.missing),
        "protocol": dict(found.protocol),
    }
    with atomic_write(folder / SUMMARY) as stream:
        json.dump(_plain(record), stream, indent=1, default=float, allow_nan=False)
    return record


def ceiling(trained: TrainedModel, language: LanguageResult) -> dict[str, float] | None:
    """The least possible nll of the test items' texts, where their generator knows it."""
    known = trained.catalogue.extras.get("ceiling")
    if not known:
        return None
    rows = trained.splits.items_in(TEST)
    content = float(np.asarray(known["content_nats"])[rows].sum())
    everything = content + float(np.asarray(known["template_nats"])[rows].sum())
    return {
        "nll": everything / language.tokens.sum(),
        "nll_content": content / language.content_tokens.sum(),
    }


@dataclasses.dataclass(frozen=True)
class Stored:
    """An evaluation read back."""

    record: dict[str, Any]
    figures: dict[str, Figure]

    @property
    def intervals(self) -> dict[str, Interval]:
        """Intervals of the figures by name."""
        found = {}
        for name, value in self.record["intervals"].items():
            low, high = (-math.inf if value["low"] is None else value["low"],
                         math.inf if value["high"] is None else value["high"])  # fmt: skip
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
        absent = [n for n in ("figures", "intervals", "not_available", "protocol")
                  if n not in record]  # fmt: skip
        if absent:
            raise ValueError(f"{SUMMARY} has no {absent[0]!r}")
        arrays = read_arrays(folder / VALUES)
        if record.get("values_sha256") not in (None, _digest(arrays)):
            raise ValueError(f"{VALUES} is of another evaluation than {SUMMARY}")
        return Stored(record, _figures(arrays))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder} cannot be read: {error}; evaluate again") from error


def _figures(arrays: Mapping[str, np.ndarray]) -> dict[str, Figure]:
    """The figures of per_unit.npz by name."""
    figures = {}
    for key in (key for key in arrays if key.endswith("|values")):
        unit, name, _ = key.split("|")
        index, weights = arrays[f"{unit}|{name}|index"], arrays.get(f"{unit}|{name}|weights")
        figures[name] = Figure(name, unit, index, arrays[key], weights)
    return figures


def _digest(arrays: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def compare_content(first: str, a: list[Stored], second: str, b: list[Stored]) -> Comparison:
    """Paired test of nll_content (nats per content token) on the same held-out items.

    Args:
      first, second: names of the models.
      a, b: their evaluations, pair by pair on the same items; several pairs are pooled.

    Raises:
      UserError: if two of a pair were not measured on the same items.
    """
    ours, theirs = _content(first, a), _content(second, b)
    ids = [[s.record["protocol"].get("nll", {}).get("ids") for s in side] for side in (a, b)]
    for x, y, one, two in zip(ours, theirs, *ids, strict=True):
        if not np.array_equal(x.index, y.index) or one != two:
            raise UserError(f"{first} and {second} were measured on different items")
    return compare(
        first,
        np.concatenate([figure.values for figure in ours]),
        second,
        np.concatenate([figure.values for figure in theirs]),
        np.concatenate([np.asarray(figure.weights) for figure in ours]),
    )


def _content(model: str, found: list[Stored]) -> list[Figure]:
    for stored in found:
        if "nll_content" not in stored.figures:
            why = stored.record["not_available"].get("nll_content", "not measured")
            raise UserError(f"{model} has no nll_content to compare: {why}")
    return [stored.figures["nll_content"] for stored in found]


def _plain(value: Any) -> Any:
    """JSON has neither infinities nor NaN: they are null."""
    if isinstance(value, Mapping):
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    return value
