"""Tasks that take turns, and renderings drawn anew in every epoch: functions of seed and number."""

import pickle
from collections import Counter

import numpy as np
import pytest

from ilm_jax.data.streams.dataset_config import DatasetConfig
from ilm_jax.data.streams.redrawing import Draw, Renderings
from ilm_jax.data.streams.streams import Mixture, Stream
from ilm_jax.errors import UserError
from tests.data.test_streams import Numbers, keys, source

VARIANTS, COUNT, EXAMPLES = 10, 3, 60


def drawing(seed=0, block=0, *names):
    sources = {
        name: Renderings(Numbers(name, EXAMPLES * VARIANTS), VARIANTS, COUNT, name)
        for name in names or ("a",)
    }
    return Stream(sources, seed=seed, block=block, transform=Draw(sources))


def test_tasks_take_turns_of_a_block_and_a_small_one_starts_over():
    stream = Stream(source("a", 5) | source("b", 12), block=4)
    tasks = [stream[i]["task"] for i in range(32)]
    assert "".join(tasks) == ("aaaabbbb" * 4)
    seen = Counter(keys(stream, 0, 40))
    assert {seen[f"a{i}"] for i in range(5)} == {4}
    assert sum(seen[f"b{i}"] for i in range(12)) == 20 and max(seen.values()) == 4
    assert stream.weights == {"a": 0.5, "b": 0.5}
    again = pickle.loads(pickle.dumps(stream))
    assert [again[i]["key"] for i in reversed(range(40))] == keys(stream, 0, 40)[::-1]
    assert again[10**12]["task"] == "a"


def test_turns_are_equal():
    with pytest.raises(UserError, match="tasks that take turns have equal shares"):
        Stream(source("a", 5) | source("b", 5), Mixture({"a": 1, "b": 2}), block=2)
    alone = keys(Stream(source("a", 5), seed=1, block=2), 0, 10)
    assert alone == keys(Stream(source("a", 5), seed=1), 0, 10)


def epochs(stream, count):
    size = EXAMPLES * COUNT
    return [[int(k[1:]) for k in keys(stream, n * size, (n + 1) * size)] for n in range(count)]


def test_every_epoch_has_as_many_renderings_of_each_example_and_others():
    first, second = epochs(drawing(), 2)
    for epoch in (first, second):
        assert set(Counter(k // VARIANTS for k in epoch).values()) == {COUNT}
    assert drawing().len_epoch == EXAMPLES * COUNT
    assert sorted(first) != sorted(second)
    assert epochs(drawing(), 1) == [first] and epochs(drawing(seed=1), 1) != [first]


def test_all_renderings_are_drawn_alike_and_each_by_itself():
    drawn = np.array(epochs(drawing(), 30)).reshape(-1) % VARIANTS
    counts = np.bincount(drawn, minlength=VARIANTS)
    expected = len(drawn) / VARIANTS
    assert ((counts - expected) ** 2 / expected).sum() < 30  # chi squared of 9 degrees
    (first,) = epochs(drawing(), 1)
    together = Counter(Counter(first).values())
    # Three draws of ten: two are alike with probability 0.28.
    repeated = sum(count for times, count in together.items() if times > 1)
    assert 5 <= repeated <= 30


def test_tasks_by_turns_are_drawn_too():
    stream = drawing(0, 8, "a", "b")
    tasks = [stream[i]["task"] for i in range(32)]
    assert "".join(tasks) == ("aaaaaaaabbbbbbbb" * 2)
    assert all(stream[i]["key"].startswith(stream[i]["task"]) for i in range(32))


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(UserError, match="601 renderings are not 10 of each example"):
        Renderings(Numbers("a", 601), VARIANTS, COUNT, "a")
    lengths = {"inputs": 9, "targets": 9}
    with pytest.raises(UserError, match="redraw and pack"):
        DatasetConfig("sequential_random", lengths, redraw=3, pack=4).build()
    with pytest.raises(UserError, match="item_text has one rendering"):
        from ilm_jax.objectives.alignment_kinds import KINDS

        DatasetConfig("item_text", {"text": 9}, redraw=3).build(
            lambda _, rows: rows, layout=KINDS["item_text"].layout
        )


def test_a_record_says_how_examples_are_drawn():
    said = DatasetConfig("sequential_random", {}, redraw=3, block=16).record()
    assert (said["redraw"], said["block"]) == (3, 16)
