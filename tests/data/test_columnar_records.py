"""Record files by columns: no escape makes two users one, and no line ends the process."""

import functools
import io
import re
import subprocess
import sys

import pytest

from ilm_jax.data.formats import columnar, columnar_records, record_columns, record_reading
from ilm_jax.data.sources import steam


@pytest.fixture(autouse=True)
def however_small(monkeypatch):
    monkeypatch.setattr(columnar, "FROM", 0)


def test_halves_of_surrogate_pairs_are_passed_over_wherever_a_part_ends():
    text = b'{"x": "\\ud83d\\ude00 \\u00e9 \\n \\uD83d"}\n' * 9
    wanted = re.sub(rb"\\u[dD][8e][0-9a-f]{2}", rb"\\u0000", text)
    for size in (1, 2, 3, 5, 7, 13, 1000):
        watched = columnar_records._Watched(io.BytesIO(text), ())
        parts = list(iter(functools.partial(watched.read, size), b""))
        assert b"".join(parts) == wanted and watched.lines() == 9


def named(name):
    return f'{{"username": "{name}", "product_id": "7", "date": "2018-01-02"}}\n'


@pytest.mark.parametrize("letters", [("\\ud83d\\ude00", "\\ud83d\\ude01"), ("\\u0000", "\\u0001")])
def test_users_whose_names_hold_escaped_pairs_or_nul_stay_apart(tmp_path, letters):
    path, form = tmp_path / "steam_reviews.json", steam.CORPUS.interactions
    path.write_text("".join(map(named, ("u", *letters, "v"))))
    assert columnar.attempt(path, lambda: record_columns.read([path], form)) is None
    found, again = record_reading.read_interactions([path], form)
    assert len(set(found.user)) == 4 and again == 0


def test_what_is_passed_over_may_hold_any_escape(tmp_path):
    path, form = tmp_path / "steam_reviews.json", steam.CORPUS.interactions
    path.write_text(named('u", "text": "\\ud83d') + named("\\u00e9"))
    assert list(record_columns.read([path], form).user) == ["u", "é"]


# What Arrow's own thread may still let go of needs the interpreter, which must not be on its way
# out meanwhile: commands go on with the strict reader, this one waits.
NO_OBJECTS = """
import os, pathlib, sys, time
import pyarrow
from ilm_jax.data.formats import columnar, columnar_records
columnar_records._BLOCK = 1 << 12
path = pathlib.Path(sys.argv[1])
try:
    list(columnar_records.batches(path, {"a": pyarrow.string()}))
except columnar.NotPlainError:
    print("left to the strict reader", flush=True)
    time.sleep(0.2)
    os._exit(0)
"""


@pytest.mark.parametrize("before", [0, 40, 41, 42, 200])
def test_a_line_of_null_ends_no_process_wherever_it_stands(tmp_path, before):
    """In a process of its own, for Arrow would take this one along."""
    line = '{"a":"%s"}\n' % ("x" * 92)
    (tmp_path / "x.json").write_text(line * before + "null\n" + line * 99)
    command = [sys.executable, "-c", NO_OBJECTS, str(tmp_path / "x.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "left to the strict reader\n")
