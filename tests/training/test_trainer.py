"""The loop: resumes bit for bit, stops cleanly, refuses what is not finite."""

import collections
import json

import jax
import numpy as np
import pytest

from ilm_jax.checkpoints.checkpoints import CheckpointConfig, Checkpoints, InitFrom
from ilm_jax.errors import UserError
from ilm_jax.sharding.partitioning import MeshConfig, Partitioner
from ilm_jax.training.optimizers import OptimizerConfig
from ilm_jax.training.writers import read_metrics
from tests.training.small import Rows, StopsAt, TwoLayers, make_trainer


def final(trainer):
    """The last checkpoint, as arrays."""
    checkpoints = Checkpoints(trainer.model_dir, CheckpointConfig())
    optimizer = trainer.optimizer.build(trainer.config.total_steps)
    state, positions, _ = checkpoints.resume(trainer.initial_state(optimizer)[0])
    checkpoints.close()
    return jax.tree.map(np.asarray, state), positions


def assert_same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_a_stopped_run_resumes_to_the_same_bits_metrics_and_examples(tmp_path):
    whole = make_trainer(tmp_path / "whole")
    whole.fit()
    stopped = make_trainer(tmp_path / "stopped")
    stopped.sources["plain"] = StopsAt(stopped.sources["plain"], 35)
    stopped.fit()
    between = Checkpoints(stopped.model_dir).latest_step
    assert 0 < between < 12
    make_trainer(tmp_path / "stopped").fit()
    (a, at_a), (b, at_b) = final(whole), final(stopped)
    assert_same(a, b)
    assert at_a == at_b == type(at_a)({"plain": 64, "scaled": 32})

    def losses(trainer):
        records = read_metrics(f"{trainer.model_dir}/metrics.jsonl")
        return {r["step"]: r["loss"] for r in records if "loss" in r and r["step"] % 2 == 0}

    # Windows of the log are cut at the stop, so only those that begin on a log step compare.
    ours, theirs = losses(whole), losses(stopped)
    assert {s: ours[s] for s in ours if s > between + 2} == {
        s: theirs[s] for s in ours if s > between + 2
    }


def test_the_batch_size_may_change_on_resume_without_losing_an_example(tmp_path):
    make_trainer(tmp_path, steps=6).fit()
    trainer = make_trainer(tmp_path, steps=9, config={"batch_size": 16})
    trainer.fit()
    assert min(trainer.sources["plain"].seen) == 32
    assert final(trainer)[1].next_example == {"plain": 64, "scaled": 32}


def test_frozen_leaves_have_no_optimizer_slot_and_keep_their_bits(tmp_path):
    trainer = make_trainer(tmp_path, config={"trainable": ("^second/",)})
    optimizer = trainer.optimizer.build(12)
    before, _ = trainer.initial_state(optimizer)
    assert list(before.trainable) == ["second/kernel"]
    slots = [x.shape for x in jax.tree.leaves(before.opt_state) if x.shape]
    assert slots == [before.trainable["second/kernel"].shape] * 2
    kept = {path: np.asarray(x) for path, x in before.frozen.items()}
    trainer.fit()
    after, _ = final(trainer)
    assert_same(after.frozen, kept)
    # What was drawn and froze has no other place; what a source gave stays there.
    assert "first/kernel" in Checkpoints(trainer.model_dir).shapes(12)
    config = {"trainable": ("^second/",), "init": (InitFrom(str(tmp_path)),)}
    again = make_trainer(tmp_path / "again", config=config)
    again.fit()
    assert list(Checkpoints(again.model_dir).shapes(12)) == ["second/kernel"]


def test_microbatches_give_the_gradient_of_the_whole_batch(tmp_path):
    still = {"config": {"seed": 1}, "optimizer": OptimizerConfig("sgd", 0.1)}
    results = []
    for parts in (1, 4):
        trainer = make_trainer(tmp_path / str(parts), steps=1, **still)
        trainer.config = type(trainer.config)(**{**trainer.config.__dict__, "microbatches": parts})
        trainer.partitioner = Partitioner(MeshConfig(1), devices=tuple(jax.devices()[:1]))
        object.__setattr__(trainer.objective, "loss", _without_dropout(trainer.objective))
        trainer.fit()
        results.append(final(trainer)[0].trainable)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), *results)


def _without_dropout(objective):
    loss = objective.loss
    return lambda params, kind, batch, table, key: loss(params, kind, batch, table, None)


