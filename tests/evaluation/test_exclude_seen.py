"""What a user had is no candidate where that is asked for; the target always is one."""

import jax
import numpy as np
import pytest

from ilm_jax.data.catalogue.splits import make_splits
from ilm_jax.data.streams.feed import Feed
from ilm_jax.evaluation.measures import passes
from ilm_jax.evaluation.measures.passes import ModelOnMesh
from ilm_jax.evaluation.measures.ranking import RankingMeasure, histories
from ilm_jax.sharding.partitioning import MeshConfig, Partitioner
from tests.data.small_catalogue import small_catalogue
from tests.evaluation import small
from tests.training import models


@pytest.mark.slow
def test_lists_lack_exactly_the_seen_items_but_the_target(monkeypatch):
    monkeypatch.setattr(passes, "BATCH", 8)
    one = Partitioner(MeshConfig(1), devices=tuple(jax.devices()[:1]))
    feed = small.small_feed(5)
    targets = [feed.stream[i]["target_item"] for i in range(5)]
    draw = np.random.default_rng(2)
    # The first has seen nothing, the second its target and more, the others some each.
    seen = [np.zeros(0, int), np.array([3, targets[1], 39])]
    seen += [draw.choice(models.ITEMS, size, replace=False) for size in (7, 1, 12)]
    model, params = ModelOnMesh(models.ILM, one, models.table()), small.parameters(one)

    def ranked(seen):
        measure = RankingMeasure(model, feed, small.small_trie(), models.ITEMS, seen)
        return measure(params)

    everything, without = ranked(None), ranked(seen)
    for row in range(5):
        assert sorted(everything.lists[row].tolist()) == list(range(models.ITEMS))
        gone = set(seen[row].tolist()) - {targets[row]}
        # The others keep their order: nothing but the seen items is left out.
        want = [item for item in everything.lists[row].tolist() if item not in gone]
        assert without.lists[row].tolist() == want + [-1] * len(gone)
        assert without.ranks[row] == 1 + want.index(targets[row])
    assert (without.ranks <= everything.ranks).all() and (without.ranks < everything.ranks).any()


def test_an_example_is_made_once_for_all_who_ask_whose_it_is():
    made = []

    class Examples(list):
        def __getitem__(self, number):
            made.append(number)
            return super().__getitem__(number)

    feed = Feed(Examples([{"key": "k", "user": "u", "target_item": 4, "inputs": [1]}]), None)
    for _ in range(3):
        assert feed.facts(0) == {"key": "k", "user": "u", "target_item": 4}
    assert made == [0]


@pytest.mark.parametrize(("split", "left"), [("test", 1), ("validation", 2)])
def test_a_history_is_all_that_stands_before_the_target(split, left):
    splits = make_splits(small_catalogue())
    users = splits.catalogue.user_ids
    examples = [{"user": user} for user in reversed(users)]
    feed = Feed(examples, None)
    numbers = [0, 4, 2]
    found = histories(splits, feed, numbers, split)
    for number, history in zip(numbers, found, strict=True):
        sequence = splits.catalogue.sequence(len(users) - 1 - number)
        assert len(sequence) >= 3
        np.testing.assert_array_equal(history, sequence[:-left])
