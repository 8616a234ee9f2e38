"""A run that goes astray says at which step, and what is good survives it."""

import shutil

import numpy as np
import pytest

from ilm_jax.checkpoints.checkpoints import CheckpointConfig, Checkpoints
from ilm_jax.data.streams.schedule import Schedule
from ilm_jax.errors import UserError
from ilm_jax.training.health import Health
from ilm_jax.training.optimizers import OptimizerConfig
from ilm_jax.training.window import mean
from ilm_jax.training.writers import read_metrics
from tests.training.small import Rows, make_trainer

KEEP = CheckpointConfig(every=2, keep_last=1, keep_best=0)


class Spoilt(Rows):
    """Targets are multiplied from some example on."""

    def __init__(self, first, factor):
        super().__init__(1)
        self.first, self.factor = first, factor

    def rows(self, indices):
        found = super().rows(indices)
        factors = np.where(np.asarray(indices) >= self.first, self.factor, 1).astype(np.float32)
        return {**found, "y": found["y"] * factors[:, None]}


def spoilt(folder, factor=1.0, *, first=40, steps=12, log_every=50, **changes):
    """Batches of 8, so that example 40 is in the sixth step."""
    plain = OptimizerConfig("sgd", 0.01, schedule="constant", clip_norm=0)
    trainer = make_trainer(
        folder,
        steps=steps,
        optimizer=changes.pop("optimizer", plain),
        checkpoint=changes.pop("checkpoint", KEEP),
        config={"log_every": log_every, "eval_every": 0},
        schedule=Schedule({"plain": 1}),
        **changes,
    )
    trainer.sources = {"plain": Spoilt(first, factor)}
    return trainer


def steps_in(folder):
    return sorted(int(p.name) for p in (folder / "checkpoints").iterdir() if p.name.isdigit())


def test_a_checkpoint_of_weights_that_ran_away_is_marked_and_not_gone_on_with(tmp_path, capfd):
    spoilt(tmp_path, 1e5).fit()
    assert "warning: step 6: the norm of what trains is" in capfd.readouterr().err
    there = Checkpoints(str(tmp_path))
    assert steps_in(tmp_path) == [4, 12]  # the last good one, whatever keep_last is
    assert [there.meta(step)["good"] for step in (4, 12)] == [True, False]
    assert there.last_good_step() == there.resolve("best") == 4 and there.resolve("last") == 12
    again = spoilt(tmp_path, 1e5, steps=16)
    with pytest.raises(UserError, match=r"step 12 is not good: .* the last good one is 4\. Remove"):
        again.fit()
    for step in steps_in(tmp_path):
        if step > 4:
            shutil.rmtree(tmp_path / "checkpoints" / str(step))
    spoilt(tmp_path, 1.0, steps=16).fit()
    assert Checkpoints(str(tmp_path)).last_good_step() == 16


def test_it_is_gone_on_with_where_no_outlier_is_looked_for(tmp_path):
    unlimited = CheckpointConfig(every=2, keep_last=1, keep_best=0, outlier=0)
    spoilt(tmp_path, 1e5, steps=8, checkpoint=unlimited).fit()
    spoilt(tmp_path, 1e5, steps=10, checkpoint=unlimited).fit()
    assert Checkpoints(str(tmp_path)).last_good_step() == 10


@pytest.mark.parametrize("log_every", [1, 50])
def test_the_first_step_that_is_not_finite_is_named_and_nothing_of_it_is_saved(tmp_path, log_every):
    message = r"not finite at step 6 \(loss nan.*the last good checkpoint is of step 4"
    with pytest.raises(UserError, match=message):
        spoilt(tmp_path, np.nan, log_every=log_every).fit()
    assert steps_in(tmp_path) == [4]


def test_without_a_checkpoint_none_is_named(tmp_path):
    trainer = spoilt(tmp_path)
    trainer.table = np.full_like(trainer.table, np.nan)
    with pytest.raises(UserError, match="step 1 .* no checkpoint was saved.* look at the weights"):
        trainer.fit()
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize("rate", [1e9, 1e38])
def test_a_rate_that_is_far_too_high_leaves_no_good_checkpoint(tmp_path, rate):
    trainer = spoilt(tmp_path, optimizer=OptimizerConfig("sgd", rate, clip_norm=1.0), log_every=2)
    try:
        trainer.fit()
    except UserError as error:
        assert "not finite at step" in str(error)
    if (tmp_path / "checkpoints").exists():  # no step was finite at the higher rate
        assert rate == 1e9 and Checkpoints(str(tmp_path)).last_good_step() is None


class Dying(Rows):
    """Validation that turns to NaN after some batches."""

    def rows(self, indices):
        found = super().rows(indices)
        return found if len(self.seen) <= 16 else {**found, "y": found["y"] * np.nan}


def test_a_validation_that_is_not_finite_is_said_and_is_never_the_best(tmp_path, capfd):
    trainer = make_trainer(tmp_path, steps=8)
    trainer.eval_sources = {"plain": (Dying(3), 16)}
    trainer.fit()
    assert "warning: step 8: validation's loss is not a finite number" in capfd.readouterr().err
    losses = [
        r["validation/loss"]
        for r in read_metrics(tmp_path / "metrics.jsonl")
        if "validation/loss" in r
    ]
    assert np.isfinite(losses[0]) and np.isnan(losses[1])
    assert Checkpoints(str(tmp_path)).resolve("best") == 4


def test_a_norm_is_an_outlier_against_its_median():
    health = Health(10.0, [1.0, 2.0, 3.0])
    assert health.record(19.0)["good"] and not health.record(21.0)["good"]
    assert health.record(21.0)["usual_weight_norm"] == 2.0
    assert not health.record(float("inf"))["good"] and Health(0, [1.0]).record(1e9)["good"]
    assert Health(10.0, [0.0]).record(1.0)["good"]  # what starts at 0 has no usual norm


def test_what_starts_at_zero_may_grow_and_run_away_later():
    health = Health(10.0, [0.0])
    for step in range(1, 60):  # as the square of the steps, as a warm-up has it
        assert health.record(step**2)["good"], step
        health.add(step**2)
    assert not health.record(1e5)["good"]
    again = Health(10.0, health.record(1.0)["weight_norms"])
    assert again.record(60**2)["good"] and not again.record(1e5)["good"]


def test_a_mean_over_nothing_is_no_number():
    assert np.isnan(mean([(np.float32(0), np.float32(0))]))
    assert mean([(np.float32(6), np.float32(2)), (np.float32(0), np.float32(1))]) == 2.0
