"""What `ilm evaluate` leaves: evaluation.json, and per-example values for paired comparisons."""

import dataclasses
import json
import os
import pathlib
from typing import Any

import numpy as np

from ilm_jax.data.splits import TEST
from ilm_jax.errors import UserError
from ilm_jax.evaluation import language as language_figures
from ilm_jax.evaluation.intervals import Comparison, Interval, compare
from ilm_jax.evaluation.language import LanguageResult
from ilm_jax.evaluation.measure import Trained
from ilm_jax.evaluation.ranking import RankingResult
from ilm_jax.evaluation.report import protocol_card
from ilm_jax.files import atomic_write


def write(
    folder: str | os.PathLike,
    trained: Trained,
    language: LanguageResult,
    ranking: RankingResult | None,
    beams: int,
) -> dict[str, Any]:
    """Writes both files and returns the record of evaluation.json."""
    folder = pathlib.Path(folder)
    splits = trained.run.splits
    figures = dict(language_figures.figures(language))
    intervals = {"nll": language.interval(), "nll_content": language.interval(content=True)}
    arrays: dict[str, Any] = {
        "item_nll": language.nll_sum,
        "item_tokens": language.tokens,
        "item_content_nll": language.content_nll_sum,
        "item_content_tokens": language.content_tokens,
        "item_index": language.index,
    }
    total = sum(splits.test_target(user) is not None for user in range(splits.catalogue.num_users))
    if ranking is not None:
        figures |= ranking.figures()
        intervals |= ranking.intervals()
        arrays |= {"user_rank": ranking.ranks, "user_index": ranking.index}
    record = {
        "model_dir": str(trained.run.model_dir),
        "step": trained.step,
        "figures": figures,
        "intervals": {name: dataclasses.asdict(value) for name, value in intervals.items()},
        "trainable_params": trained.trainable_params,
        "frozen_params": trained.frozen_params,
        "ceiling": ceiling(trained, language),
        "protocol": protocol_card(
            splits.report(),
            users=len(ranking.ranks) if ranking else 0,
            users_total=total,
            beams=beams,
            excludes_history=False,
        ),
    }
    with atomic_write(folder / "per_example.npz", "wb") as stream:
        np.savez(stream, **arrays)
    with atomic_write(folder / "evaluation.json") as stream:
        json.dump(record, stream, indent=1, default=float)
    return record


def ceiling(trained: Trained, language: LanguageResult) -> dict[str, float] | None:
    """The least possible nll of the test items' texts, where their generator knows it."""
    known = trained.run.catalogue.extras.get("ceiling")
    if not known:
        return None
    rows = trained.run.splits.items_in(TEST)
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
    arrays: dict[str, np.ndarray]

    @property
    def intervals(self) -> dict[str, Interval]:
        """Intervals of the figures by name."""
        return {name: Interval(**value) for name, value in self.record["intervals"].items()}


def read(folder: str | os.PathLike) -> Stored:
    """Reads what `write` wrote.

    Raises:
      UserError: if the folder holds no evaluation.
    """
    folder = pathlib.Path(folder)
    if not (folder / "evaluation.json").is_file():
        raise UserError(f"{folder} holds no evaluation.json: run `ilm evaluate --output={folder}`")
    with np.load(folder / "per_example.npz", allow_pickle=False) as arrays:
        return Stored(json.loads((folder / "evaluation.json").read_text()), dict(arrays))


def compare_content(first: str, a: list[Stored], second: str, b: list[Stored]) -> Comparison:
    """Paired test of nll_content (nats per content token) on the same held-out items.

    Args:
      first, second: names of the models.
      a, b: their evaluations, pair by pair on the same items; several pairs are pooled.

    Raises:
      UserError: if two of a pair were not measured on the same items.
    """
    for x, y in zip(a, b, strict=True):
        if not np.array_equal(x.arrays["item_index"], y.arrays["item_index"]):
            raise UserError(f"{first} and {second} were measured on different items")

    def joined(stored: list[Stored], name: str) -> np.ndarray:
        return np.concatenate([s.arrays[name] for s in stored])

    return compare(
        first,
        joined(a, "item_content_nll"),
        second,
        joined(b, "item_content_nll"),
        joined(a, "item_content_tokens"),
    )
