"""An item and, behind its soft tokens, a text in one row: the item is asked for unseen."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ilm_jax.cf.item_rows import ItemRows
from ilm_jax.data.examples.prompts import ITEM_SLOT
from ilm_jax.data.streams.converters import PromptConverter
from ilm_jax.data.streams.item_targets import ItemTargets
from ilm_jax.models.readers import MLPReader
from ilm_jax.objectives.heads import TextHead
from ilm_jax.objectives.item_head import ItemHead
from ilm_jax.objectives.language import LanguageModelling
from ilm_jax.sharding.partitioning import MeshConfig, Partitioner
from ilm_jax.sharding.state import describe_variables, initialise, nested
from tests.evaluation import small
from tests.training import models

ROWS = ItemRows("toy", 0, models.ITEMS, np.ones(models.ITEMS, int))
LM = dataclasses.replace(models.LM, num_layers=1)
TARGETS = 8  # positions of answers: four of the item's soft tokens, and words


def objective(item=1.0, text=1.0, window=TARGETS):
    reader = MLPReader(models.QFORMER)
    heads = (ItemHead(weight=item), TextHead(weight=text))
    made = LanguageModelling(LM, reader, heads=heads)
    return made.with_sizes(cf_dim=models.CF, target_length=window, items=(ROWS,))


@functools.cache
def parameters(sizes=(1,)):
    devices = tuple(jax.devices()[: int(np.prod(sizes))])
    partitioner = Partitioner(MeshConfig(*sizes), devices=devices)
    made = objective()
    variables = describe_variables(made)
    return nested(initialise(made, variables, list(variables), partitioner, jax.random.key(0)))


def example(number):
    """Every third answer ends at its item."""
    found = {**small.example(number), "task": "next"}
    words = [7 + number, 9 + number, 2] if number % 3 else []
    return found | {
        "targets": np.array([ITEM_SLOT, *words], np.int32),
        "targets_content": np.array([0, 1, 1, 0][: 1 + len(words)], np.int32),
    }


@functools.cache
def batch():
    converter = PromptConverter(
        {"inputs": 16, "targets": TARGETS},
        small.TOKENIZER,
        num_queries=models.QFORMER.num_queries,
        max_entities=3,
        rows=lambda block, rows: np.asarray(rows, np.int64),
        items=ItemTargets(frozenset({"next"})),
    )
    return {name: jnp.asarray(x) for name, x in converter([example(n) for n in range(8)]).items()}


@functools.cache
def losses(made):
    """Compiled: metrics as (sum, weight)."""
    table = jnp.asarray(models.table())

    def found(params, given):
        sums = made.loss(params, "prompt", given, table, None)
        return {name: (value.total, value.weight) for name, value in sums.items()}

    return jax.jit(found)


def test_the_place_where_an_item_is_asked_for_sees_nothing_of_it():
    made, given = objective(), batch()
    before = losses(made)(parameters(), given)
    # The item's soft tokens are those of another one, and the words behind it others.
    slots = np.asarray(given["slot_entity"])
    places = np.asarray(given["item_positions"])
    behind = np.arange(slots.shape[1]) > places
    assert (slots[behind] >= 0).any()
    other = np.asarray(given["entities"]).copy()
    other[:, 2] = np.where(other[:, 2] >= 0, (other[:, 2] + 5) % models.ITEMS, -1)
    words = np.where(behind & (slots < 0), 11, np.asarray(given["tokens"]))
    for name, changed in (("entities", other), ("tokens", words)):
        after = losses(made)(parameters(), {**given, name: jnp.asarray(changed)})
        assert before["item_loss"] == after["item_loss"], name
        assert abs(float(before["nll_content"][0] - after["nll_content"][0])) > 1e-4, name


def test_every_row_asks_for_an_item_and_only_narratives_count_as_text():
    found = losses(objective())(parameters(), batch())
    assert float(found["item_loss"][1]) == 8
    assert float(found["nll_content"][1]) == 2 * 5
    assert float(batch()["loss_weights"].sum()) == 3 * 5


def test_hidden_states_are_read_where_they_are_needed_and_nowhere_else():
    short, whole = (losses(objective(window=w))(parameters(), batch()) for w in (4, None))
    for name, (total, weight) in whole.items():
        np.testing.assert_allclose(short[name][0], total, rtol=1e-5, err_msg=name)
        assert short[name][1] == weight
    cut = losses(objective(window=3))(parameters(), batch())  # a row has four such places
    assert cut["loss"][0] != whole["loss"][0]


@pytest.mark.parametrize(("item", "text"), [(1.0, 0.5), (0.25, 2.0)])
def test_the_loss_is_the_weighted_sum_of_both_means(item, text):
    made, given = objective(item, text), batch()
    (total, weight) = losses(made)(parameters(), given)["loss"]
    means = []
    for head in made.heads:
        alone = dataclasses.replace(made, heads=(dataclasses.replace(head, weight=1.0),))
        (own, count) = losses(alone)(parameters(), given)["loss"]
        means.append(own / count)
    np.testing.assert_allclose(total / weight, item * means[0] + text * means[1], rtol=1e-5)


@pytest.mark.parametrize("lacks", ["item", "text"])
def test_a_batch_without_targets_for_one_head_still_trains_the_other(lacks):
    """And what weighs less than one is divided by its own weight, as the other is."""
    made, given = objective(1.0, 0.5), dict(batch())
    if lacks == "item":
        given["item_targets"] = -np.ones_like(given["item_targets"])
    else:
        given |= {name: 0 * given[name] for name in ("loss_weights", "content_weights")}
    (total, weight) = losses(made)(parameters(), given)["loss"]
    head = made.heads[lacks == "item"]
    alone = dataclasses.replace(made, heads=(dataclasses.replace(head, weight=1.0),))
    (own, count) = losses(alone)(parameters(), given)["loss"]
    assert count > 0
    np.testing.assert_allclose(total / weight, head.weight * own / count, rtol=1e-5)
    assert weight == count


def test_losses_and_gradients_on_eight_devices_are_those_on_one():
    made, found = objective(), []

    def loss(params, given, table):
        sums = made.loss(params, "prompt", given, table, None)["loss"]
        return sums.total / sums.weight

    for sizes in ((1,), (2, 2, 2)):
        devices = tuple(jax.devices()[: int(np.prod(sizes))])
        partitioner = Partitioner(MeshConfig(*sizes), devices=devices)
        params = parameters(sizes)
        given = partitioner.global_batch({n: np.asarray(x) for n, x in batch().items()}, 8)
        table = jax.device_put(models.table(), partitioner.replicated)
        with partitioner.context():
            value, slope = jax.jit(jax.value_and_grad(loss))(params, given, table)
        found.append((np.asarray(value), jax.tree.map(np.asarray, slope)))
    (one, of_one), (eight, of_eight) = found
    np.testing.assert_allclose(eight, one, rtol=1e-5)
    for (path, a), b in zip(
        jax.tree.leaves_with_path(of_one), jax.tree.leaves(of_eight), strict=True
    ):
        np.testing.assert_allclose(b, a, atol=1e-5 * max(1, np.abs(a).max()), err_msg=str(path))
