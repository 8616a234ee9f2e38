"""Processes that take training steps when a benchmark tells them to, each with its own peak memory.

A benchmark starts one per side and lets them take steps in turns. A side is a command: it prints a
line of JSON when it is ready ("versions", and what else it knows), then reads from each line of
stdin how many steps to take, and answers with "seconds", "cpu" and "peak".
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

# For peers in PyTorch: glibc keeps its memory, which is their best; all of it, and no 2 GiB alone.
KEEP = {"MALLOC_TRIM_THRESHOLD_": str(2**62), "MALLOC_MMAP_MAX_": "0", "MALLOC_ARENA_MAX": "1"}


def serve(
    step: Callable[[], Any], temporaries: int, facts: Mapping[str, Any] | None = None
) -> None:
    """Takes our steps as the training loop does, for each line of stdin."""
    import jax

    from ilm_jax.training import fitting
    from ilm_jax.training.host_memory import HOST_MEMORY, peak
    from ilm_jax.training.pacing import Pacer

    pacer = Pacer()
    pacer.limit(fitting.steps_in_flight(temporaries))
    device = jax.devices()[0].device_kind
    versions = f"jax {jax.__version__}, {device}"
    print(json.dumps({"versions": versions, **(facts or {})}), flush=True)
    for line in sys.stdin:
        start, cpu = time.perf_counter(), time.process_time()
        for _ in range(int(line)):
            report = pacer(step, lambda report: report)
        jax.block_until_ready(report)
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        HOST_MEMORY.settle()
        print(json.dumps({"seconds": seconds, "cpu": cpu, "peak": peak()}), flush=True)


class Worker:
    """A process that takes steps when it is told to.

    Attributes:
      facts: what it said when it was ready.
      seconds, cpu: of every step, or of several that were asked for at once.
      peak: its peak memory so far, in bytes.
    """

    def __init__(self, command: list[str], environment: Mapping[str, str]) -> None:
        """Starts it and waits until it is ready."""
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            command, env={**os.environ, **environment}, stdin=pipe, stdout=pipe, text=True
        )
        self.facts = self._answer()
        self.seconds: list[float] = []
        self.cpu: list[float] = []
        self.peak = 0

    def step(self, steps: int = 1) -> float:
        """Takes steps; returns their seconds."""
        assert self._process.stdin is not None
        print(steps, file=self._process.stdin, flush=True)
        found = self._answer()
        self.seconds.append(found["seconds"])
        self.cpu.append(found["cpu"])
        self.peak = found["peak"]
        return found["seconds"]

    def close(self) -> None:
        """Ends it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    @property
    def median(self) -> float:
        """Seconds of a step, the first left out."""
        return float(np.median(self.seconds[1:]))

    @property
    def core_seconds(self) -> float:
        """Of all threads in a step: steadier than seconds where other processes run."""
        return float(np.median(self.cpu[1:]))

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("a process of the benchmark ended before its time")
        return json.loads(line)


def product_rate() -> float:
    """FLOPs per second of the best of several products of matrices in float32."""
    x = np.random.default_rng(0).normal(size=(2048, 2048)).astype(np.float32)
    seconds = []
    for _ in range(8):
        start = time.perf_counter()
        x @ x
        seconds.append(time.perf_counter() - start)
    return 2 * 2048**3 / min(seconds)


def gib(size: float) -> str:
    """Bytes for people."""
    return f"peak {size / 2**30:.2f} GiB"
