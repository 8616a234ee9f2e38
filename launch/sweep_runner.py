"""The runs of a sweep (sweep.py): the words of each, and the processes that run them."""

import pathlib
import shlex
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from ilm_jax.runs.sweeps import RECIPE, Sweep
from ilm_jax.training import finished


def train_words(sweep: Sweep, bindings: Mapping[str, Any], model_dir: str) -> list[str]:
    """The words after `ilm` of one run."""
    values = {**sweep.fixed, **bindings, "MODEL_DIR": model_dir}
    recipe = values.pop(RECIPE, None)
    # A text goes as it is, as a person would type it; the verb quotes it for gin.
    shown = {name: v if isinstance(v, str) else repr(v) for name, v in values.items()}
    recipes = [*sweep.gin_file, *([recipe] if recipe else [])]
    files = [f"--gin_file={file}" for file in recipes]
    return ["train", *files, *(f"--gin.{name}={value}" for name, value in shown.items())]


class Runner:
    """Runs what is not finished, some at a time; SIGTERM ends them, and they save."""

    def __init__(
        self,
        folder: str,
        sweep: Sweep,
        launcher: str,
        search: Sequence[str],
        states: Mapping[str, str],
    ) -> None:
        """`launcher` is a command in front of the words of `ilm`; "" runs them here.

        `states` says what the folder holds of every run, see `check_configs`.
        """
        self._folder, self._sweep, self._launcher = folder, sweep, launcher
        self._search, self._states = search, states
        self._running: set[subprocess.Popen] = set()
        self._lock = threading.Lock()
        self.stopped = False

    def command(self, number: int, name: str, bindings: Mapping[str, Any]) -> list[str]:
        """All words of one run's command."""
        words = train_words(self._sweep, bindings, f"{self._folder}/{name}")
        if self._search:
            words.append(f"--gin_search_paths={','.join(self._search)}")
        if not self._launcher:
            return [sys.executable, "-m", "ilm_jax", *words]
        places = {"number": str(number), "name": name}
        return [word.format(**places) for word in shlex.split(self._launcher)] + words

    def run(self, number: int, name: str, bindings: Mapping[str, Any]) -> str:
        """Runs one; returns how it is: "finished", "failed" or "stopped"."""
        if self._states[name] == "finished":
            return "finished"
        logs = pathlib.Path(self._folder if "://" not in self._folder else "sweep_logs")
        logs = logs / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        with (logs / f"{name}.log").open("a") as stream:
            with self._lock:
                if self.stopped:
                    return "stopped"
                process = subprocess.Popen(
                    self.command(number, name, bindings), stdout=stream, stderr=stream
                )
                self._running.add(process)
            code = process.wait()
        with self._lock:
            self._running.discard(process)
        if self.stopped:
            return "stopped"
        if code == 0 and finished.read(f"{self._folder}/{name}"):
            return "finished"
        lines = (logs / f"{name}.log").read_text(errors="replace").strip().splitlines()
        print(f"sweep: {name} failed (code {code}): {lines[-1] if lines else ''}", file=sys.stderr)
        return "failed"

    def stop(self, *_: object) -> None:
        """Asks all runs to save and end, and starts no more."""
        self.stopped = True
        for process in list(self._running):
            if process.poll() is None:
                process.terminate()
