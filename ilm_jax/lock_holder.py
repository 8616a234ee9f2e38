"""Who holds a lock, and whether that process still lives."""

import dataclasses
import functools
import json
import os
import pathlib
import secrets
import socket
import time

_JOBS = ("SLURM_JOB_ID", "TPU_NAME", "JAX_COORDINATOR_ADDRESS")


@dataclasses.dataclass
class Holder:
    """The process that holds a lock, as the lock records it.

    Attributes:
      what: the verb.
      host, pid: where it runs.
      started: when it did, in the machine's own ticks: a number given again is another process.
      boot: of that machine's start, and of the numbering of processes (each container has one).
      job: what the cluster calls it; "" without one.
      since: time of day, for people alone.
      nonce: of this holding.
      lease: seconds.
      beat: raised as long as the process lives.
    """

    what: str
    host: str
    pid: int
    started: str
    boot: str
    job: str
    since: str
    nonce: str
    lease: float
    beat: int = 0

    @classmethod
    def of_this_process(cls, what: str, lease: float) -> "Holder":
        """With a nonce of its own."""
        job = next((f"{n}={os.environ[n]}" for n in _JOBS if os.environ.get(n)), "")
        return cls(
            what,
            socket.gethostname(),
            os.getpid(),
            _state(os.getpid())[1],
            _boot(),
            job,
            time.strftime("%Y-%m-%d %H:%M:%S %Z"),
            secrets.token_hex(8),
            lease,
        )

    @classmethod
    def parse(cls, content: bytes) -> "Holder | None":
        """None for what no process of ours has written."""
        try:
            fields = json.loads(content)
            holder = cls(**fields)
            return holder if isinstance(holder.pid, int) and holder.lease > 0 else None
        except (ValueError, TypeError):
            return None

    def lives(self) -> bool | None:
        """Whether the process lives; None if that cannot be seen from here."""
        if self.boot != _boot():
            return None
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except OSError:  # somebody else's
            pass
        state, started = _state(self.pid)
        if not started or not self.started:
            return None
        return state not in "ZX" and started == self.started

    def __str__(self) -> str:
        job = f", {self.job}" if self.job else ""
        return f"`{self.what}`, process {self.pid} on {self.host} since {self.since}{job}"


@functools.cache
def _boot() -> str:
    """Names this start of the machine and this numbering of processes."""
    try:
        boot = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return socket.gethostname()


def _state(pid: int) -> tuple[str, str]:
    """(state, start in ticks since the machine's own) of a process; ("", "") if it is not shown."""
    try:
        # The name, in parentheses, may hold anything.
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2]
    except OSError:
        return "", ""
    state, *rest = fields.split()
    return state, rest[18]
