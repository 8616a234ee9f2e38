"""A Cloud TPU pod by name, and the commands that handle it; none is run here."""

import dataclasses
import re
import shlex
from collections.abc import Sequence

from ilm_jax.compilation.topology import Topology
from ilm_jax.errors import UserError
from ilm_jax.training.stopping import STOPPED

ARCHIVE = "ilm_jax.tar.gz"
# Exit codes of FOLLOW that are not the verb's own.
LOST_CONNECTION = 255  # ssh's
RUN_STOPPED = 143  # SIGTERM has ended the run before its end, and it saved
RUN_VANISHED = 250  # no exit code, and no process: the machine was started anew, or memory ran out


@dataclasses.dataclass(frozen=True)
class Pod:
    """A pod by name, and the commands that handle it; each is a list of words, never a shell line.

    Attributes:
      name: of the queued resource; its nodes are <name>, or <name>-0, <name>-1… for slices.
      zone, project: of Google Cloud; project None is gcloud's own.
      topology: chips and slices.
      runtime: image of the TPU VMs.
      spot: cheaper, and may be taken away at any time.
      service_account: that the VMs act as, for buckets; None is the project's default.
    """

    name: str
    zone: str
    topology: Topology
    runtime: str
    project: str | None = None
    spot: bool = False
    service_account: str | None = None

    def __post_init__(self) -> None:
        """Refuses names that Google Cloud would, before anything is made."""
        if not re.fullmatch(r"[a-z]([a-z0-9-]{0,48}[a-z0-9])?", self.name):
            raise UserError(
                f"--name={self.name!r}: at most 50 small letters, digits and dashes, a letter first"
            )
        if not re.fullmatch(r"[a-z]+-[a-z]+\d+-[a-z]", self.zone):
            raise UserError(f"--zone={self.zone!r} is no zone: write it like us-west4-a")

    @property
    def nodes(self) -> list[str]:
        """Names of the slices."""
        count = self.topology.slices
        return [self.name] if count == 1 else [f"{self.name}-{i}" for i in range(count)]

    def _gcloud(self, *words: str) -> list[str]:
        where = [f"--zone={self.zone}", *([f"--project={self.project}"] if self.project else [])]
        return ["gcloud", "compute", "tpus", *words, *where]

    def create(self) -> list[str]:
        """Asks for the pod; it comes when there is room."""
        slices = self.topology.slices
        node = (
            [f"--node-id={self.name}"]
            if slices == 1
            else [f"--node-count={slices}", f"--node-prefix={self.name}"]
        )
        account = [f"--service-account={self.service_account}"] if self.service_account else []
        words = [
            "queued-resources",
            "create",
            self.name,
            *node,
            f"--accelerator-type={self.topology.accelerator_type}",
            f"--runtime-version={self.runtime}",
            *(["--spot"] if self.spot else []),
            *account,
        ]
        return self._gcloud(*words)

    def state(self) -> list[str]:
        """Prints the queued resource's state."""
        return self._gcloud(
            "queued-resources", "describe", self.name, "--format=value(state.state)"
        )

    def description(self) -> list[str]:
        """Prints what the queued resource was asked for, as JSON."""
        return self._gcloud("queued-resources", "describe", self.name, "--format=json(tpu)")

    def delete(self) -> list[str]:
        """Gives the pod back."""
        return self._gcloud("queued-resources", "delete", self.name, "--force", "--quiet")

    def copy(self, archive: str) -> list[list[str]]:
        """Puts a file into the home folder of every worker."""
        return [
            self._gcloud("tpu-vm", "scp", archive, f"{node}:{ARCHIVE}", "--worker=all", "--quiet")
            for node in self.nodes
        ]

    def on(self, node: str, line: str, worker: str = "all") -> list[str]:
        """Runs a shell line on a node's workers."""
        return self._gcloud(
            "tpu-vm", "ssh", node, f"--worker={worker}", "--quiet", f"--command={line}"
        )


# The VMs' own Python is older than ours; uv brings one.
INSTALL = (
    f"set -e; rm -rf ilm_jax_checkout; mkdir ilm_jax_checkout; tar -xzf {ARCHIVE} "
    "-C ilm_jax_checkout; cd ilm_jax_checkout; python3 -m pip install -q --user uv; "
    "~/.local/bin/uv venv -q --allow-existing --python 3.12 ~/ilm_jax_venv; "
    "VIRTUAL_ENV=~/ilm_jax_venv ~/.local/bin/uv pip install -q -e '.[tpu]' gcsfs "
    "google-cloud-storage"
)
LOG = "ilm_jax_run.log"


# Whether a worker's run is alive: its group of processes, since the same start of the machine.
_BOOT = "/proc/sys/kernel/random/boot_id"
_ALIVE = f'[ "$(cat ~/{LOG}.boot)" = "$(cat {_BOOT})" ] && kill -0 -- -$(cat ~/{LOG}.pid)'


def run_line(words: Sequence[str]) -> str:
    """The shell line that starts the verb on a worker; it goes on when the connection breaks.

    An earlier run of the worker is asked to save and end first, since it holds the chips and writes
    into MODEL_DIR; what has not ended after ten minutes is killed.
    """
    verb = shlex.join(["-m", "ilm_jax", *words])
    # The shell outlives a SIGTERM to the group, to write down how the verb ended.
    inner = f"trap : TERM; ~/ilm_jax_venv/bin/python {verb} > ~/{LOG} 2>&1; echo $? > ~/{LOG}.code"
    end = (
        f"kill -- -$(cat ~/{LOG}.pid); n=0; while {_ALIVE} && [ $n -lt 600 ]; do sleep 1; "
        f"n=$((n+1)); done; kill -9 -- -$(cat ~/{LOG}.pid)"
    )
    return (
        f"{{ {_ALIVE} && {{ {end}; }}; }} 2>/dev/null; "
        f"cd ilm_jax_checkout; rm -f ~/{LOG} ~/{LOG}.code; cat {_BOOT} > ~/{LOG}.boot; "
        f"nohup setsid bash -c {shlex.quote(inner)} < /dev/null > /dev/null 2>&1 & "
        f"echo $! > ~/{LOG}.pid; disown"
    )


# Follows worker 0's log until the run there has ended, and exits as it did.
FOLLOW = (
    f"touch ~/{LOG}; tail -n +1 -f ~/{LOG} & while [ ! -f ~/{LOG}.code ]; do sleep 2; "
    f"{{ {_ALIVE}; }} 2>/dev/null || {{ sleep 2; [ -f ~/{LOG}.code ] || "
    f"{{ kill %1; exit {RUN_VANISHED}; }}; }}; done; "
    f"sleep 2; kill %1; code=$(cat ~/{LOG}.code); "
    f"[ $code = 0 ] && tail -n 20 ~/{LOG} | grep -q {shlex.quote(STOPPED)} && code={RUN_STOPPED}; "
    "exit $code"
)
# Prints the exit code of worker 0's run: gcloud's own failures exit with 1, as Python's do.
CODE = f"[ -f ~/{LOG}.code ] && cat ~/{LOG}.code || echo running"
