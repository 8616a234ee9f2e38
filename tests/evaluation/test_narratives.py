"""Texts behind items: each behind its own, and true where it names what its item is like."""

import dataclasses

import numpy as np

from ilm_jax.evaluation.measures.generation import Generated
from ilm_jax.evaluation.measures.narratives import Marked
from tests.data.small_catalogue import small_catalogue, words_of


def test_true_words_are_those_of_the_item_among_the_words_that_tell_items_apart():
    catalogue = small_catalogue()
    catalogue = dataclasses.replace(
        catalogue,
        categories=[[f"Shelf {words_of(catalogue, 9)[1]}"] if r == 4 else [] for r in range(60)],
    )
    marked = Marked(catalogue)
    _, first, second = words_of(catalogue, 4)
    other = words_of(catalogue, 8)[1]
    texts = [
        f"It is {first.upper()} and {second}.",
        f"It is {first}, {other}.",
        "It tells at length of nothing.",
        f"{other} {first}",
        words_of(catalogue, 9)[1],  # on the item's shelf
    ]
    assert marked.truth(texts, [4, 4, 4, 8, 4]).tolist() == [1, 0.5, 0, 0.5, 1]
    written = Generated(np.arange(2), [], texts[:2], texts[:2], 1.0)
    found = marked.evaluation(written, [4, 8])
    (metric,) = found.metrics
    assert metric.name == "true_words" and metric.values.tolist() == [1, 0.5]
    assert found.totals == {"true_words_floor": 0.25}  # 0 of item 8, half of item 4
    plain = Marked(dataclasses.replace(catalogue, content=[[] for _ in catalogue.content]))
    assert "no item has marked words" in plain.evaluation(written, [4, 4]).missing["true_words"]
