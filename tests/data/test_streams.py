import pickle
import time
from collections import Counter

import grain
import pytest

from ilm_jax.data.streams.streams import Epochs, Mixture, Stream
from ilm_jax.errors import UserError


class Numbers:
    def __init__(self, name, size):
        self.name, self.size = name, size

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        return {"key": f"{self.name}{index}"}


def source(name, size):
    return {name: Numbers(name, size)}


def keys(stream, start, stop):
    return [stream[i]["key"] for i in range(start, stop)]


def test_each_epoch_is_an_order_of_its_own():
    stream = Stream(source("a", 50), seed=3)
    epochs = [keys(stream, 50 * k, 50 * k + 50) for k in range(3)]
    assert all(sorted(epoch) == sorted(f"a{i}" for i in range(50)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]
    assert stream.len_epoch == 50


@pytest.mark.parametrize("size", [1, 2, 50, 70_001])
def test_the_order_is_that_of_grains_shuffle_and_repeat(size):
    numbers = grain.MapDataset.range(size)
    ours, theirs = Epochs(numbers, 7), numbers.shuffle(seed=7).repeat()
    places = [*range(120), size - 1, size, 3 * size + 1, 10**9]
    assert [ours[i] for i in places] == [theirs[i] for i in places]
    assert [Epochs(numbers, None)[i] for i in places] == [i % size for i in places]


def test_example_i_depends_on_nothing_but_seed_and_i():
    sources = source("a", 40) | source("b", 70)
    forward = keys(Stream(sources, seed=1), 0, 300)
    again = Stream(sources, seed=1)
    assert [again[i]["key"] for i in reversed(range(300))] == forward[::-1]
    assert keys(pickle.loads(pickle.dumps(again)), 100, 110) == forward[100:110]
    assert keys(Stream(sources, seed=2), 0, 300) != forward


def test_a_source_keeps_its_order_whatever_it_is_mixed_with():
    alone = keys(Stream(source("a", 40), seed=1), 0, 40)
    sources = source("a", 40) | source("b", 70)
    mixed = keys(Stream(sources, Mixture({"a": 1, "b": 3}), seed=1), 0, 160)
    assert [key for key in mixed if key.startswith("a")] == alone


def test_reading_far_ahead_costs_no_more():
    stream = Stream(source("a", 40) | source("b", 70), seed=1)
    stream[0]
    start = time.perf_counter()
    assert stream[10**12]["task"] in "ab"
    assert time.perf_counter() - start < 0.5


def test_a_mixture_keeps_its_shares_in_every_window():
    sources = source("a", 10) | source("b", 1000)
    stream = Stream(sources, Mixture({"a": 3, "b": 1}), seed=0)
    for start in (0, 777, 10**9):
        window = Counter(stream[i]["task"] for i in range(start, start + 400))
        assert abs(window["a"] - 300) <= 2


def test_weights_are_t5s():
    sizes = {"a": 100, "b": 10_000}
    assert Mixture({"a": None, "b": None}).weights(sizes)["a"] == pytest.approx(100 / 10_100)
    capped = Mixture({"a": None, "b": None}, cap=300).weights(sizes)
    assert capped["a"] == pytest.approx(0.25)
    warm = Mixture({"a": None, "b": None}, temperature=2.0).weights(sizes)
    assert warm["a"] == pytest.approx(10 / 110)
    assert Mixture({"a": 1.0, "b": 3.0}, temperature=9).weights(sizes)["a"] == pytest.approx(0.25)


def test_evaluation_is_one_pass_in_order():
    stream = Stream(source("a", 3) | source("b", 2), shuffle=False, repeat=False)
    assert len(stream) == 5 and keys(stream, 0, 5) == ["a0", "a1", "a2", "b0", "b1"]
    for outside in (5, -1):
        with pytest.raises(IndexError):
            stream[outside]


def test_a_drawn_transform_depends_on_the_number_alone():
    def draw(example, rng):
        return {**example, "draw": int(rng.integers(1 << 30))}

    stream = Stream(source("a", 5), seed=4, transform=draw)
    first = [stream[i]["draw"] for i in range(20)]
    assert [stream[i]["draw"] for i in reversed(range(20))] == first[::-1]
    assert len(set(first)) == 20


@pytest.mark.parametrize(
    ("sources", "mixture"),
    [
        (source("a", 0), None),
        ({}, None),
        (source("a", 3), {"rates": {"b": 1}}),
        (source("a", 3), {"rates": {"a": 0}}),
        (source("a", 3), {"rates": {"a": float("nan")}}),
        (source("a", 3), {"rates": {"a": None}, "temperature": 0}),
        (source("a", 3), {"rates": {"a": None}, "temperature": 1e-6}),
        (source("a", 3), {"rates": {"a": None}, "cap": 0}),
    ],
)
def test_a_mixture_that_cannot_be_is_refused(sources, mixture):
    with pytest.raises(UserError):
        Stream(sources, None if mixture is None else Mixture(**mixture))


def test_every_task_is_shuffled_by_its_own_name_and_the_runs_seed():
    both = source("a", 60) | source("b", 60)
    orders = {
        (name, seed): [key[1:] for key in keys(Stream({name: both[name]}, seed=seed), 0, 60)]
        for name in both
        for seed in (1, 2)
    }
    for name, seed in orders:
        assert sorted(orders[name, seed], key=int) == [str(i) for i in range(60)]
    assert len({tuple(order) for order in orders.values()}) == 4


def test_a_size_is_capped_before_its_root_is_taken():
    """T5's r_m = min(e_m, K)^(1/T), section 3.5.2: the cap is of examples, not of rates."""
    sizes = {"a": 10_000, "b": 400, "c": 25}
    found = Mixture(dict.fromkeys(sizes), temperature=2.0, cap=900).weights(sizes)
    rates = {"a": 30.0, "b": 20.0, "c": 5.0}
    assert found == pytest.approx({name: rate / 55 for name, rate in rates.items()})
