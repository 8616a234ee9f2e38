"""Examples that share a row lose nothing, gain nothing, and do not see each other."""

import dataclasses
import pathlib
import pickle
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ilm_jax.data.streams.converters import PromptConverter
from ilm_jax.data.streams.packing import PackedSource, PackingConverter
from ilm_jax.data.streams.packing_plan import FIRST_STORED, Plan, Room, plan
from ilm_jax.data.streams.streams import Stream
from ilm_jax.errors import UserError
from ilm_jax.models.t5 import T5Config
from tests.data.test_converters import IDS, NO_BOS, example
from tests.training import models

LENGTHS = {"inputs": 40, "targets": 20}
ROOM = Room(60, 20, 6, 8)


def made(count=50, seed=0):
    """Prompts of different lengths with 0 to 2 slots."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        slots = int(rng.integers(0, 3))
        words = rng.integers(6, 60, int(rng.integers(3, 12))).tolist()
        inputs = words + [-1] * slots
        targets = [*rng.integers(6, 60, int(rng.integers(1, 6))).tolist(), 1]
        found.append(example(inputs, targets, slots=rng.integers(0, 30, slots)))
    return found


def as_they_are(_, rows):
    """Local rows are the table's."""
    return np.asarray(rows)


def converter(lengths=LENGTHS, **changes):
    options = {"num_queries": 4, "max_entities": 6, "rows": as_they_are}
    return PromptConverter(lengths, IDS, **{**options, **changes})


def longer():
    """To rows of twice the length, with room for more slots."""
    return converter({"inputs": 40, "targets": 80}, max_entities=14)


def test_every_example_stands_in_one_row_and_rows_hold_what_they_may():
    sizes = [
        (int(p), int(t), int(e))
        for p, t, e in np.random.default_rng(0).integers([5, 1, 0], [30, 8, 3], (500, 3))
    ]
    rows = plan(sizes, ROOM, seed=3)
    assert sorted(i for row in rows for i in row) == list(range(500))
    for row in rows:
        assert (np.array([(*sizes[i], 1) for i in row]).sum(0) <= dataclasses.astuple(ROOM)).all()
    assert rows == plan(sizes, ROOM, seed=3) != plan(sizes, ROOM, seed=4)
    least = max(np.array(sizes).sum(0) / dataclasses.astuple(ROOM)[:3])
    assert len(rows) < 1.15 * least  # close to as few as there can be


def test_an_example_that_is_more_than_a_row_is_told():
    with pytest.raises(UserError, match="example 1 needs"):
        plan([(5, 1, 0), (61, 1, 0)], ROOM, seed=0)


@pytest.mark.parametrize("room", [converter, longer], ids=["as-long", "longer"])
def test_rows_hold_the_examples_unchanged_as_segments(room):
    source, one, row = made(), converter(), room()
    packed = PackedSource(source, one, row, 16, seed=0)
    assert len(packed) < len(source) / (2 if room is converter else 4)
    batch = PackingConverter(one, row)([packed[i] for i in range(len(packed))])
    singles = one(source)
    want = {
        tuple(row["tokens"][row["segment_ids"] > 0]): row
        for row in ({n: a[i] for n, a in singles.items()} for i in range(len(source)))
    }
    seen = 0
    for i in range(len(packed)):
        row = {name: array[i] for name, array in batch.items()}
        for segment in range(1, row["segment_ids"].max() + 1):
            at = row["segment_ids"] == segment
            single = want[tuple(row["tokens"][at])]
            there = single["segment_ids"] > 0
            for name in ("targets", "loss_weights", "content_weights", "positions", "slot_query"):
                np.testing.assert_array_equal(row[name][at], single[name][there], err_msg=name)
            slots = row["slot_entity"][at]
            np.testing.assert_array_equal(
                row["entities"][slots[slots >= 0]],
                single["entities"][single["slot_entity"][single["slot_entity"] >= 0]],
            )
            seen += 1
    assert seen == len(source) and batch["loss_weights"].sum() == singles["loss_weights"].sum()


T5 = T5Config(vocab_size=64, num_layers=2, embed_dim=32, num_heads=4, mlp_dim=64)


@pytest.mark.parametrize(
    "lm", [models.LM, pytest.param(T5, marks=pytest.mark.slow)], ids=["decoder", "encoder-decoder"]
)
def test_the_loss_of_a_packed_row_is_the_sum_of_its_examples(lm):
    objective = dataclasses.replace(models.ILM, lm=lm, target_length=20)
    params = jax.tree.map(
        lambda x: x.unbox() if hasattr(x, "unbox") else x,
        objective.init(jax.random.key(0)),
        is_leaf=lambda x: hasattr(x, "unbox"),
    )
    source, one = made(12), converter()
    packed = PackedSource(source, one, one, 8, seed=0)
    rows = PackingConverter(one, one)([packed[i] for i in range(len(packed))])
    assert rows["segment_ids"].max() > 2
    loss = jax.jit(lambda batch: objective.loss(params, "prompt", batch, models.table(), None))
    apart, together = loss(one(source)), loss(rows)
    for name in apart:
        np.testing.assert_allclose(together[name].weight, apart[name].weight)
        np.testing.assert_allclose(together[name].total, apart[name].total, rtol=2e-5)


