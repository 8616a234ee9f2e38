"""Examples that are made when they are read are those of the caches and of SeqIO, bit for bit."""

import os
import pickle
import subprocess
import sys

import numpy as np
import pytest

from ilm_jax.cli import cache_tasks
from ilm_jax.data.examples.memo import Memo
from ilm_jax.data.examples.settings_json import settings_json
from ilm_jax.data.examples.task_families import spec_named, task_specs
from ilm_jax.data.examples.task_settings import SPLITS, TaskSettings
from ilm_jax.data.sources import toy
from ilm_jax.data.sources.prepare import catalogue_dir
from ilm_jax.data.streams import on_demand, records
from ilm_jax.data.streams.cached_task import CachedTask
from ilm_jax.data.streams.dataset_config import DatasetConfig
from ilm_jax.data.streams.on_demand import OnDemandTask
from ilm_jax.data.streams.records import as_decoded, decode_record, encode_record
from ilm_jax.data.streams.tasks_on_disk import open_tasks
from ilm_jax.errors import UserError
from ilm_jax.objectives.alignment_kinds import KINDS
from tests.tasks.test_versions import codes, world

SETTINGS = TaskSettings(history=3, variants=2, mention_user="slot")
TASKS = list(task_specs())
PLAIN = SETTINGS.replace(variants=1)
CACHED = ("long_description", "sequential_random", "user_item", "corpus/text")


def settings_of(task):
    return SETTINGS.replace(item_codes=codes()) if "semantic" in task else SETTINGS


def as_bytes(spec, example):
    return encode_record(spec.features, example)


