"""Where time went, what was not padding, and a trace of the steps that were asked for."""

import time

import jax
import numpy as np
import pytest

from ilm_jax.errors import UserError
from ilm_jax.training import loop
from ilm_jax.training.chips import CHIPS, of_kind
from ilm_jax.training.step import _report
from ilm_jax.training.timing import Profile, StepClock
from ilm_jax.training.writers import read_metrics
from tests.training.small import make_trainer


def test_a_steps_time_is_split_and_adds_up():
    def slow():
        for _ in range(4):
            time.sleep(0.05)
            yield None

    clock, start = StepClock(), time.monotonic()
    for _ in clock.batches(slow()):
        time.sleep(0.02)
        with clock.of("checkpoint"):
            time.sleep(0.03)
    found = clock.read(tokens=800, flops=1e6, peak=1e7)
    total = time.monotonic() - start
    assert 0.05 <= found["time/data_wait"] < 0.1 and 0.03 <= found["time/checkpoint"] < 0.08
    assert 4 * sum(found[f"time/{n}"] for n in ("data_wait", "checkpoint", "step")) == (
        pytest.approx(total, rel=0.05)
    )
    assert found["tokens_per_second"] == pytest.approx(800 / total, rel=0.05)
    assert found["mfu"] == pytest.approx(0.1 / total, rel=0.05)
    assert "mfu" not in clock.read(tokens=0, flops=1.0, peak=0.0)


def test_padding_is_no_token():
    one = np.float32(1)
    filled = _report({"segment_ids": np.array([[1, 1, 2, 0], [1, 0, 0, 0]])}, {}, one, one, one)
    assert float(filled["tokens"]) == 4 and float(filled["real"]) == 0.5
    assert float(_report({"entities": np.zeros(3)}, {}, one, one, one)["tokens"]) == 0


@pytest.mark.slow
def test_metrics_say_where_time_went_and_the_trace_is_there(tmp_path, monkeypatch):
    # As if the devices were known: 10 operations per second and 16 needed by every step.
    monkeypatch.setattr(loop, "peak_flops", lambda: 10.0)
    trainer = make_trainer(tmp_path, steps=6)
    trainer.profile_steps, trainer.step_flops = "2:4", {"plain": 16.0, "scaled": 16.0}
    trainer.fit()
    records = [r for r in read_metrics(tmp_path / "metrics.jsonl") if "loss" in r]
    for record in records:
        spent = [record[f"time/{name}"] for name in ("data_wait", "step", "checkpoint")]
        assert all(seconds >= 0 for seconds in spent) and record["mfu"] > 0
    assert max(record["time/checkpoint"] for record in records) > 0
    assert list((tmp_path / "profile").rglob("*.xplane.pb"))


def test_a_window_that_is_none_is_refused():
    for wrong in ("5", "5:5", "9:3", "a:b"):
        with pytest.raises(UserError, match="write it as 10:15"):
            Profile(wrong, "x")


def test_devices_are_known_by_their_kind():
    assert of_kind("TPU v5 lite") is CHIPS["v5e"] and of_kind("TPU v5") is CHIPS["v5p"]
    assert of_kind(jax.devices()[0].device_kind) is None
