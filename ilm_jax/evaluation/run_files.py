"""Every user's list on disk: JSON lines for people, TREC files for trec_eval and ranx.

A TREC run has lines "user Q0 item rank score tag" and a qrels file "user 0 item 1", ids without
white space; other characters of raw ids are percent-encoded.
"""

import json
import os
import pathlib
import urllib.parse
from collections.abc import Sequence

import numpy as np

from ilm_jax.evaluation.measures import Ranked
from ilm_jax.files import atomic_write


def write_ranks(
    folder: str | os.PathLike,
    ranked: Ranked,
    users: Sequence[str],
    items: Sequence[str],
    tag: str = "ilm",
) -> None:
    """Writes ranks.jsonl, ranks.trec and qrels.trec.

    Args:
      folder: made if absent.
      ranked: the lists.
      users: raw id of the user of every list.
      items: raw id of every item row.
      tag: the run's name in the TREC file.
    """
    folder = pathlib.Path(folder)
    with atomic_write(folder / "ranks.jsonl") as stream:
        for user, target, rank, rows, scores in _rows(ranked, users):
            record = {
                "user": user, "target": items[target], "rank": rank,
                "items": [items[row] for row in rows], "scores": scores,
            }  # fmt: skip
            stream.write(json.dumps(record, ensure_ascii=False) + "\n")
    with atomic_write(folder / "ranks.trec") as stream:
        for user, _, _, rows, scores in _rows(ranked, users):
            for place, (row, score) in enumerate(zip(rows, scores, strict=True), 1):
                # Readers sort by score: rounding must not make ties of what was told apart.
                line = (_word(user), "Q0", _word(items[row]), str(place), repr(score), _word(tag))
                stream.write(" ".join(line) + "\n")
    with atomic_write(folder / "qrels.trec") as stream:
        for user, target, *_ in _rows(ranked, users):
            stream.write(f"{_word(user)} 0 {_word(items[target])} 1\n")


def _rows(ranked: Ranked, users: Sequence[str]):
    """(user, target row, rank or None, item rows, scores) of every list."""
    for user, target, rank, rows, scores in zip(
        users, ranked.targets, ranked.ranks, ranked.lists, ranked.scores, strict=True
    ):
        real = rows >= 0
        yield (
            user, int(target), int(rank) if np.isfinite(rank) else None,
            rows[real].tolist(), [float(score) for score in scores[real]],
        )  # fmt: skip


def _word(text: str) -> str:
    return urllib.parse.quote(text, safe="") or "%00"
