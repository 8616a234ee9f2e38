"""Checks of a run before its data and weights are loaded."""

import sys
from typing import TYPE_CHECKING

import jax

from ilm_jax.errors import UserError
from ilm_jax.training.writers import check_writers

if TYPE_CHECKING:
    from ilm_jax.training.trainer import Trainer


def check_trainer(trainer: "Trainer") -> None:
    """Refuses what cannot be trained, and warns of what a person may not have meant.

    Raises:
      UserError: naming the setting.
    """
    config = trainer.config
    check_writers(config.metric_writers)
    if trainer.optimizer.warmup_steps > config.total_steps:
        _warn(
            f"warning: OptimizerConfig.warmup_steps={trainer.optimizer.warmup_steps}, but "
            f"the run has {config.total_steps}: its learning rate never reaches its peak"
        )
    trainer.partitioner.batch_sharding(config.batch_size // config.microbatches)
    if config.batch_size % config.microbatches:
        raise UserError(
            f"batch size {config.batch_size} is not divisible by microbatches {config.microbatches}"
        )
    if config.microbatches > 1 and not trainer.objective.splits_batches:
        raise UserError(
            "microbatches > 1 would change a contrastive loss, whose negatives are the whole "
            "batch: set microbatches = 1, or remat = 'full' to save memory"
        )
    for kind in trainer.schedule.kinds:
        if kind not in trainer.objective.kinds:
            raise UserError(
                f"the schedule names {kind!r}; this objective has {trainer.objective.kinds}"
            )


def _warn(text: str) -> None:
    if jax.process_index() == 0:
        print(text, file=sys.stderr, flush=True)
