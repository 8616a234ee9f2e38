"""Stage 2 takes over stage 1's Q-Former, whatever texts stage 1 read."""

import dataclasses

import numpy as np
import pytest

from ilm_jax.checkpoints.checkpoints import CheckpointConfig, InitFrom
from ilm_jax.checkpoints.published.sources import open_source
from ilm_jax.data.streams.schedule import Schedule
from ilm_jax.errors import UserError
from ilm_jax.models.qformer import TEXT_ONLY_PATTERNS
from ilm_jax.objectives.alignment import Alignment
from ilm_jax.sharding.partitioning import Partitioner
from ilm_jax.training.optimizers import OptimizerConfig
from ilm_jax.training.trainer import Trainer, TrainerConfig
from tests.training import models

OPTIMIZER = OptimizerConfig(learning_rate=0.01)


class Pairs:
    """Pairs of entities."""

    def rows(self, indices):
        batch = models.alignment_batch("user_item")
        return {name: value[np.asarray(indices) % models.ROWS] for name, value in batch.items()}


def trainer(folder, objective, kind, **config):
    return Trainer(
        model_dir=str(folder),
        objective=objective,
        table=models.table(),
        sources={kind: Pairs()},
        eval_sources={},
        schedule=Schedule({kind: 1}),
        config=TrainerConfig(**{"total_steps": 1, "batch_size": models.ROWS, **config}),
        optimizer=OPTIMIZER,
        checkpoint=CheckpointConfig(every=0),
        partitioner=Partitioner(),
    )


def second(folder, qformer):
    """Parameters that stage 2 would start with."""
    source = InitFrom(str(folder / "stage1"), ("^qformer/",), allow_unused=TEXT_ONLY_PATTERNS)
    stage = trainer(
        folder / "stage2",
        models.ILM.with_configs({"qformer": qformer}),
        "prompt",
        init=(source,),
        allow_fresh=("^adaptor/", "^lm/"),
    )
    return stage.initial_state(OPTIMIZER.build(1))[0].trainable


@pytest.mark.slow
def test_the_length_and_the_tokenizer_of_stage_one_are_its_own(tmp_path):
    longer = dataclasses.replace(
        models.QFORMER, vocab_size=99, max_text_length=30, projection_dim=8, dec_id=7
    )
    trainer(tmp_path / "stage1", Alignment(longer), "user_item").fit()
    started = second(tmp_path, models.QFORMER)
    saved = open_source(str(tmp_path / "stage1")).entries
    name = "qformer/layers/sub_0/cross_attention/value/kernel"
    (entry,) = (saved[n] for n in saved if n.endswith("layer_00/cross_attention/value/kernel"))
    np.testing.assert_array_equal(started[name][0], entry.read())
    with pytest.raises(UserError, match=r"another QFormerConfig .*num_heads 4 \(here 8\)"):
        second(tmp_path, dataclasses.replace(models.QFORMER, num_heads=8))