def test_a_loss_that_is_not_finite_stops_and_spares_the_checkpoint(tmp_path):
    make_trainer(tmp_path, steps=4).fit()
    trainer = make_trainer(tmp_path, steps=12)
    rows = trainer.sources["plain"].rows
    trainer.sources["plain"].rows = lambda indices: {**rows(indices), "x": np.full((8, 4), np.nan)}
    with pytest.raises(UserError, match="not finite"):
        trainer.fit()
    assert Checkpoints(str(tmp_path)).latest_step == 4


class Cutting(Rows):
    """Cuts every fourth example."""

    def __init__(self, salt):
        super().__init__(salt)
        self.counts = collections.Counter()

    def rows(self, indices):
        self.counts["history"] += sum(int(i) % 4 == 0 for i in indices)
        return super().rows(indices)


def test_what_is_cut_is_told_and_counted_up_to_each_log(tmp_path, capfd):
    trainer = make_trainer(tmp_path, steps=12)
    trainer.sources["plain"] = Cutting(1)
    trainer.fit()
    told = [line for line in capfd.readouterr().err.splitlines() if "were cut" in line]
    assert len(told) == 1 and "lost the oldest of their history" in told[0]
    # Two steps a log; a batch of "plain" has eight examples, of "scaled" none is cut.
    logs = [r for r in read_metrics(tmp_path / "metrics.jsonl") if "loss" in r]
    assert sum(r.get("cut_history", 0.0) for r in logs) == 2 * 64 / 8
    assert all(r.get("cut_history", 0.0) in (0.0, 2.0, 4.0) for r in logs)


def test_validation_of_fewer_examples_than_there_are_is_spread_over_all(tmp_path):
    rows = Rows(3)
    trainer = make_trainer(tmp_path, steps=4, config={"eval_batches": 2})
    trainer.eval_sources = {"plain": (rows, 160)}
    trainer.fit()
    assert rows.seen == np.linspace(0, 159, 16).astype(int).tolist()
    whole = Rows(3)
    trainer = make_trainer(tmp_path / "whole", steps=4, config={"eval_batches": 20})
    trainer.eval_sources = {"plain": (whole, 160)}
    trainer.fit()
    assert whole.seen == list(range(160))


def test_keeps_the_best_and_the_last_checkpoints(tmp_path):
    trainer = make_trainer(tmp_path, steps=24, checkpoint=CheckpointConfig(4, 2, 1, True))
    trainer.fit()
    steps = sorted(int(p.name) for p in (tmp_path / "checkpoints").iterdir() if p.name.isdigit())
    records = read_metrics(tmp_path / "metrics.jsonl")
    validation = {r["step"]: r["validation/loss"] for r in records if "validation/loss" in r}
    best = min(validation, key=validation.get)
    assert steps == sorted({best, 20, 24})
    assert Checkpoints(str(tmp_path)).resolve("best") == best


def test_temporary_folders_of_a_killed_save_are_removed(tmp_path):
    make_trainer(tmp_path, steps=4).fit()
    stale = tmp_path / "checkpoints" / "8.orbax-checkpoint-tmp-0"
    stale.mkdir()
    make_trainer(tmp_path, steps=5).fit()
    assert not stale.exists()


def test_a_run_that_never_began_leaves_no_folder_of_checkpoints(tmp_path):
    checkpoints = Checkpoints(tmp_path, CheckpointConfig())
    assert (tmp_path / "checkpoints").is_dir()
    checkpoints.close()
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_of_another_architecture_gives_three_lists(tmp_path):
    make_trainer(tmp_path / "a", steps=2).fit()
    source = InitFrom(str(tmp_path / "a"))
    other = make_trainer(tmp_path / "b", objective=TwoLayers(width=6), config={"init": (source,)})
    with pytest.raises(UserError, match=r"restored 0; fresh 0 .*unused 0 .*other shapes 2"):
        other.fit()
    part = make_trainer(
        tmp_path / "c", config={"init": (InitFrom(str(tmp_path / "a"), ("^first/",)),)}
    )
    with pytest.raises(UserError, match="no source holds 1 parameters .second/kernel"):
        part.fit()


def test_a_run_leaves_its_configuration_and_variables(tmp_path):
    make_trainer(tmp_path, steps=2, config_text="# what ran\n").fit()
    assert (tmp_path / "config.gin").read_text() == "# what ran\n"
    info = (tmp_path / "model-info.txt").read_text()
    assert "first/kernel" in info and "embed mlp" in info and "trains 48" in info
    for line in (tmp_path / "metrics.jsonl").read_text().splitlines():
        json.loads(line)
