"""Orbax's manager as our checkpoints use it, and its errors as lines to a person."""

import contextlib
import errno
import logging
import pathlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy

from ilm_jax.checkpoints.keeping import loss_of
from ilm_jax.errors import UserError
from ilm_jax.files import is_full, is_remote, is_there

if TYPE_CHECKING:
    from etils import epath

Policies = list[preservation_policy.PreservationPolicy]


def listed_steps(folder: "pathlib.Path | epath.Path") -> list[int] | None:
    """Steps of the whole checkpoints in a folder; None if the folder is not there.

    Raises:
      UserError: if that cannot be found out.
    """
    if not is_there(folder):
        return None
    steps = [child for child in folder.iterdir() if child.name.isdigit()]
    if is_remote(folder):  # where a folder cannot be renamed, this file comes last
        steps = [step for step in steps if is_there(step / "commit_success.txt")]
    return [int(step.name) for step in steps]


def open_manager(
    folder: "pathlib.Path | epath.Path", keep: Policies | None, asynchronous: bool
) -> ocp.CheckpointManager:
    """A manager of a folder of checkpoints.

    Args:
      folder: of the steps.
      keep: policies of what is kept; None opens for reading alone.
      asynchronous: write in the background.
    """
    return ocp.CheckpointManager(
        folder,
        options=ocp.CheckpointManagerOptions(
            cleanup_tmp_directories=keep is not None,
            create=keep is not None,
            read_only=keep is None,
            best_fn=loss_of,
            best_mode="min",
            preservation_policy=preservation_policy.AnyPreservationPolicy(keep) if keep else None,
            enable_async_checkpointing=asynchronous,
        ),
        item_names=("params", "optimizer", "meta"),
        item_handlers={
            "params": ocp.PyTreeCheckpointHandler(),
            "optimizer": ocp.PyTreeCheckpointHandler(),
            "meta": ocp.JsonCheckpointHandler(),
        },
    )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Orbax warns of every manager that is opened for reading that it is so."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextlib.contextmanager
def one_line(where: object) -> Iterator[None]:
    """Turns what Orbax and TensorStore raise of a damaged checkpoint into a one-line UserError."""
    try:
        yield
    except (ValueError, TypeError, KeyError, AttributeError, OSError, RuntimeError) as error:
        if is_full(error) or getattr(error, "errno", None) in (errno.EROFS, errno.EACCES):
            raise  # nothing is wrong with what is there
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{where} cannot be read ({reason}): if a checkpoint there is damaged, delete its "
            "folder to go on from the one before it"
        ) from error