def same(left, right):
    assert left.keys() == right.keys()
    for name, value in left.items():
        assert type(value) is type(right[name]), name
        assert np.array_equal(value, right[name]), name
        if isinstance(value, np.ndarray):
            assert value.dtype == right[name].dtype and not value.flags.writeable


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A cache folder with a catalogue of which every task has examples in every split."""
    folder = tmp_path_factory.mktemp("on_demand")
    world().catalogue.save(catalogue_dir("toy", folder), {"builder": toy.VERSION})
    return folder


def opened(place, task, split, settings=None, **how):
    where = dict(cache_dir=place, catalogue=world().catalogue)
    settings = settings or settings_of(task)
    (found,) = open_tasks("toy", settings, [task], split, **where, **how).values()
    return found


@pytest.mark.parametrize("task", TASKS)
def test_every_example_of_every_task_is_what_its_record_would_give(place, task):
    spec = spec_named(task)
    for split in SPLITS:
        if split == "train" and task.endswith("_unseen"):
            with pytest.raises(UserError, match="split 'train' is empty"):
                opened(place, task, split)
            continue
        found = opened(place, task, split)
        assert isinstance(found, OnDemandTask) and len(found) > 0
        for example in found:
            record = decode_record(spec.features, as_bytes(spec, example))
            same(example, record | {"catalogue": found.catalogue})
    assert not list(place.rglob("*.array_record"))


@pytest.mark.slow
def test_caches_written_through_seqio_hold_the_same_bytes_for_every_task(place):
    for semantic in (False, True):
        names = [name for name in TASKS if ("semantic" in name) == semantic]
        words = [f"--tasks={','.join(names)}", f"--settings={settings_json(settings_of(names[0]))}"]
        cache_tasks.main([f"--cache_dir={place}", *words, "--nowith_text_only"])
        for task in names:
            spec = spec_named(task)
            for split in SPLITS[task.endswith("_unseen") :]:
                cached = opened(place, task, split, use_cached=True)
                made = opened(place, task, split)
                assert isinstance(cached, CachedTask) and len(cached) == len(made)
                assert cached.path == made.path and cached.name == made.name
                for left, right in zip(cached, made, strict=True):
                    same(left, right)
                    assert as_bytes(spec, left) == as_bytes(spec, right)


@pytest.fixture(scope="module")
def cached(place):
    """The same folder, with caches of tasks of every kind."""
    words = [f"--cache_dir={place}", f"--tasks={','.join(CACHED)}", "--nowith_text_only"]
    cache_tasks.main([*words, f"--settings={settings_json(PLAIN)}"])
    return place


@pytest.mark.parametrize("task", CACHED)
@pytest.mark.parametrize("split", SPLITS)
def test_caches_hold_the_same_bytes(cached, task, split):
    left, right = (opened(cached, task, split, PLAIN, use_cached=use) for use in (True, False))
    assert isinstance(left, CachedTask) and isinstance(right, OnDemandTask)
    assert len(left) == len(right) and left.path == right.path and left.name == right.name
    for read, made in zip(left, right, strict=True):
        same(read, made)
    assert [e["key"] for e in right.__getitems__([2, 1])] == [right[i]["key"] for i in (2, 1)]
    for index in (-1, len(right)):
        with pytest.raises(IndexError):
            right[index]


def rows(block, local):
    return local + (128 if block == "toy/user" else 0)


@pytest.mark.parametrize(
    ("task", "lengths", "more"),
    [
        ({"sequential_random": 1, "long_description": 2}, {"inputs": 180, "targets": 40}, {}),
        ({"sequential_random": 1, "long_description": 1}, {"inputs": 180, "targets": 40}, "block"),
        ("long_description", {"inputs": 40, "targets": 90}, "pack"),
        ("user_item", {}, {}),
    ],
)
def test_batches_are_the_same_on_demand_and_cached_wherever_a_run_goes_on(
    cached, task, lengths, more
):
    more = {"block": 4} if more == "block" else {"pack": 4} if more == "pack" else {}
    catalogue = {"catalogue": world().catalogue}
    base = DatasetConfig(task, lengths, cache_dir=cached, seed=3, settings=PLAIN, **more)
    layout = {"layout": KINDS[task].layout} if task == "user_item" else {}
    feeds = [
        base.replace(use_cached=use_cached).build(rows, **catalogue, **layout)
        for use_cached in (True, False)
    ]
    for indices in (range(8), range(10_001, 10_005), [10**9, 3]):
        left, right = (feed.rows(np.array(indices)) for feed in feeds)
        same_arrays(left, right)
    again = base.build(rows, **catalogue, **layout)
    same_arrays(again.rows(np.arange(10_003, 10_005)), feeds[0].rows(np.arange(10_003, 10_005)))
    assert base.record() == base.replace(use_cached=True).record()  # neither is another run


def same_arrays(left, right):
    assert left.keys() == right.keys()
    for name in left:
        assert np.array_equal(left[name], right[name]), name


def test_reader_processes_open_a_task_again(place):
    found = opened(place, "openp5/sequential_random", "train")
    again = pickle.loads(pickle.dumps(found))
    assert again is not found and len(again) == len(found)
    same(again[7], found[7])


def test_streams_of_one_task_share_what_it_remembers(place):
    train = opened(place, "openp5/sequential_random", "train")
    test = opened(place, "openp5/sequential_random", "test")
    assert train._examples is test._examples
    other = opened(place, "openp5/sequential_sequential", "test")
    assert other._examples is not test._examples
    assert len(on_demand._kept) <= on_demand.KEPT


def test_a_memo_forgets_before_it_grows():
    memo = Memo(3)
    for number in range(100):
        memo[number] = number
        assert len(memo) <= 3 and memo[number] == number
    assert pickle.loads(pickle.dumps(memo)) == {} and memo


ODD = {
    "ints": [
        [2**31],
        [2**64],
        np.array([-(2**31) - 1]),
        np.array([2**32], np.uint64),
        [[1]],
        7,
        ["a"],
        ["3"],
        [1.0],
        [1.5, 2.7],
        np.array([1.5]),
        [True, None],
    ],
    "int": [2**31, -(2**31) - 1, 1.7, 2.0, np.float32(2.9), "3", None, np.uint64(2**63)],
    "text": [b"a", 3, None],
}


@pytest.mark.parametrize(("kind", "value"), [(kind, v) for kind, vs in ODD.items() for v in vs])
def test_what_fits_no_record_is_refused_on_demand_too(kind, value):
    for make in (as_decoded, records.encode_record):
        with pytest.raises(ValueError, match="feature x"):
            make([("x", kind)], {"x": value})
    assert records.RECORD_FORMAT == 1


def test_half_a_character_is_refused_on_demand_too():
    for make in (as_decoded, records.encode_record):
        with pytest.raises(UnicodeEncodeError):
            make([("x", "text")], {"x": "\ud83d"})


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("ints", [True, False]),
        ("ints", [np.int64(3), -4]),
        ("ints", np.array([2**31 - 1], np.uint64)),
        ("ints", ()),
        ("ints", np.zeros(0)),
        ("int", True),
        ("int", np.int16(-3)),
        ("text", "é"),
    ],
)
def test_what_fits_a_record_is_the_same_on_demand(kind, value):
    made = as_decoded([("x", kind)], {"x": value})["x"]
    record = records.encode_record([("x", kind)], {"x": value})
    read = records.decode_record([("x", kind)], record)["x"]
    assert type(made) is type(read) and np.array_equal(made, read)
    assert getattr(made, "dtype", None) == getattr(read, "dtype", None)


def test_reading_on_demand_imports_no_tensorflow(place, tmp_path):
    program = (
        "import sys\n"
        "from ilm_jax.data.streams.dataset_config import DatasetConfig\n"
        "config = DatasetConfig('sequential_random', {'inputs': 200, 'targets': 20}, "
        "cache_dir=sys.argv[1])\n"
        "print(config.build(lambda block, local: local).rows([0, 1])['tokens'].shape)\n"
        "print([n for n in sys.modules if n.split('.')[0] in ('tensorflow', 'seqio')])\n"
    )
    world().catalogue.save(catalogue_dir("toy", tmp_path), {"builder": toy.VERSION})
    words = [sys.executable, "-c", program, str(tmp_path)]
    done = subprocess.run(words, text=True, capture_output=True, env=os.environ)
    assert done.stdout == "(2, 220)\n[]\n", done.stderr
    assert not (tmp_path / "tasks").exists()
