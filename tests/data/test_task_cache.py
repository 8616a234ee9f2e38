import json
import pickle
import shutil

import numpy as np
import pytest

from ilm_jax.data.streams import cached_task, task_cache
from ilm_jax.data.streams.cached_task import CachedTask
from ilm_jax.data.streams.records import decode_record, encode_record
from ilm_jax.errors import UserError

FEATURES = (("key", "text"), ("tokens", "ints"), ("row", "int"))


def examples(count):
    return [
        {"key": f"ключ{i}", "tokens": np.arange(-2, i % 5, dtype=np.int32), "row": -i}
        for i in range(count)
    ]


def same(left, right):
    return all(np.array_equal(left[name], right[name]) for name, _ in FEATURES)


def write(path, count=10, **info):
    rows = examples(count)
    return task_cache.write(path, FEATURES, iter(rows), {"dataset": "toy", **info}, count)


def test_a_record_is_what_its_documentation_says():
    record = encode_record(FEATURES, {"key": "é", "tokens": [-1, 256], "row": 7})
    assert record == (b"\x01\x02\0\0\0\xc3\xa9\x02\0\0\0\xff\xff\xff\xff\0\x01\0\0\x07\0\0\0")
    found = decode_record(FEATURES, record)
    assert found["key"] == "é" and found["row"] == 7
    assert found["tokens"].dtype == np.int32 and found["tokens"].tolist() == [-1, 256]


@pytest.mark.parametrize("damage", [lambda r: r[:-1], lambda r: r + b"\0", lambda r: b"\x02" + r])
def test_a_damaged_record_is_refused(damage):
    record = encode_record(FEATURES, examples(3)[2])
    with pytest.raises(ValueError, match="record"):
        decode_record(FEATURES, damage(record))


@pytest.mark.parametrize("tokens", [[2**31], [[1]], [0.5]])
def test_what_does_not_fit_int32_is_refused(tokens):
    with pytest.raises(ValueError, match="feature tokens"):
        encode_record(FEATURES, {"key": "", "tokens": tokens, "row": 0})


@pytest.mark.parametrize("hold", [0, 1 << 20])
def test_examples_come_back_by_number(tmp_path, monkeypatch, hold):
    monkeypatch.setattr(task_cache, "RECORDS_PER_PART", 4)
    monkeypatch.setattr(cached_task, "IN_MEMORY_BYTES", hold)
    write(tmp_path / "t-1" / "train")
    task = CachedTask(tmp_path / "t-1" / "train")
    assert len(task) == 10 and len(list((tmp_path / "t-1" / "train").glob("part-*"))) == 3
    rows = examples(10)
    assert all(same(task[i], rows[i]) for i in (9, 0, 4, 3))
    assert all(same(a, b) for a, b in zip(task, rows, strict=True))
    assert same(pickle.loads(pickle.dumps(task))[5], rows[5])
    assert task[0]["catalogue"] == "toy"
    for outside in (10, -1):
        with pytest.raises(IndexError):
            task[outside]


def test_the_same_examples_give_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        write(tmp_path / name / "train", count=500)
    for file in ("info.json", "part-00000.array_record"):
        first, second = ((tmp_path / name / "train" / file).read_bytes() for name in ("a", "b"))
        assert first == second


def test_info_counts(tmp_path):
    info = write(tmp_path / "train", truncations={"history": 3})
    assert info == json.loads((tmp_path / "train" / "info.json").read_text())
    assert info["size"] == 10 and info["truncations"] == {"history": 3}
    assert info["lengths"]["tokens"] == {"max": 6, "mean": 4.0}


def test_an_interrupted_write_leaves_nothing(tmp_path):
    def broken():
        yield from examples(3)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        task_cache.write(tmp_path / "t" / "train", FEATURES, broken(), {})
    assert not list(tmp_path.rglob("*train*"))
    with pytest.raises(ValueError, match="3 examples instead of 4"):
        task_cache.write(tmp_path / "t" / "train", FEATURES, examples(3), {}, 4)
    assert not list(tmp_path.rglob("*train*"))


