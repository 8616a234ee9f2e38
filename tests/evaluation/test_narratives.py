"""Texts behind items: each behind its own, and true where it names what its item is like."""

import dataclasses

import jax
import numpy as np
import pytest

from ilm_jax.data.examples.mentions import with_item
from ilm_jax.data.streams.feed import Feed
from ilm_jax.evaluation.measures import passes
from ilm_jax.evaluation.measures.generation import Generated, GenerationMeasure
from ilm_jax.evaluation.measures.narratives import Marked, NarrativeMeasure
from ilm_jax.evaluation.measures.passes import ModelOnMesh
from ilm_jax.models.readers import MLPReader
from ilm_jax.objectives.language import LanguageModelling
from ilm_jax.sharding.partitioning import Partitioner
from ilm_jax.sharding.state import describe_variables, initialise, nested
from tests.data.small_catalogue import small_catalogue, words_of
from tests.evaluation import small
from tests.training import models


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(passes, "BATCH", 8)


def test_every_text_is_written_behind_its_own_item():
    partitioner, feed = Partitioner(), small.small_feed(12)
    made = LanguageModelling(models.LM, MLPReader(models.QFORMER))
    model = ModelOnMesh(made, partitioner, models.table())
    variables = describe_variables(made)
    drawn = initialise(made, variables, list(variables), partitioner, jax.random.key(0))
    # Soft tokens that no model overhears, and words that are told apart.
    params = nested({path: x * (8 if "embed" in path else 3) for path, x in drawn.items()})
    measure = NarrativeMeasure(model, feed, small.TOKENIZER, 4)
    numbers, items = np.array([11, 3, 7, 0]), np.array([5, 5, 30, 1])
    found = measure(params, numbers, items)
    assert found.index.tolist() == [0, 3, 7, 11]
    # By examples that hold their items from the start.
    written = [with_item(small.example(n), i) for n, i in ((0, 1), (3, 5), (7, 30), (11, 5))]
    longer = Feed(small.Examples(written), feed.converter.with_room_for_an_item())
    want = GenerationMeasure(model, longer, small.TOKENIZER, 4)(params)
    assert found.predictions == want.predictions
    # The same program, other items.
    again = measure(params, numbers, items[::-1])
    assert again.predictions != found.predictions


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


def test_the_floor_is_of_other_items_and_there_is_none_where_all_texts_are_of_one():
    catalogue = small_catalogue()
    marked = Marked(catalogue)
    own, other = (words_of(catalogue, row)[1] for row in (4, 8))
    texts = [own, own, other, own]

    def found(texts, rows):
        return marked.evaluation(Generated(np.arange(len(texts)), [], texts, texts, 1.0), rows)

    assert found(texts, [4, 4, 8, 4]).totals == {"true_words_floor": 0.0}
    for texts, rows in ((["", own], [4, 4]), ([own], [4])):
        one = found(texts, rows)
        assert [metric.name for metric in one.metrics] == ["true_words"] and not one.totals
        assert "all texts are of one item" in one.missing["true_words_floor"]
