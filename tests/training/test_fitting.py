"""What a step needs is said before it runs, and large steps do not run ahead of each other."""

import dataclasses
import types

import pytest

from ilm_jax.training import fitting, host_memory
from tests.training import models
from tests.training.small import make_trainer

GIB = 2**30


@pytest.mark.parametrize("most, fits", [(15, False), (40, True)])
def test_a_step_that_will_not_fit_is_told_with_what_to_do(monkeypatch, most, fits):
    monkeypatch.setattr(host_memory, "held", lambda: 2 * GIB)
    monkeypatch.setattr(host_memory, "available", lambda: most * GIB)
    line = fitting.shortage(20 * GIB)
    if fits:
        assert line is None
        return
    assert "needs 20.0 GiB beside the 2.0 that are held, and there are 15.0" in line
    assert "remat = 'full'" in line and "BATCH_SIZE" in line and "\n" not in line


def test_a_run_tells_it_when_its_step_is_compiled(tmp_path, monkeypatch, capfd):
    needed = []
    monkeypatch.setattr(fitting, "shortage", lambda bytes: needed.append(bytes) or "warning: so")
    make_trainer(tmp_path, steps=1).fit()
    assert needed and min(needed) > 0
    assert "warning: so" in capfd.readouterr().err.splitlines()


def test_steps_that_take_long_wait_for_each_other():
    assert fitting.steps_in_flight(GIB) == 1
    assert fitting.steps_in_flight(GIB // 1024) == 2


def test_a_compiler_that_says_nothing_is_no_error():
    assert fitting.temporaries(types.SimpleNamespace(memory_analysis=lambda: None)) == 0


def test_bfloat16_on_a_cpu_is_mentioned():
    assert fitting.type_note(models.ILM) is None
    low = dataclasses.replace(models.ILM, lm=dataclasses.replace(models.LM, dtype="bfloat16"))
    assert "lm computes in bfloat16" in fitting.type_note(low)


def test_what_was_cut_is_mentioned_in_words():
    assert fitting.cut_note({}) is None and fitting.cut_note({"history": 0}) is None
    note = fitting.cut_note({"targets": 1200, "history": 3})
    assert "3 lost the oldest of their history and 1,200 the end of their answer" in note


def test_rows_that_are_mostly_padding_are_mentioned():
    assert fitting.padding_note([("prompt", 0.9), ("pairs", 1.0)]) is None
    assert "60% of the positions" in fitting.padding_note([("prompt", 0.3), ("prompt", 0.5)])
