"""Runs an `ilm` verb on a Cloud TPU pod, which it makes, and makes again when it is taken away.

    python launch/tpu_pod.py --name=align --zone=us-west4-a --project=P --spot -- \\
        train --gin_file=pods/gemma2_9b_v5e_256.gin --gin.MODEL_DIR=gs://bucket/run …

The pod is the recipe's TOPOLOGY unless --topology names another. `--dry_run` prints every command
and runs none. That Google Cloud could not be asked never counts as "there is no pod": the question
is put again, and nothing is deleted on doubt. docs/pods.md says what a project needs first.
"""

import argparse
import pathlib
import shlex
import signal
import sys
import tempfile
import time
from collections.abc import Sequence

from ilm_jax.compilation.topology import Topology
from ilm_jax.errors import UserError
from ilm_jax.files import trouble

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "launch"))  # where this is imported instead of run
from asking import CommandFailed, Runner, Unanswered, pause, say  # noqa: E402
from pod_commands import (  # noqa: E402
    ARCHIVE,
    CODE,
    FOLLOW,
    INSTALL,
    LOG,
    LOST_CONNECTION,
    RUN_STOPPED,
    RUN_VANISHED,
    Pod,
    run_line,
)
from pod_questions import Wait, check_same, create, discard, left, look  # noqa: E402

__all__ = [
    "CODE",
    "FOLLOW",
    "LOG",
    "RUN_STOPPED",
    "RUN_VANISHED",
    "Pod",
    "Runner",
    "acquire",
    "launch",
    "main",
    "run",
    "run_line",
]

RUNTIMES = {
    "v4": "tpu-ubuntu2204-base",
    "v5e": "v2-alpha-tpuv5-lite",
    "v5p": "v2-alpha-tpuv5",
    "v6e": "v2-alpha-tpuv6e",
}
POLL = 30.0  # seconds between looks at a queued resource
CREATIONS = 5  # of a pod that never comes to life, before a person has to look
SETUPS = 3  # failures to install on a living pod, before a person has to look
BROKEN = 10  # connections that break at once, before the run is started anew
# What a queued resource, or its node, can be in that will not become ACTIVE. SUSPENDING and
# DELETING pass; what is not known here is waited for.
LOST = ("FAILED", "SUSPENDED", "PREEMPTED", "TERMINATED", "STOPPED")


def acquire(pod: Pod, runner: Runner, wait: Wait = time.sleep, first: bool = True) -> bool:
    """Waits until the pod is there, making it if need be; True if it was there before.

    Raises:
      UserError: if Google Cloud refuses, does not answer, or gives pods that never come to life.
    """
    state = look(pod, runner, wait, dry=None, first=first)
    reused, made, ours = state == "ACTIVE", 0, not first
    while True:
        if state in LOST:
            say(f"the pod {pod.name} is {state}: it is deleted")
            if not discard(pod, runner, wait):
                raise UserError(f"the pod {pod.name} is {state} and cannot be deleted: see above")
            state = None
        elif state not in (None, "DELETING", "SUSPENDING") and not ours:
            check_same(pod, runner)
            ours = True
        if state == "ACTIVE":
            return reused
        if state is None:
            if made == CREATIONS:
                raise UserError(
                    f"asked {made} times for the pod {pod.name}, which never came to "
                    f"life. {left(pod)}"
                )
            ours, made = create(pod, runner, wait), made + 1
        wait(0 if runner.dry_run else POLL)
        state = look(pod, runner, wait)
        say(f"{pod.name} is {state or 'not there yet'}")


def launch(
    pod: Pod, words: Sequence[str], runner: Runner, archive: str, setup: str, wait: Wait
) -> int:
    """Copies and installs the checkout, starts the verb on all workers and follows the first.

    `setup` is a shell line for every worker before that, such as one that fetches the inputs.
    Returns the verb's exit code, LOST_CONNECTION, RUN_STOPPED or RUN_VANISHED.
    """
    for command in pod.copy(archive):
        runner.run(command)
    for node in pod.nodes:
        runner.run(pod.on(node, INSTALL))
        if setup:
            runner.run(pod.on(node, setup))
    for node in pod.nodes:
        runner.run(pod.on(node, run_line([*words, "--multiprocess"])))
    return follow(pod, runner, wait)


