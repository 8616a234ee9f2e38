"""One run over several processes: one per host of a pod, or those of launch/local_pod.py.

JAX joins them by a coordinator, process 0. Where they run is told by the environment, never by the
recipe: JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID, or, with `--multiprocess`, by
the cluster itself (Cloud TPU, Slurm, Kubernetes).
"""

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Mapping
from typing import Any

import jax

from ilm_jax.checks import Count, check
from ilm_jax.errors import UserError
from ilm_jax.locks import LEASE, one_writer

VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")


@dataclasses.dataclass(frozen=True)
class ProcessConfig:
    """Settings of several processes: how long they wait for each other.

    Attributes:
      heartbeat_timeout_seconds: a process that has not been heard of for so long is taken for dead,
        and the others end.
      initialization_timeout: seconds in which all must have started.
    """

    heartbeat_timeout_seconds: Count = 100
    initialization_timeout: Count = 300

    def __post_init__(self) -> None:
        check(self)

    def start(self, multiprocess: bool, environment: Mapping[str, str] = os.environ) -> None:
        """Joins the other processes, where there are any; before anything touches a device.

        Args:
          multiprocess: ask the cluster where the environment names no coordinator.
          environment: variables.

        Raises:
          UserError: if the environment names only some of VARIABLES, or the others do not come.
        """
        named = {name: environment[name] for name in VARIABLES if environment.get(name)}
        where: dict[str, Any] = {}
        if named:
            missing = [name for name in VARIABLES if name not in named]
            numbers = [named.get(name, "") for name in VARIABLES[1:]]
            if missing or not all(number.isdigit() for number in numbers):
                raise UserError(
                    f"{', '.join(named)} set, so {', '.join(VARIABLES)} must all be, the last two "
                    "to numbers; launch/local_pod.py and launch/tpu_pod.py see to it"
                )
            where = {
                "coordinator_address": named[VARIABLES[0]],
                "num_processes": int(numbers[0]),
                "process_id": int(numbers[1]),
            }
        elif not multiprocess:
            return
        if environment.get("JAX_PLATFORMS") == "cpu":
            jax.config.update("jax_cpu_collectives_implementation", "gloo")
        try:
            jax.distributed.initialize(**where, **dataclasses.asdict(self))
        except (RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(
                f"the processes of this run did not meet ({reason}): start the same command on "
                "all hosts, within initialization_timeout"
            ) from error


@contextlib.contextmanager
def writing(folder: str, what: str, lease: float = LEASE) -> Iterator[None]:
    """Holds a folder's lock for all processes of this run; see `locks.one_writer`.

    Raises:
      UserError: in every process, if another run writes there.
    """
    alone = jax.process_count() == 1
    refused: UserError | None = None
    with contextlib.ExitStack() as stack:
        if jax.process_index() == 0:
            try:
                # Of several processes, JAX's coordination service handles SIGTERM.
                stack.enter_context(one_writer(folder, what, lease=lease, on_sigterm=alone))
            except UserError as error:
                refused = error
        if not alone and not _agreed(refused is None) and refused is None:
            refused = UserError(
                f"{folder}: the first process of this run says why it may not write there"
            )
        if refused is not None:
            raise refused
        yield


def _agreed(here: bool) -> bool:
    """What the first process says."""
    import numpy as np
    from jax.experimental import multihost_utils

    return bool(multihost_utils.broadcast_one_to_all(np.asarray(here)))
