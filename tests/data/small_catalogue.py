"""A small catalogue in which every word of an item's title and text belongs to that item alone."""

import numpy as np

from ilm_jax.data.catalogue.catalogue import Catalogue

ODD = "😀 naïve\t<pad> \ue000 </s>  中"


def word(number: int) -> str:
    """An invented word; no word is part of another."""
    return "q" + "".join("bcdfghklmn"[int(digit)] for digit in f"{number:05d}") + "w"


def small_catalogue(
    items: int = 60, users: int = 30, seed: int = 0, name: str = "toy"
) -> Catalogue:
    """Items with marked words; users with 1 to 12 interactions, without repeats."""
    draw = np.random.default_rng(seed)
    titles, texts, content = [], [], []
    for row in range(items):
        first, second = word(10 * row + 1), word(10 * row + 2)
        titles.append(f"{word(10 * row)} {ODD}" if row == 3 else f"{word(10 * row)} story")
        text = f"It tells of {first} and, at length, of {second}."
        start = text.index(first)
        spans = [(start, start + len(first))]
        start = text.index(second)
        spans.append((start, start + len(second)))
        texts.append(text + (ODD if row % 7 == 0 else ""))
        content.append(spans)
    lengths = np.concatenate([[1, 2, 3], draw.integers(3, 13, users - 3)])
    sequences = [draw.permutation(items)[:length] for length in lengths]
    total = int(lengths.sum())
    return Catalogue(
        name=name,
        version="0",
        item_ids=[f"i{row}" for row in range(items)],
        titles=titles,
        texts=texts,
        content=content,
        categories=[[] for _ in range(items)],
        user_ids=[f"u{user}" for user in range(users)],
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        items=np.concatenate(sequences).astype(np.int32),
        ratings=np.full(total, np.nan, np.float32),
        timestamps=np.full(total, -1, np.int64),
        ties=0,
        extras={},
    )


def words_of(catalogue: Catalogue, row: int) -> list[str]:
    """The item's own words."""
    return [catalogue.titles[row].split()[0]] + [
        catalogue.texts[row][start:end] for start, end in catalogue.content[row]
    ]