def test_a_split_is_written_in_the_place_of_another(tmp_path):
    write(tmp_path / "train", 3)
    write(tmp_path / "train", 5)
    assert len(CachedTask(tmp_path / "train")) == 5
    assert [file.name for file in tmp_path.iterdir()] == ["train"]


def test_an_empty_split_is_written_and_has_length_zero(tmp_path):
    write(tmp_path / "train", count=0)
    assert len(CachedTask(tmp_path / "train")) == 0


def test_what_is_no_cache_is_refused(tmp_path):
    with pytest.raises(UserError, match="no such task cache"):
        CachedTask(tmp_path / "absent")
    write(tmp_path / "train")
    info = tmp_path / "train" / "info.json"
    text = info.read_text()
    for changed, message in (
        (text.replace('"size": 10', '"size": 11'), "changed since it was written"),
        (text.replace("task_cache/1", "task_cache/0"), "not of format"),
        (text[:-5], "not JSON"),
    ):
        info.write_text(changed)
        with pytest.raises(UserError, match=message):
            CachedTask(tmp_path / "train")


def write_in_parts(path, numbers, count=50):
    rows = examples(count)
    for number in numbers:
        part = task_cache.parts(count)[number]
        task_cache.write_part(path, number, FEATURES, rows[part.start : part.stop])


@pytest.mark.parametrize("order", [[4, 0, 3, 1, 2], [0, 1, 2, 3, 4, 4, 0]])
def test_parts_written_in_any_order_are_the_bytes_of_one_go(tmp_path, monkeypatch, order):
    monkeypatch.setattr(task_cache, "RECORDS_PER_PART", 11)
    write(tmp_path / "one" / "train", 50)
    path = tmp_path / "many" / "train"
    write_in_parts(path, order)
    task_cache.finish(path, FEATURES, {"dataset": "toy"}, 50)
    files = sorted(file.name for file in path.iterdir())
    assert files == sorted(file.name for file in (tmp_path / "one" / "train").iterdir())
    for name in files:
        assert (path / name).read_bytes() == (tmp_path / "one" / "train" / name).read_bytes()


@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_part_that_another_process_finishes_meanwhile_is_done(tmp_path, at):
    """The other one has its temporary files taken away, at any moment of its work."""
    write(tmp_path / "one" / "train", 2)
    path, rows = tmp_path / "many" / "train", examples(2)

    def slowly():
        for number in range(3):
            if number == at:
                task_cache.write_part(path, 0, FEATURES, rows)
                task_cache.finish(path, FEATURES, {"dataset": "toy"}, 2)
            yield from rows[number : number + 1]

    task_cache.write_part(path, 0, FEATURES, slowly())
    assert [file.name for file in path.parent.iterdir()] == ["train"]
    for file in (tmp_path / "one" / "train").iterdir():
        assert (path / file.name).read_bytes() == file.read_bytes()
    assert len(list(path.iterdir())) == 2
    task_cache.write_part(path, 0, FEATURES, rows)  # by one that began before the split was there
    assert [file.name for file in path.parent.iterdir()] == ["train"]


def test_a_part_whose_folder_is_taken_away_is_an_error(tmp_path):
    path = tmp_path / "many" / "train"

    def gone():
        shutil.rmtree(task_cache.staging(path))
        yield from examples(2)

    with pytest.raises(FileNotFoundError):
        task_cache.write_part(path, 0, FEATURES, gone())


def test_a_split_with_a_part_missing_is_not_finished(tmp_path, monkeypatch):
    monkeypatch.setattr(task_cache, "RECORDS_PER_PART", 11)
    path = tmp_path / "many" / "train"
    write_in_parts(path, [0, 1, 3, 4])
    assert task_cache.has_part(path, 3) and not task_cache.has_part(path, 2)
    with pytest.raises(ValueError, match="no examples instead of 11"):
        task_cache.finish(path, FEATURES, {}, 50)
    assert not path.exists() and task_cache.has_part(path, 0)  # and the rest waits


def test_there_are_never_too_many_parts():
    assert len(task_cache.parts(10**8)) == task_cache.MOST_PARTS
    assert sum(map(len, task_cache.parts(123_456))) == 123_456