def test_packed_streams_are_functions_of_the_number():
    packed = PackedSource(made(), converter(), converter(), 4, seed=0)
    stream = Stream({"task": packed}, seed=1)
    far = stream[10**9]["packed"]
    assert len(far) >= 1
    rows = len(packed)
    for epoch in range(3):
        read = [stream[epoch * rows + i]["packed"] for i in range(rows)]
        assert sum(map(len, read)) == 50  # every example once
    keys = [
        [[e["key"] for e in stream[k * rows + i]["packed"]] for i in range(rows)] for k in (0, 1)
    ]
    assert keys[0] != keys[1]
    fresh = Stream({"task": PackedSource(made(), converter(), converter(), 4, seed=0)}, seed=1)
    assert [e["key"] for e in fresh[10**9]["packed"]] == [e["key"] for e in far]
    again = pickle.loads(pickle.dumps(Stream({"task": packed}, seed=1)))
    assert [[e["key"] for e in again[i]["packed"]] for i in range(rows)] == keys[0]


def test_the_size_of_an_example_is_that_of_its_row_and_is_not_counted_as_cut():
    bounds = [1, 3, 5, 7, 9]
    # 42 inputs are two too many: the oldest element of the history goes.
    found = [*made(30), example([7] * 42, [9] * 9, bounds=bounds), example([], [9, 8, 1])]
    for tokenizer in (IDS, NO_BOS):
        one = PromptConverter(LENGTHS, tokenizer, num_queries=4, max_entities=6, rows=as_they_are)
        sizes = [one.size(e) for e in found]
        assert not one.counts
        batch = one(found)
        assert one.counts["history"] == 1
        assert [s[0] for s in sizes] == (batch["segment_ids"] > 0).sum(1).tolist()
        assert [s[1] for s in sizes] == batch["loss_weights"].sum(1).tolist()
        assert [s[2] for s in sizes] == (batch["slot_entity"].max(1) + 1).tolist()


SIZES = [
    (int(p), int(t), int(e))
    for p, t, e in np.random.default_rng(1).integers([5, 1, 0], [30, 8, 3], (20_000, 3))
]


def planned(read, file=None, sizes=SIZES):
    """A plan that notes which examples it reads."""

    def size(example):
        read.append(example)
        return sizes[example]

    return Plan(size, len(sizes), ROOM, seed=0, file=file)


def test_a_row_waits_for_its_own_examples_alone():
    read = []
    made = planned(read)
    assert not read
    first = [made.row(number) for number in range(10)]
    assert len(read) < 500
    assert made.about() == pytest.approx(made.rows(), rel=0.03) and len(read) == len(SIZES)
    assert first == plan(SIZES, ROOM, seed=0)[:10] == [made.row(number) for number in range(10)]
    assert made.row(made.rows()) is None


@given(st.integers(1, 300), st.lists(st.integers(0, 120), max_size=20))
def test_rows_are_the_same_whoever_asks_for_which_first(count, asked):
    made = planned([], sizes=SIZES[:count])
    whole = plan(SIZES[:count], ROOM, seed=0)
    for number in asked:
        assert made.row(number) == (whole[number] if number < len(whole) else None)
    assert made.rows() == len(whole) and made.about() == len(whole)


def test_a_stopped_plan_goes_on_where_it_was_stored(tmp_path):
    read, file = [], tmp_path / "plan.npz"
    whole = plan(SIZES, ROOM, seed=0)
    planned(read, file).row(2000)
    assert len(read) > FIRST_STORED and file.exists()
    again = []
    resumed = planned(again, file)
    assert resumed.row(0) == whole[0] and not again
    assert resumed.row(2000) == whole[2000] and len(again) <= len(read) - FIRST_STORED
    assert [resumed.row(number) for number in range(resumed.rows())] == whole
    third = []
    assert planned(third, file).rows() == len(whole) and not third


def test_threads_that_ask_at_once_get_the_same_rows():
    made, whole = planned([]), plan(SIZES, ROOM, seed=0)
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(made.row, [*range(800), *range(800)])) == [*whole[:800], *whole[:800]]


class Stored(list):
    """Examples with a folder, as a cached task."""

    path: pathlib.Path
    read = 0

    def __getitem__(self, index):
        self.read += 1
        return super().__getitem__(index)


def test_a_plan_is_stored_with_the_task_and_made_again_where_anything_differs(tmp_path, capfd):
    def packed(examples=8, seed=0, count=50, **changes):
        source = Stored(made(count))
        source.path = tmp_path
        one = converter(**changes)
        found = PackedSource(source, one, one, examples, seed)
        return [found._plan.row(i) for i in range(len(found))], source.read

    first, read = packed()
    assert read == 50 and "packing: " in capfd.readouterr().err
    again, read = packed()
    assert again == first and not read and not capfd.readouterr().err
    for changes in ({"examples": 2}, {"seed": 1}, {"num_queries": 3}, {"max_entities": 2}):
        other, read = packed(**changes)
        assert other != first and read == 50, changes
    files = sorted(tmp_path.iterdir())
    assert len(files) == 5 and not [f for f in files if "tmp" in f.name]
    for file in files:
        file.write_bytes(file.read_bytes()[:200])
    assert packed() == (first, 50)  # a damaged plan is made again
    assert packed(count=49)[1] == 49  # and so is one of another number of examples
