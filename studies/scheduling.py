"""Steps of a study side by side: each starts as soon as what it reads is made."""

import concurrent.futures
import importlib.util
import json
import os
import pathlib
import queue
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


def jobs(word: str) -> int:
    """A number of steps side by side; argparse tells of a ValueError."""
    if not word.isdecimal() or int(word) < 1:
        raise ValueError(word)
    return int(word)


def positive(word: str) -> int:
    """A number from 1 on; argparse tells of a ValueError, in this function's name."""
    return jobs(word)


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
    cores: queue.SimpleQueue[set[int]] = queue.SimpleQueue()
    for own in cores_of(study.jobs):
        cores.put(own)
    with concurrent.futures.ThreadPoolExecutor(
        study.jobs, initializer=lambda: _stay_on(cores.get())
    ) as pool:
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


def cores_of(jobs: int) -> list[set[int]]:
    """The cores of each of so many jobs side by side: apart, where there are enough of them.

    Small models gain little from a second core, and lose where two of them take turns on both: of a
    step of the toy world's stage 0 a twentieth.
    """
    if not hasattr(os, "sched_getaffinity"):  # Linux alone has it
        return [set()] * jobs
    all_cores = sorted(os.sched_getaffinity(0))
    if len(all_cores) < jobs:
        return [set(all_cores)] * jobs
    return [set(all_cores[n::jobs]) for n in range(jobs)]


def _stay_on(cores: set[int]) -> None:
    """Keeps this thread on these cores, and the processes that it starts."""
    if cores:
        os.sched_setaffinity(0, cores)


def _needs(steps: Sequence[Step], outputs: Sequence[pathlib.Path], number: int) -> set[int]:
    """Numbers of the steps that must be finished before a step starts."""
    command = steps[number][1]
    return {n for n in range(number) if is_named(outputs[n], command)}
