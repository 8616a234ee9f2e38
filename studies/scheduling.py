"""Steps of a study side by side: each starts as soon as what it reads is made."""

import concurrent.futures
import importlib.util
import json
import os
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from steps import Step, is_named, output_of, read_json, run_step

from ilm_jax.files import atomic_write

if TYPE_CHECKING:
    from study import Study


def default_jobs() -> int:
    """Two on a CPU with two cores: a small model keeps hardly more than one busy; else one.

    An accelerator belongs to one process at a time.
    """
    accelerator = os.environ.get("JAX_PLATFORMS", "") != "cpu" and any(
        importlib.util.find_spec(name) for name in ("libtpu", "jax_plugins")
    )
    return 1 if accelerator or (os.cpu_count() or 1) < 2 else 2


def run_steps(
    study: "Study", steps: Sequence[Step], earlier: Sequence[pathlib.Path] = ()
) -> dict[str, float]:
    """Runs every missing step, `study.jobs` at a time. Returns seconds by step, kept in the folder.

    A step waits for those before it whose output its command names.

    Args:
      study: whose.
      steps: in an order in which they could run one by one.
      earlier: outputs that are there already.

    Raises:
      UserError: if a step fails, was stopped, or was made by another command or from other inputs;
        steps beside it are finished first.
    """
    outputs = [output_of(done) for _, _, done in steps]
    waiting, made = list(range(len(steps))), set[int]()
    seconds = read_json(study.folder / "seconds.json")
    running: dict[concurrent.futures.Future[bool], int] = {}
    with concurrent.futures.ThreadPoolExecutor(study.jobs) as pool:
        while waiting or running:
            ready = [n for n in waiting if _needs(steps, outputs, n) <= made]
            for number in ready[: study.jobs - len(running)]:
                waiting.remove(number)
                label = f"[{number + 1}/{len(steps)}] "
                before = [*earlier, *outputs[:number]]
                future = pool.submit(run_step, study, *steps[number], before, label, seconds)
                running[future] = number
            ended, _ = concurrent.futures.wait(running, return_when="FIRST_COMPLETED")
            for future in ended:
                if future.result():
                    with atomic_write(study.folder / "seconds.json") as stream:
                        json.dump(dict(seconds), stream, indent=1)
                made.add(running.pop(future))
    return seconds


def _needs(steps: Sequence[Step], outputs: Sequence[pathlib.Path], number: int) -> set[int]:
    """Numbers of the steps that must be finished before a step starts."""
    command = steps[number][1]
    return {n for n in range(number) if is_named(outputs[n], command)}