def follow(pod: Pod, runner: Runner, wait: Wait) -> int:
    """Follows the run until it has ended or the pod is no longer there; returns as `launch`."""
    broken = 0
    while True:
        start = time.monotonic()
        code = runner.run(pod.on(pod.nodes[0], FOLLOW, worker="0"), check=False)
        if code == 1:  # gcloud's own failures, and Python's
            answer = runner.ask(pod.on(pod.nodes[0], CODE, worker="0"))
            if answer.code == 0 and answer.said in ("", "1"):
                return code
            code = int(answer.said) if answer.said.isdigit() else LOST_CONNECTION
        if code >= 0 and code != LOST_CONNECTION:
            return code
        broken = 0 if time.monotonic() - start > 60 else broken + 1
        if look(pod, runner, wait) != "ACTIVE" or broken == BROKEN:
            return LOST_CONNECTION
        wait(pause(broken))  # the connection alone broke, and the run goes on


def run(
    pod: Pod,
    words: Sequence[str],
    runner: Runner,
    *,
    retries: int,
    keep: bool,
    archive: str,
    setup: str = "",
    wait: Wait = time.sleep,
) -> int:
    """The whole of it; a pod that is taken away is made again, and the run resumes.

    Returns:
      The verb's exit code.
    """
    # Once, and before a pod costs money: every start of the run is of the same commit.
    runner.run(["git", "-C", str(ROOT), "archive", "--format=tar.gz", "-o", archive, "HEAD"])
    failures = 0
    for attempt in range(retries + 1):
        acquire(pod, runner, wait, first=attempt == 0)
        try:
            code = launch(pod, words, runner, archive, setup, wait)
            failures = 0
        except CommandFailed as error:  # preempted while copying or installing looks like this
            say(str(error))
            code, failures = LOST_CONNECTION, failures + 1
        if code == 0 or (
            code not in (LOST_CONNECTION, RUN_STOPPED, RUN_VANISHED)
            and _ended(pod, code, runner, wait)
        ):
            if not keep:
                discard(pod, runner, wait)
            return code
        if code == RUN_STOPPED:
            wait(POLL)  # a machine that is being taken away is ACTIVE for a while
        state = look(pod, runner, wait)
        if state == "ACTIVE" and failures == SETUPS:
            raise UserError(f"{failures} failures in a row on a living pod: see above. {left(pod)}")
        say(
            f"the pod is {state or 'gone'} (attempt {attempt + 1} of {retries + 1}); the run goes "
            "on from its last checkpoint"
        )
    raise UserError(
        f"gave up after {retries + 1} attempts; the same command resumes the run. {left(pod)}"
    )


def _ended(pod: Pod, code: int, runner: Runner, wait: Wait) -> bool:
    """Whether a run that failed did so by itself, and not since its pod was taken away."""
    try:
        return look(pod, runner, wait) == "ACTIVE"
    except Unanswered as error:
        raise Unanswered(f"the run has ended with code {code}. {error}") from error


def recipe_topology(words: Sequence[str]) -> str:
    """TOPOLOGY of the recipe that the words name; "" if none."""
    from ilm_jax.cli.words import split_bindings
    from ilm_jax.runs import gin_config
    from ilm_jax.runs.run import Run

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
                "see docs/pods.md"
            )
        pod = Pod(
            flags.name,
            flags.zone,
            topology,
            runtime,
            flags.project,
            flags.spot,
            flags.service_account,
        )
        archive = f"{tempfile.gettempdir()}/{flags.name}-{ARCHIVE}"
        signal.signal(signal.SIGTERM, _interrupt)
        return run(
            pod,
            words,
            Runner(flags.dry_run),
            retries=flags.retries,
            keep=flags.keep,
            archive=archive,
            setup=flags.setup,
        )
    except (UserError, OSError) as error:
        print(f"tpu_pod: error: {trouble(error) or error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(
            f"tpu_pod: interrupted; the run and the pod go on; the same command starts it anew "
            f"from its last checkpoint, and this ends both: {shlex.join(pod.delete())}",
            file=sys.stderr,
        )
        return 130


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
