"""A run that goes on: where it is, whether its bits are whole, and what has changed around it."""

import os
from collections.abc import Mapping
from typing import Any

import jax

from ilm_jax.checkpoints.fingerprints import fingerprint
from ilm_jax.errors import UserError
from ilm_jax.files import folder_path
from ilm_jax.sharding.state import TrainState
from ilm_jax.training.writers import read_metrics


def is_finished(model_dir: str, latest: int | None, total: int) -> bool:
    """Whether all steps have been made.

    Args:
      model_dir: for the message.
      latest: step of the newest checkpoint, if there is one.
      total: steps that are asked for.

    Raises:
      UserError: if more than these have been made.
    """
    if (latest or 0) > total:
        raise UserError(
            f"{model_dir} has made {latest} steps, more than TRAIN_STEPS = {total}: ask for more, "
            "or start a new MODEL_DIR"
        )
    return latest == total


def schedule_of(meta: Mapping[str, Any] | None) -> int | None:
    """The step at which the learning rate's schedule ends, as a checkpoint says it."""
    optimizer = ((meta or {}).get("made_from") or {}).get("optimizer", {})
    return optimizer.get("decay_steps")


def check_bits(
    model_dir: str, meta: Mapping[str, Any], state: TrainState, frozen: str
) -> list[str]:
    """Compares what was restored with what its checkpoint says of it.

    Returns:
      Lines that say what may make the run differ from one that was left alone.

    Raises:
      UserError: if the frozen weights are others, or a weight has not the bits that were saved.
    """
    if meta["frozen"] != frozen:
        raise UserError(
            f"the frozen weights differ from those that {model_dir} was trained with: restore the "
            "checkpoint named in TrainerConfig.init, or start a new MODEL_DIR"
        )
    if meta.get("weights", "") not in ("", fingerprint(state.trainable)):
        raise UserError(
            f"the checkpoint of step {int(state.step)} in {model_dir} is damaged: its weights are "
            "not those that were saved; delete its folder to go on from the one before"
        )
    before, here = meta["environment"], environment()
    changed = [
        f"{name}: {before.get(name)} -> {value}"
        for name, value in here.items()
        if before.get(name) != value
    ]
    if not changed:
        return []
    return [f"warning: resumed elsewhere, so equal to rounding only ({'; '.join(changed)})"]


def environment() -> dict[str, Any]:
    """What must be equal for a resumed run to be equal bit for bit."""
    return {
        "jax": jax.__version__,
        "devices": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "processes": jax.process_count(),
        "cpu_threads": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0,
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
    }


def validation_at(model_dir: str, step: int) -> dict[str, float]:
    """The validation that stands in metrics.jsonl at a step; {} if there is none."""
    path, name = folder_path(model_dir) / "metrics.jsonl", "validation/"
    records = read_metrics(path) if path.exists() else []
    return {
        key.removeprefix(name): value
        for record in records
        if record["step"] == step
        for key, value in record.items()
        if key.startswith(name)
    }
