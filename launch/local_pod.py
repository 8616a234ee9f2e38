"""Several processes on this machine, joined as the hosts of a pod are: the pod's own code path.

    python launch/local_pod.py --processes 2 --devices_per_process 4 -- train --gin_file=… …

The words behind `--` are those of `ilm`. Process 0 writes to this terminal, the others to files. A
process that dies takes the run with it: the others, which would wait for it in silence, are ended
and the dead one is named. SIGTERM (or Ctrl-C) goes to all: they save the same step and exit, and
the same command resumes.
"""

import argparse
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence

from ilm_jax.errors import UserError
from ilm_jax.files import trouble

POLL = 0.2  # seconds
GRACE = 5.0  # seconds that the others have to end by themselves when one has died


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def environment(
    process: int, processes: int, devices: int, port: int, given: Mapping[str, str]
) -> dict[str, str]:
    """Variables of one process: where the others are, and its virtual devices."""
    flags = [
        word
        for word in given.get("XLA_FLAGS", "").split()
        if "force_host_platform_device_count" not in word
    ]
    return {
        **given,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": " ".join([*flags, f"--xla_force_host_platform_device_count={devices}"]),
        "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
        "JAX_NUM_PROCESSES": str(processes),
        "JAX_PROCESS_ID": str(process),
    }


def start(
    words: Sequence[str],
    processes: int,
    devices: int,
    logs: pathlib.Path,
    module: str = "ilm_jax",
) -> list[subprocess.Popen]:
    """Starts all processes of a module; those but the first write to `logs`/process_<i>.log."""
    port, started = free_port(), []
    for i in range(processes):
        stream = None if i == 0 else (logs / f"process_{i}.log").open("w")
        started.append(
            subprocess.Popen(
                [sys.executable, "-m", module, *words],
                env=environment(i, processes, devices, port, os.environ),
                stdout=stream,
                stderr=stream and subprocess.STDOUT,
            )
        )
        if stream:
            stream.close()
    return started


def watch(started: Sequence[subprocess.Popen], logs: pathlib.Path) -> int:
    """Waits for all; ends the others when one fails. Returns the exit code of the run."""
    while any(process.poll() is None for process in started):
        failed = [i for i, process in enumerate(started) if process.poll() not in (None, 0)]
        if failed:
            end(started)
            first = failed[0]
            print(
                f"local_pod: error: process {first} {_how(started[first].returncode)}; "
                f"the others were ended{_last_words(logs, first)}",
                file=sys.stderr,
            )
            return 1
        time.sleep(POLL)
    codes = [process.returncode for process in started]
    for i, code in enumerate(codes):
        if code:
            print(
                f"local_pod: error: process {i} {_how(code)}{_last_words(logs, i)}", file=sys.stderr
            )
    return max(map(abs, codes))


def end(started: Sequence[subprocess.Popen]) -> None:
    """SIGTERM, and SIGKILL for who still runs after GRACE: they may hang in an exchange."""
    for process in started:
        if process.poll() is None:
            process.terminate()
    limit = time.monotonic() + GRACE
    while any(process.poll() is None for process in started) and time.monotonic() < limit:
        time.sleep(POLL)
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait()


def _how(code: int) -> str:
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"failed (code {code})"


def _last_words(logs: pathlib.Path, process: int) -> str:
    log = logs / f"process_{process}.log"
    words = log.read_text(errors="replace").strip().splitlines()[-3:] if log.exists() else []
    return f". Its last words: {' / '.join(words)}" if words else ""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the processes; 0 if all succeed, 1 if one fails, 2 for wrong input."""
    argv = list(sys.argv[1:] if argv is None else argv)
    own, words = (
        (argv[: argv.index("--")], argv[argv.index("--") + 1 :]) if "--" in argv else (argv, [])
    )
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--devices_per_process", type=int, default=4)
    parser.add_argument("--logs", type=pathlib.Path, help="folder; default: a temporary one")
    flags = parser.parse_args(own)
    try:
        if not words:
            raise UserError("name what to run: launch/local_pod.py … -- train --gin_file=…")
        if flags.processes < 1 or flags.devices_per_process < 1:
            raise UserError("--processes and --devices_per_process must be at least 1")
        logs = flags.logs or pathlib.Path(tempfile.mkdtemp(prefix="ilm-pod-"))
        logs.mkdir(parents=True, exist_ok=True)
    except (UserError, OSError) as error:
        print(f"local_pod: error: {trouble(error) or error}", file=sys.stderr)
        return 2
    print(
        f"local_pod: {flags.processes} processes x {flags.devices_per_process} devices, "
        f"logs in {logs}",
        file=sys.stderr,
    )
    started = start(words, flags.processes, flags.devices_per_process, logs)

    def forward(number: int, _: object) -> None:
        """Sends SIGTERM on to the processes that still run."""
        for process in started:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, forward)
    try:
        return watch(started, logs)
    finally:
        end(started)


if __name__ == "__main__":
    sys.exit(main())
