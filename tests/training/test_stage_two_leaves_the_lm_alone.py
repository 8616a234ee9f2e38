"""Fifty steps of stage 2 move the reader of vectors and not one bit of what words alone give."""

import jax
import numpy as np
import pytest

from ilm_jax.checkpoints.checkpoints import CheckpointConfig, Checkpoints, InitFrom
from ilm_jax.data.streams.schedule import Schedule
from ilm_jax.sharding.partitioning import MeshConfig, Partitioner
from ilm_jax.sharding.state import nested
from ilm_jax.training.optimizers import OptimizerConfig
from ilm_jax.training.trainer import Trainer, TrainerConfig
from tests.training import models

STEPS = 50
READER = ("^qformer/", "^adaptor/")


class Prompts:
    """Rows of random prompts with slots; example i is a pure function of i."""

    def rows(self, indices):
        drawn = [models.prompt_batch(seed=int(i)) for i in indices]
        return {name: np.stack([batch[name][0] for batch in drawn]) for name in drawn[0]}


def trainer(folder, objective, **config):
    config = {"total_steps": STEPS, "batch_size": models.ROWS, "log_every": 25, **config}
    return Trainer(
        model_dir=str(folder),
        objective=objective,
        table=models.table(),
        sources={"prompt": Prompts()},
        eval_sources={},
        schedule=Schedule({"prompt": 1}),
        config=TrainerConfig(**config),
        optimizer=OptimizerConfig(learning_rate=0.01),
        checkpoint=CheckpointConfig(every=0),
        partitioner=Partitioner(MeshConfig(1), devices=(jax.devices()[0],)),
    )


@pytest.fixture(scope="module")
def stages(tmp_path_factory):
    """(parameters before, parameters after) stage 2, whose language model stage 0 trained."""
    folder = tmp_path_factory.mktemp("stages")
    trainer(folder / "stage0", models.TEXT_ONLY, total_steps=3).fit()
    second = trainer(
        folder / "stage2",
        models.ILM,
        trainable=READER,
        init=(InitFrom(str(folder / "stage0")),),
        allow_fresh=READER,
    )
    optimizer = second.optimizer.build(STEPS)
    before, _ = second.initial_state(optimizer)
    copied = jax.tree.map(np.array, (before.trainable, before.frozen))
    second.fit()
    after, _, _ = Checkpoints(second.model_dir).resume(second.initial_state(optimizer)[0])
    assert int(after.step) == STEPS
    return copied, jax.tree.map(np.array, (after.trainable, after.frozen))


def test_frozen_weights_are_the_same_bits_after_fifty_steps(stages):
    (trained_before, frozen_before), (trained, frozen) = stages
    assert frozen and all(path.startswith("lm/") for path in frozen)
    jax.tree.map(np.testing.assert_array_equal, frozen, frozen_before)
    moved = [path for path in trained if not np.array_equal(trained[path], trained_before[path])]
    # All of the reader trained, but for what picks among the vector's tokens: there is one.
    still = set(trained) - set(moved)
    assert {path.split("cross_attention/")[-1] for path in still} == {"key/bias", "query/bias"}


@jax.jit
def logits(params, batch, table):
    model = models.ILM.model
    hidden = model.apply(
        {"params": params},
        *(batch[name] for name in ("tokens", "positions", "segment_ids")),
        *(batch[name] for name in ("slot_entity", "slot_query")),
        table[batch["entities"]],
    )
    return model.apply({"params": params}, hidden, method="logits")


def test_words_alone_give_the_bare_decoders_logits_before_and_after(stages):
    wordy, slotted = models.prompt_batch(1, slots=False), models.prompt_batch(1)
    (before, lm), (after, _) = stages
    bare_model = models.TEXT_ONLY.model
    bare_params = nested(lm)

    @jax.jit
    def bare(params, batch):
        names = ("tokens", "positions", "segment_ids", "slot_entity", "slot_query")
        hidden = bare_model.apply(
            {"params": params}, *(batch[name] for name in names), np.zeros((models.ROWS, 1, 1))
        )
        return bare_model.apply({"params": params}, hidden, method="logits")

    expected = bare(bare_params, wordy)
    results = {}
    for name, reader in (("before", before), ("after", after)):
        params, table = nested({**reader, **lm}), models.table()
        results[name] = logits(params, slotted, table)
        compiled = logits._cache_size()
        np.testing.assert_array_equal(logits(params, wordy, table), expected)
        assert logits._cache_size() == compiled == 1
    # With slots the training shows.
    assert not np.allclose(results["before"], results["after"], atol=1e-3)
