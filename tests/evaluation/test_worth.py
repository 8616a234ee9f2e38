"""What vectors are worth: nll with another item's in their place, less nll with the item's own."""

import dataclasses

import jax
import numpy as np
import pytest

from ilm_jax.data.examples.prompts import USER_SLOT
from ilm_jax.evaluation.measures.language import (
    LanguageMeasure,
    LanguageResult,
    language_evaluation,
)
from ilm_jax.evaluation.measures.passes import ModelOnMesh
from ilm_jax.evaluation.measures.worth import NO_OTHER, NO_VECTORS, partners
from ilm_jax.models.readers import PromptReader
from ilm_jax.sharding.partitioning import MeshConfig, Partitioner
from ilm_jax.sharding.state import describe_variables, initialise, nested
from tests.evaluation import small
from tests.training import models

ONE = Partitioner(MeshConfig(1), devices=tuple(jax.devices()[:1]))
NUMBERS = np.arange(11)


def test_every_item_of_the_texts_stands_for_one_other_of_its_kind():
    feed = small.small_feed()
    for number, example in enumerate(feed.stream[:3]):
        example["inputs"] = np.where(example["inputs"] < 0, USER_SLOT, example["inputs"])
        example["slots"] = models.ITEMS + 2 * number + np.arange(2, dtype=np.int32)
    rows = partners(feed, NUMBERS, models.ITEMS + 8).rows
    users = set(range(models.ITEMS, models.ITEMS + 6))
    items = {int(row) for number in range(3, 11) for row in feed.stream[number]["slots"]}
    for kind in (users, items):
        assert {int(rows[row]) for row in kind} == kind and all(rows[row] != row for row in kind)
    outside = np.setdiff1d(np.arange(models.ITEMS + 8), [*items, *users])
    np.testing.assert_array_equal(rows[outside], outside)
    again = partners(feed, NUMBERS, models.ITEMS + 8).rows
    np.testing.assert_array_equal(rows, again)


def test_where_nobody_can_stand_in_it_says_why():
    feed = small.small_feed(2)
    for example in feed.stream:
        example["slots"] = np.array([5, 5], np.int32)
    assert partners(feed, np.arange(2), models.ITEMS) == (None, NO_OTHER)
    for example in feed.stream:
        example["inputs"], example["slots"] = np.array([7], np.int32), np.array([], np.int32)
    assert partners(feed, np.arange(2), models.ITEMS) == (None, NO_VECTORS)


def parameters(objective):
    variables = describe_variables(objective)
    drawn = initialise(objective, variables, list(variables), ONE, jax.random.key(0))
    return nested({path: 8 * x for path, x in drawn.items()})


def test_worth_is_the_difference_in_nll_of_the_same_texts():
    feed, model = small.small_feed(11), ModelOnMesh(models.ILM, ONE, models.table())
    params = parameters(models.ILM)
    rows = partners(feed, NUMBERS, models.ITEMS).rows
    result = LanguageMeasure(model, feed, rows)(params, NUMBERS)
    own = LanguageMeasure(model, feed)(params, NUMBERS)
    assert own.swapped is None
    np.testing.assert_allclose(own.nll_sum, result.nll_sum, rtol=1e-5)
    for example in feed.stream:
        example["slots"] = rows[example["slots"]]
    other = LanguageMeasure(model, feed)(params, NUMBERS)
    np.testing.assert_allclose(result.swapped.nll_sum, other.nll_sum, rtol=1e-5)

    measured = language_evaluation(result)
    metrics = {metric.name: metric for metric in measured.metrics}
    assert list(metrics) == ["nll", "nll_content", "worth", "worth_content"]
    assert metrics["worth"].higher_is_better and not metrics["nll"].higher_is_better
    assert measured.numbers["worth"] == pytest.approx(other.nll - own.nll, rel=1e-3)
    content = other.nll_content - own.nll_content
    assert measured.numbers["worth_content"] == pytest.approx(content, rel=1e-3)
    interval = metrics["worth"].interval()
    assert interval.low < interval.mean < interval.high and interval.units == 11


def test_a_prompt_that_is_the_same_for_all_items_is_worth_nothing():
    objective = dataclasses.replace(models.ILM, reader=PromptReader(models.QFORMER))
    feed, model = small.small_feed(11), ModelOnMesh(objective, ONE, models.table())
    rows = partners(feed, NUMBERS, models.ITEMS).rows
    result = LanguageMeasure(model, feed, rows)(parameters(objective), NUMBERS)
    np.testing.assert_array_equal(result.swapped.nll_sum, result.nll_sum)
    assert language_evaluation(result).numbers["worth"] == 0


def test_a_model_without_vectors_has_no_worth_and_says_so():
    one = np.ones(3)
    measured = language_evaluation(LanguageResult(np.arange(3), one, one, one, one), NO_VECTORS)
    assert set(measured.numbers) == {"nll", "nll_content"}
    assert measured.missing == {"worth": NO_VECTORS, "worth_content": NO_VECTORS}
