"""Semantic ids: items' codes made unique, and what is counted of them.

Items whose vectors get the same code are set apart by one more number, their place among each other
in the order of the hashes of their raw ids (Rajput et al. 2023, arXiv 2305.05065, section 3.1, have
such a number too; that every item has one, so that all names are equally long, is ours). It says
nothing of who chose them.
"""

import collections
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Int32

from ilm_jax.data.examples.item_codes import ItemCodes
from ilm_jax.errors import UserError

Codes = Int32[np.ndarray, "items levels"]


def with_places(
    codes: Codes, item_ids: Sequence[str], kept: Mapping[str, tuple[int, ...]] | None = None
) -> Codes:
    """The codes with a last number that sets equal ones apart.

    Args:
      codes: of all items.
      item_ids: raw ids, by whose hashes equal codes are ordered.
      kept: whole codes by raw id of items that have theirs already; they stay as they are, and
        others take places that are free.
    """
    kept = kept or {}
    taken: dict[tuple[int, ...], set[int]] = collections.defaultdict(set)
    for code in kept.values():
        taken[code[:-1]].add(code[-1])
    places = np.zeros(len(codes), np.int32)
    digests = [hashlib.sha256(raw.encode()).digest() for raw in item_ids]
    rows = [tuple(row) for row in codes.tolist()]
    following: dict[tuple[int, ...], int] = {}
    for row in sorted(range(len(codes)), key=digests.__getitem__):
        if item_ids[row] in kept:
            continue
        place, there = following.get(rows[row], 0), taken[rows[row]]
        while place in there:
            place += 1
        places[row], following[rows[row]] = place, place + 1
    found = np.concatenate([codes, places[:, None]], axis=1).astype(np.int32)
    for row, raw in enumerate(item_ids):
        if raw in kept:
            found[row] = kept[raw]
    return found


def last_size(codes: Codes, least: int, most: int | None = None) -> int:
    """Numbers of the last level: as many as are needed, and at least `least`.

    Raises:
      UserError: if more than `most` are needed.
    """
    needed = int(codes[:, -1].max(initial=0)) + 1
    if most is not None and needed > most:
        raise UserError(
            f"{needed} items share a code, and its last level has {most} numbers: make the codes "
            "of the whole catalogue anew, with a larger --collision_tokens"
        )
    return max(needed, least)


def statistics(
    codes: Codes, sizes: Sequence[int], left: Sequence[float], cold: Bool[np.ndarray, " items"]
) -> dict[str, Any]:
    """What is counted of whole codes, as plain values.

    Args:
      codes: the last level included.
      sizes: of all levels.
      left: share of the vectors' squares that is left behind each level but the last.
      cold: items without a vector, which get the code of the mean.

    Returns:
      "levels": of each but the last, its size, how many codes are used, their perplexity (the
      exponential of their entropy over items, in nats) and `left`; "colliding": share of the items
      whose code is another's too before the last level, "colliding_warm": the same among items with
      vectors; "largest": items of the most frequent code; "last": numbers of the last level.
    """
    levels = []
    for level, (size, share) in enumerate(zip(sizes, left, strict=False)):
        counts = np.bincount(codes[:, level], minlength=size)
        p = counts[counts > 0] / max(1, len(codes))
        levels.append(
            {
                "size": int(size),
                "used": int((counts > 0).sum()),
                "perplexity": round(float(np.exp(-(p * np.log(p)).sum())), 2),
                "left": round(float(share), 4),
            }
        )
    warm = codes[~cold]
    return {
        "items": len(codes),
        "cold": int(cold.sum()),
        "levels": levels,
        "colliding": _colliding(codes[:, :-1]),
        "colliding_warm": _colliding(warm[:, :-1]),
        "largest": _largest(codes[:, :-1]),
        "last": int(sizes[-1]),
    }


def _counts(codes: Codes) -> np.ndarray:
    return np.unique(codes, axis=0, return_counts=True)[1]


def _colliding(codes: Codes) -> float:
    counts = _counts(codes)
    return round(float(counts[counts > 1].sum()) / max(1, len(codes)), 6)


def _largest(codes: Codes) -> int:
    return int(_counts(codes).max(initial=0))


def report(codes: ItemCodes) -> str:
    """The statistics as a table for people."""
    said = codes.statistics
    rows: list[tuple[str, ...]] = [("level", "codes", "used", "perplexity", "left")]
    for level, at in enumerate(said["levels"]):
        name = chr(ord("a") + level)
        rows.append((name, *(str(at[key]) for key in ("size", "used", "perplexity", "left"))))
    rows.append((chr(ord("a") + len(said["levels"])), str(said["last"]), "", "", ""))
    lines = ["".join(f"{cell:>12}" for cell in row).rstrip() for row in rows]
    lines.append(
        f"{said['items']} items, {said['cold']} of them without a vector; before the last level "
        f"{said['colliding']:.2%} share their code with another ({said['colliding_warm']:.2%} of "
        f"those with vectors), at most {said['largest']} one code; with it all are different"
    )
    return "\n".join(lines)
