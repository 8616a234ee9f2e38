"""Runs an `ilm` verb on a Cloud TPU pod, which it makes, and makes again when it is taken away.

    python launch/tpu_pod.py --name=align --zone=us-west4-a --project=P --spot -- \\
        train --gin_file=pods/gemma2_9b_v5e_256.gin --gin.MODEL_DIR=gs://bucket/run …

The pod is the recipe's TOPOLOGY unless --topology names another. `--dry_run` prints every command
and runs none. launch/README.md says what a project needs first.
"""

import argparse
import dataclasses
import pathlib
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

from ilm_jax.compilation.topology import Topology
from ilm_jax.errors import UserError

ROOT = pathlib.Path(__file__).resolve().parent.parent
RUNTIMES = {
    "v4": "tpu-ubuntu2204-base", "v5e": "v2-alpha-tpuv5-lite", "v5p": "v2-alpha-tpuv5",
    "v6e": "v2-alpha-tpuv6e",
}  # fmt: skip
ARCHIVE = "ilm_jax.tar.gz"
POLL = 30.0  # seconds between looks at a queued resource
LOST_CONNECTION = 255  # ssh's own exit code
# What a queued resource can be in that will not become ACTIVE.
LOST = ("FAILED", "SUSPENDED", "SUSPENDING", "DELETING")
_SECRET = re.compile(r"(?i)((?:token|key|password|secret|credential)\w*=)\S+|\bya29\.[\w.-]+")


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
            "queued-resources", "create", self.name, *node,
            f"--accelerator-type={self.topology.accelerator_type}",
            f"--runtime-version={self.runtime}", *(["--spot"] if self.spot else []), *account,
        ]  # fmt: skip
        return self._gcloud(*words)

    def state(self) -> list[str]:
        """Prints the queued resource's state."""
        return self._gcloud(
            "queued-resources", "describe", self.name, "--format=value(state.state)"
        )

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


def run_line(words: Sequence[str]) -> str:
    """The shell line that starts the verb on a worker; it goes on when the connection breaks.

    An earlier run of the worker is asked to save and end first, since it holds the chips.
    """
    verb = shlex.join(["-m", "ilm_jax", *words])
    inner = f"~/ilm_jax_venv/bin/python {verb} > ~/{LOG} 2>&1; echo $? > ~/{LOG}.code"
    return (
        f"[ -f ~/{LOG}.pid ] && kill -- -$(cat ~/{LOG}.pid) 2>/dev/null && sleep 30; "
        f"cd ilm_jax_checkout; rm -f ~/{LOG} ~/{LOG}.code; "
        f"nohup setsid bash -c {shlex.quote(inner)} < /dev/null > /dev/null 2>&1 & "
        f"echo $! > ~/{LOG}.pid; disown"
    )


# Follows worker 0's log until the run there has ended, and exits as it did.
FOLLOW = (
    f"touch ~/{LOG}; tail -n +1 -f ~/{LOG} & while [ ! -f ~/{LOG}.code ]; do sleep 2; done; "
    f"sleep 2; kill %1; exit $(cat ~/{LOG}.code)"
)


class Runner:
    """Runs commands, or prints them; what looks like a secret is not printed."""

    def __init__(self, dry_run: bool) -> None:
        """`dry_run`: print alone."""
        self.dry_run = dry_run

    def show(self, words: Sequence[str]) -> None:
        """Prints a command as a shell would take it."""
        print(f"$ {_SECRET.sub(_masked, shlex.join(words))}", flush=True)

    def run(self, words: Sequence[str], *, check: bool = True) -> int:
        """Runs one command; returns its exit code.

        Raises:
          UserError: if it fails and `check`.
        """
        self.show(words)
        if self.dry_run:
            return 0
        try:
            code = subprocess.run(list(words), check=False).returncode
        except FileNotFoundError as error:
            raise UserError(f"{words[0]} is not installed: see launch/README.md") from error
        if code and check:
            raise UserError(f"{' '.join(words[:6])} … failed (code {code}); its message is above")
        return code

    def read(self, words: Sequence[str], dry: str) -> str:
        """What a command prints; "" if it fails, `dry` in a dry run."""
        self.show(words)
        if self.dry_run:
            return dry
        try:
            found = subprocess.run(list(words), check=False, capture_output=True, text=True)
        except FileNotFoundError as error:
            raise UserError(f"{words[0]} is not installed: see launch/README.md") from error
        return found.stdout.strip() if found.returncode == 0 else ""


def _masked(found: re.Match) -> str:
    return f"{found.group(1) or ''}***"


def acquire(pod: Pod, runner: Runner, wait: Callable[[float], None] = time.sleep) -> bool:
    """Waits until the pod is there, making it if need be; True if it was there before.

    Raises:
      UserError: if Google Cloud refuses.
    """
    state = runner.read(pod.state(), "")
    reused = state == "ACTIVE"
    while state != "ACTIVE":
        if state in LOST:
            runner.run(pod.delete(), check=False)
            state = ""
        if not state:
            runner.run(pod.create())
        wait(0 if runner.dry_run else POLL)
        state = runner.read(pod.state(), "ACTIVE")
        print(f"tpu_pod: {pod.name} is {state or 'not there yet'}", file=sys.stderr)
    return reused


