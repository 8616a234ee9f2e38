"""A run ends when its validation no longer improves, also if it was killed on the way."""

import json

import jax
import numpy as np
import pytest

from ilm_jax.checkpoints.checkpoints import CheckpointConfig, Checkpoints
from ilm_jax.data.streams.schedule import Schedule
from ilm_jax.errors import UserError
from ilm_jax.sharding.partitioning import Partitioner
from ilm_jax.training.patience import Patience
from ilm_jax.training.writers import read_metrics
from tests.training.small import StopsAt, make_trainer

SMALL = {
    "schedule": Schedule({"plain": 1}),
    "eval_sources": {},
    "mesh": Partitioner(devices=(jax.devices()[0],)),
}
LOSSES = {2: 3.0, 4: 2.0, 6: 2.5, 8: 2.25, 10: 1.0, 12: 0.5}


class Killed(Exception):
    """Stands for a kill."""


def trainer_of(folder, kill_at=0, patience=2, every=2):
    """Validates every two steps with the losses above; the lowest before patience is at 4."""
    seen = []

    def validate(params, step):
        seen.append(step)
        if step == kill_at:
            raise Killed
        return {"loss": LOSSES[step], "ndcg@10": 1 - LOSSES[step]}

    trainer = make_trainer(
        folder,
        config={"eval_every": 2, "patience": patience},
        validate=validate,
        checkpoint=CheckpointConfig(every=every),
        **SMALL,
    )
    return trainer, seen


def same(one, two):
    jax.tree.map(np.testing.assert_array_equal, one, two)


def test_patience_ends_a_run_and_the_best_of_it_is_kept(tmp_path):
    trainer, seen = trainer_of(tmp_path)
    assert trainer.fit() == {"loss": 2.25, "ndcg@10": -1.25}
    assert (trainer.step, trainer.stopped, seen) == (8, False, [2, 4, 6, 8])
    assert Checkpoints(tmp_path).resolve("best") == 4
    shorter = make_trainer(tmp_path / "4", steps=4, **SMALL)
    shorter.optimizer = shorter.optimizer.started(12)
    shorter.fit()
    same(trainer.params("best"), shorter.params())
    figures = [r for r in read_metrics(tmp_path / "metrics.jsonl") if "validation/loss" in r]
    assert [r["validation/ndcg@10"] for r in figures] == [-2.0, -1.0, -1.5, -1.25]


def test_a_run_that_has_ended_early_is_finished_until_it_is_given_more_patience(tmp_path):
    trainer_of(tmp_path)[0].fit()
    again, seen = trainer_of(tmp_path)
    assert again.fit() == {"loss": 2.25, "ndcg@10": -1.25}
    assert again.was_finished and again.step == 8 and not seen
    longer, seen = trainer_of(tmp_path, patience=3)
    longer.fit()
    assert (longer.step, seen) == (12, [10, 12])


@pytest.mark.parametrize("kill_at", [8])
def test_a_killed_run_ends_where_one_left_alone_does(tmp_path, kill_at):
    alone, _ = trainer_of(tmp_path / "alone")
    alone.fit()
    with pytest.raises(Killed):
        trainer_of(tmp_path / "killed", kill_at)[0].fit()
    resumed, seen = trainer_of(tmp_path / "killed")
    resumed.fit()
    assert seen[0] == kill_at and resumed.step == alone.step == 8
    for step in ("best", "last"):
        same(resumed.params(step), alone.params(step))


def test_the_best_is_kept_whatever_the_steps_between_checkpoints(tmp_path):
    trainer, _ = trainer_of(tmp_path, every=100)
    trainer.fit()
    assert Checkpoints(tmp_path).resolve("best") == trainer.best_step == 4 and trainer.step == 8


def test_a_run_that_is_told_to_stop_validates_only_where_it_would_have(tmp_path):
    alone, _ = trainer_of(tmp_path / "alone")
    alone.fit()
    seen = []
    for example in (16, 24):  # of the third and fourth batch, which are read ahead
        trainer, found = trainer_of(tmp_path / "stopped")
        trainer.sources["plain"] = StopsAt(trainer.sources["plain"], example)
        trainer.fit()
        assert trainer.stopped
        seen += found
    last, found = trainer_of(tmp_path / "stopped")
    last.fit()
    assert last.step == alone.step == 8 and [*seen, *found] == [2, 4, 6, 8]
    same(last.params("best"), alone.params("best"))


def test_without_a_model_dir_a_run_gives_the_same_and_leaves_no_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kept, _ = trainer_of(tmp_path / "kept")
    kept.fit()
    trainer, _ = trainer_of("")
    assert trainer.fit() == {"loss": 2.25, "ndcg@10": -1.25}
    for step in ("best", "last"):
        same(trainer.params(step), kept.params(step))
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    with pytest.raises(UserError, match="no checkpoint 6 in memory"):
        trainer.params(6)


def test_patience_counts_what_is_not_lower_and_its_record_goes_through_json():
    patience = Patience(2)
    for loss in (2.0, float("nan"), 1.0, 1.0):
        patience.add(loss)
        assert not patience.over
        patience = Patience(2, json.loads(json.dumps(patience.record())))
    patience.add(float("inf"))
    assert patience.over and not Patience(0, patience.record()).over
    assert not Patience(3, json.loads(json.dumps(Patience(1).record()))).over
