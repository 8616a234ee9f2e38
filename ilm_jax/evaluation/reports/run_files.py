"""Every user's list on disk: JSON lines for people, TREC files for trec_eval and ranx.

A TREC run has lines "user Q0 item rank score tag" and a qrels file "user 0 item 1", ids without
white space; other characters of raw ids are percent-encoded. What reads it orders a list by score,
in float32, and equal scores by the item's name from the last to the first (trec_eval), or as it
likes. So the scores of a list fall strictly, in float32 too: where the model's do not, one is set
to the next number below the one before it. What a TREC file cannot say is written with "#", which
no encoded id holds: the second list of a user is the query `user#2`, an item that a list repeats
is `item#2` (it keeps its place and wins nothing, as in our metrics), and a list without items has
the one line of an item `#none`, so that its user counts.
"""

import collections
import json
import math
import os
import pathlib
import urllib.parse
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from ilm_jax.evaluation.measures.ranking import Ranked
from ilm_jax.files import atomic_write

NAMES = ("ranks.jsonl", "ranks.trec", "qrels.trec")
NOTHING = "#none"


class _List(NamedTuple):
    """One user's list: the target's row and rank (None: not listed), item rows and scores."""

    user: str
    target: int
    rank: int | None
    rows: list[int]
    scores: list[float]


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
    lists = list(_lists(ranked, users))
    with atomic_write(folder / "ranks.jsonl") as stream:
        for one in lists:
            # JSON knows no infinity: a score that is none is null.
            known = [score if math.isfinite(score) else None for score in one.scores]
            record = {
                "user": one.user,
                "target": items[one.target],
                "rank": one.rank,
                "items": [items[row] for row in one.rows],
                "scores": known,
            }
            stream.write(json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n")
    queries = list(_numbered(_word(one.user) for one in lists))
    with atomic_write(folder / "ranks.trec") as stream:
        for query, one in zip(queries, lists, strict=True):
            names = list(_numbered(_word(items[row]) for row in one.rows)) or [NOTHING]
            scores = falling(one.scores or [0.0])
            for place, (name, score) in enumerate(zip(names, scores, strict=True), 1):
                line = (query, "Q0", name, str(place), repr(score), _word(tag))
                stream.write(" ".join(line) + "\n")
    with atomic_write(folder / "qrels.trec") as stream:
        for query, one in zip(queries, lists, strict=True):
            stream.write(f"{query} 0 {_word(items[one.target])} 1\n")


def falling(scores: Sequence[float]) -> list[float]:
    """The scores in float32, each below the one before it, and all finite.

    A list that has no room for that (scores at float32's end) has its places as scores: -1, -2, ….
    """
    found: list[float] = []
    last = np.float32(np.inf)
    for score in scores:
        highest = np.finfo(np.float32).max
        near = np.float32(np.clip(score, -highest, highest))
        with np.errstate(over="ignore"):
            last = min(near, np.nextafter(last, np.float32(-np.inf)))
        found.append(float(last))
    if not np.isfinite(found).all():
        return [-float(place) for place in range(1, len(found) + 1)]
    return found


def _lists(ranked: Ranked, users: Sequence[str]) -> Iterator[_List]:
    for user, target, rank, rows, scores in zip(
        users, ranked.targets, ranked.ranks, ranked.lists, ranked.scores, strict=True
    ):
        real = rows >= 0
        yield _List(
            user,
            int(target),
            int(rank) if np.isfinite(rank) else None,
            rows[real].tolist(),
            [float(score) for score in scores[real]],
        )


def _numbered(words: Iterator[str]) -> Iterator[str]:
    """The words, a repeated one with its number behind it."""
    times: collections.Counter[str] = collections.Counter()
    for word in words:
        times[word] += 1
        yield word if times[word] == 1 else f"{word}#{times[word]}"


def _word(text: str) -> str:
    return urllib.parse.quote(text, safe="", errors="surrogatepass") or "%00"