def launch(pod: Pod, words: Sequence[str], runner: Runner, archive: str, setup: str) -> int:
    """Copies and installs the checkout, starts the verb on all workers and follows the first.

    `setup` is a shell line for every worker before that, such as one that fetches the inputs.
    Returns the verb's exit code; 255 is ssh's own, for a pod that is gone.
    """
    runner.run(["git", "-C", str(ROOT), "archive", "--format=tar.gz", "-o", archive, "HEAD"])
    for command in pod.copy(archive):
        runner.run(command)
    for node in pod.nodes:
        runner.run(pod.on(node, INSTALL))
        if setup:
            runner.run(pod.on(node, setup))
    for node in pod.nodes:
        runner.run(pod.on(node, run_line([*words, "--multiprocess"])))
    code = LOST_CONNECTION
    while code == LOST_CONNECTION:
        code = runner.run(pod.on(pod.nodes[0], FOLLOW, worker="0"), check=False)
        if code == LOST_CONNECTION and runner.read(pod.state(), "ACTIVE") != "ACTIVE":
            break  # else the connection alone broke, and the run goes on
    return code


def run(
    pod: Pod,
    words: Sequence[str],
    runner: Runner,
    *,
    retries: int,
    keep: bool,
    archive: str,
    setup: str = "",
    wait: Callable[[float], None] = time.sleep,
) -> int:
    """The whole of it; a pod that is taken away is made again, and the run resumes.

    Returns:
      The verb's exit code.
    """
    for attempt in range(retries + 1):
        acquire(pod, runner, wait)
        try:
            code = launch(pod, words, runner, archive, setup)
        except UserError as error:  # preempted while copying or installing looks like this
            print(f"tpu_pod: {error}", file=sys.stderr)
            code = LOST_CONNECTION
        state = runner.read(pod.state(), "ACTIVE")
        if state == "ACTIVE" and code != LOST_CONNECTION:
            if not keep:
                runner.run(pod.delete(), check=False)
            return code
        told = f"the pod is {state or 'gone'} (attempt {attempt + 1} of {retries + 1})"
        print(f"tpu_pod: {told}; the run goes on from its last checkpoint", file=sys.stderr)
        if state != "ACTIVE":
            runner.run(pod.delete(), check=False)
    raise UserError(f"gave up after {retries + 1} attempts; the same command resumes the run")


def recipe_topology(words: Sequence[str]) -> str:
    """TOPOLOGY of the recipe that the words name; "" if none."""
    from ilm_jax.cli import gin_config
    from ilm_jax.cli.words import split_bindings
    from ilm_jax.training.run import Run

    bindings, rest = split_bindings(words)
    files = [word.split("=", 1)[1] for word in rest if word.startswith("--gin_file=")]
    search = [w.split("=", 1)[1] for w in rest if w.startswith("--gin_search_paths=")]
    if not files:
        return ""
    return gin_config.build(Run, files, bindings, search, unnamed="(not opened)").topology


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the verb on a pod; returns its exit code, 2 for wrong input."""
    argv = list(sys.argv[1:] if argv is None else argv)
    cut = argv.index("--") if "--" in argv else len(argv)
    own, words = argv[:cut], argv[cut + 1 :]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--name", required=True, help="of the pod")
    parser.add_argument("--zone", required=True, help="such as us-west4-a")
    parser.add_argument("--project", help="default: gcloud's")
    parser.add_argument("--topology", help="default: the recipe's TOPOLOGY")
    parser.add_argument("--runtime_version", help="default: by the kind of TPU")
    parser.add_argument("--service_account", help="default: the project's")
    parser.add_argument("--spot", action="store_true", help="cheaper, may be taken away")
    parser.add_argument("--retries", type=int, default=20, help="pods to make after the first")
    parser.add_argument("--setup", default="", help="shell line for every worker before the run")
    parser.add_argument("--keep", action="store_true", help="leave the pod when the run has ended")
    parser.add_argument("--dry_run", action="store_true", help="print every command, run none")
    flags = parser.parse_args(own)
    try:
        if not words:
            raise UserError("name what to run: launch/tpu_pod.py … -- train --gin_file=…")
        topology = Topology.parse(flags.topology or recipe_topology(words) or "(none)")
        runtime = flags.runtime_version or RUNTIMES.get(topology.generation)
        if not runtime:
            raise UserError(
                f"{topology.generation} comes through Kubernetes Engine, not as queued resources: "
                "see launch/README.md"
            )
        pod = Pod(flags.name, flags.zone, topology, runtime, flags.project, flags.spot,
                  flags.service_account)  # fmt: skip
        archive = f"/tmp/{flags.name}-{ARCHIVE}"
        return run(pod, words, Runner(flags.dry_run), retries=flags.retries, keep=flags.keep,
                   archive=archive, setup=flags.setup)  # fmt: skip
    except UserError as error:
        print(f"tpu_pod: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"tpu_pod: interrupted; the run and the pod go on; the same command starts it anew "
              f"from its last checkpoint, and this ends both: {shlex.join(pod.delete())}",
              file=sys.stderr)  # fmt: skip
        return 130


if __name__ == "__main__":
    sys.exit(main())
