"""Asking Google Cloud about a pod, for one, and to take it back, until there is an answer."""

import json
import pathlib
import shlex
import sys
from collections.abc import Callable
from typing import Any

from ilm_jax.errors import UserError

sys.path.append(str(pathlib.Path(__file__).parent))  # where this is imported instead of run
from asking import Answer, Runner, Unanswered, patiently, say  # noqa: E402
from pod_commands import Pod  # noqa: E402

Wait = Callable[[float], None]


def look(
    pod: Pod, runner: Runner, wait: Wait, dry: str | None = "ACTIVE", first: bool = False
) -> str | None:
    """The pod's state; None if Google Cloud says that there is no such pod.

    Args:
      pod: which.
      runner: asks.
      wait: sleeps before the question is put again.
      dry: the answer in a dry run.
      first: nothing has been made yet, so a refusal (no permission, no login) is final.

    Raises:
      Unanswered: if it cannot be found out.
    """
    answer = patiently(
        lambda: runner.ask(pod.state(), dry or ""),
        lambda got: (
            bool(got.code == 0 and got.said)
            or got.absent(pod.name)
            or runner.dry_run
            or (first and got.refused)
        ),
        f"asking about the pod {pod.name}",
        wait,
    )
    if answer.code == 0 and answer.said:
        return answer.said
    if runner.dry_run or answer.absent(pod.name):
        return None
    rest = "; nothing was made" if first and answer.refused else f". {left(pod)}"
    raise Unanswered(f"Google Cloud does not say how the pod {pod.name} is ({answer.reason}){rest}")


def left(pod: Pod) -> str:
    """What a person has to know of a pod that the launcher leaves."""
    return (
        f"A pod that is there costs money. The same command goes on with it; this deletes it: "
        f"{shlex.join(pod.delete())}"
    )


def discard(pod: Pod, runner: Runner, wait: Wait) -> bool:
    """Deletes the pod; False, and loudly, if it is still there."""
    answer = patiently(
        lambda: runner.ask(pod.delete()),
        lambda got: got.code == 0 or got.absent(pod.name),
        f"deleting the pod {pod.name}",
        wait,
    )
    if answer.code == 0 or answer.absent(pod.name):
        return True
    say(f"WARNING: the pod {pod.name} could not be deleted ({answer.reason}). {left(pod)}")
    return False


def create(pod: Pod, runner: Runner, wait: Wait) -> bool:
    """Asks for the pod; False if one of this name may have been there before.

    Raises:
      UserError: if Google Cloud refuses.
    """

    def enough(got: Answer) -> bool:
        """Whether to stop asking: it is made, is there, or is refused for good."""
        if got.code == 0 or got.exists or got.refused:
            return True
        # Made all the same, its answer lost? Two of them would cost twice.
        return look(pod, runner, wait) is not None

    answer = patiently(
        lambda: runner.ask(pod.create()), enough, f"asking for the pod {pod.name}", wait
    )
    if answer.refused:
        raise UserError(f"Google Cloud refuses the pod {pod.name}: {answer.reason}")
    return answer.code == 0


def check_same(pod: Pod, runner: Runner) -> None:
    """Whether a pod that is there is of the kind that is asked for.

    Raises:
      UserError: if it is of another.
    """
    answer = runner.ask(pod.description())
    try:
        (spec,) = json.loads(answer.said)["tpu"]["nodeSpec"]
        node: dict[str, Any] = spec["node"]
        slices = int(
            spec.get("multisliceParams", spec.get("multiNodeParams", {})).get("nodeCount", 1)
        )
        shape = node.get("acceleratorConfig", {}).get("topology", "")
        kind = node.get("acceleratorType") or shape
    except (ValueError, KeyError, TypeError, AttributeError):
        kind = ""
    if answer.code or not kind:
        say(f"the pod {pod.name} does not say of which type it is; used as it is")
        return
    kinds = (pod.topology.accelerator_type, "x".join(map(str, pod.topology.shape)))
    if kind not in kinds or slices != pod.topology.slices:
        raise UserError(
            f"there is a pod {pod.name} of another type: {slices} x {kind}, not "
            f"{pod.topology.slices} x {kinds[0]}; choose another --name, or delete it: "
            f"{shlex.join(pod.delete())}"
        )
