"""A tiny catalogue with two tastes, for the tests of this folder."""

from collections.abc import Callable

import numpy as np
import pytest

from ilm_jax.data.catalogue.catalogue import Catalogue
from ilm_jax.data.catalogue.splits import SplitConfig, Splits, make_splits


def make_two_tastes(users: int = 60, items: int = 24, name: str = "tiny", seed: int = 0) -> Splits:
    """Even users like the first half of the items, odd ones the second; the last item is cold."""
    draw = np.random.default_rng(seed)
    half = (items - 1) // 2
    sequences = [
        draw.permutation(half)[: 4 + user % 5] + half * (user % 2) for user in range(users - 1)
    ]
    sequences.append(np.array([0, 1]))  # too short to have targets
    rows = np.concatenate(sequences).astype(np.int32)
    catalogue = Catalogue(
        name=name,
        version="1.0.0",
        item_ids=[f"i{row}" for row in range(items)],
        titles=["title"] * items,
        texts=["text"] * items,
        content=[[] for _ in range(items)],
        categories=[[] for _ in range(items)],
        user_ids=[f"u{row}" for row in range(users)],
        offsets=np.cumsum([0, *map(len, sequences)]).astype(np.int64),
        items=rows,
        ratings=np.full(len(rows), np.nan, np.float32),
        timestamps=np.full(len(rows), -1, np.int64),
        ties=0,
        extras={},
    )
    return make_splits(catalogue, SplitConfig(held_out_items=0.0))


@pytest.fixture
def two_tastes() -> Callable[..., Splits]:
    """`make_two_tastes`, which takes the sizes, the name and the seed."""
    return make_two_tastes
