"""The line of a run names what it is at, and the time left counts more than steps."""

import io
import re

import pytest

from ilm_jax.training import live_line
from ilm_jax.training.live_line import LiveLine
from tests.training.small import make_trainer


class Terminal(io.StringIO):
    def __init__(self, is_terminal):
        super().__init__()
        self.isatty = lambda: is_terminal


@pytest.fixture
def clock(monkeypatch):
    """Time that stands still but for what a test adds."""
    now = [0.0]
    monkeypatch.setattr(live_line.time, "monotonic", lambda: now[0])
    return now


def opened(monkeypatch, is_terminal, to_come=lambda step: {}):
    stream = Terminal(is_terminal)
    monkeypatch.setattr(live_line.sys, "stderr", stream)
    return LiveLine(100, 0, to_come), stream


def test_the_time_left_counts_the_pauses_to_come(monkeypatch, clock):
    line, stream = opened(monkeypatch, False, lambda step: {"validation": 2, "saving": 1})
    clock[0] += 30.0
    with line.pause("compiling plain", long=True):
        clock[0] += 60.0
    assert line.show(10, 1.0, 80) == pytest.approx(80 / 90)  # per second in all
    with line.pause("validation"):
        clock[0] += 20.0
    clock[0] += 30.0
    line.show(20, 0.5, 80)
    assert stream.getvalue().splitlines() == [
        "step 0/100  compiling plain",
        "step 10/100  loss 1.0000  0.89 examples/s  ETA 4:30 + validation + saving",
        "step 20/100  loss 0.5000  1.6 examples/s  ETA 4:40 + saving",
    ]


def test_a_terminal_shows_what_a_pause_is_at_and_the_end_has_no_time_left(monkeypatch, clock):
    line, stream = opened(monkeypatch, True)
    clock[0] += 1.0
    line.show(100, 0.5, 8)
    with line.pause("validation") as tell:
        tell(3, 16)
    line.note("warning: x")
    line.close()
    shown = [part.replace("\x1b[K", "") for part in re.split(r"[\r\n]", stream.getvalue())]
    head = "step 100/100  loss 0.5000  8 examples/s"
    assert shown == ["", head, f"{head}  validation", f"{head}  validation 3/16", "warning: x", ""]


def test_elsewhere_a_pause_is_mentioned_only_if_it_lasts(monkeypatch, clock):
    line, stream = opened(monkeypatch, False)
    with line.pause("validation") as tell:
        for batch in range(16):
            tell(batch, 16)
            clock[0] += 2.0
    assert stream.getvalue().splitlines() == [
        "step 0/100  validation 6/16",
        "step 0/100  validation 12/16",
    ]


def test_a_run_writes_few_lines_into_a_file(tmp_path, capfd):
    make_trainer(tmp_path, steps=12, config={"log_every": 6}).fit()
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("step ")]
    assert [re.sub(r"  loss.*", "", line) for line in lines] == [
        "step 0/12  compiling plain",
        "step 0/12  compiling scaled",
        "step 6/12",
        "step 12/12",
    ]
