"""Metrics to metrics.jsonl and TensorBoard, and the live line on the terminal."""

import json
import os
import sys
import time
from collections.abc import Mapping
from typing import TextIO

from ilm_jax.files import atomic_write, folder_path, is_remote, is_there

REMOTE_PERIOD = 60.0  # seconds


class MetricWriter:
    """Appends metrics of one run; silent on all processes but the first.

    Resuming at step s drops what was written beyond s, so that a run that was killed leaves the
    same file as one that was not. In a bucket, where nothing can be appended, the file is written
    anew once a minute and at the end.
    """

    def __init__(self, model_dir: str | os.PathLike, start_step: int, *, active: bool = True):
        """Opens MODEL_DIR/metrics.jsonl and TensorBoard events at `start_step`."""
        self._active = active
        if not active:
            return
        from tensorboardX import SummaryWriter

        self._path = folder_path(model_dir) / "metrics.jsonl"
        kept = read_metrics(self._path, up_to=start_step) if is_there(self._path) else []
        self._lines = [json.dumps(record) + "\n" for record in kept]
        self._write_anew()
        self._stream: TextIO | None = None
        if not is_remote(self._path):
            self._stream = self._path.open("a", encoding="utf-8")
        self._board = SummaryWriter(
            str(model_dir), purge_step=start_step + 1 if start_step else None
        )

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """One record {"step", name: value, …}, flushed at once."""
        if not self._active:
            return
        record = {"step": step, **{name: float(value) for name, value in metrics.items()}}
        line = json.dumps(record) + "\n"
        if self._stream:
            self._stream.write(line)
            self._stream.flush()
        else:
            self._lines.append(line)
            if time.monotonic() - self._written > REMOTE_PERIOD:
                self._write_anew()
        for name, value in metrics.items():
            self._board.add_scalar(name, float(value), step)

    def close(self) -> None:
        """Flushes and closes both files."""
        if self._active:
            if self._stream:
                self._stream.close()
            else:
                self._write_anew()
            self._board.close()

    def _write_anew(self) -> None:
        with atomic_write(self._path) as stream:
            stream.writelines(self._lines)
        self._written = time.monotonic()


def read_metrics(path: str | os.PathLike, up_to: int | None = None) -> list[dict[str, float]]:
    """Records of a metrics.jsonl; a last line cut off by a kill is dropped."""
    records = []
    for line in folder_path(path).read_text(encoding="utf-8").splitlines():
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            break
        if up_to is None or record["step"] <= up_to:
            records.append(record)
    return records


class LiveLine:
    """Step, loss, examples per second and time left; one line, rewritten on a terminal."""

    def __init__(self, total_steps: int, start_step: int, *, active: bool = True):
        """Starts the clock."""
        self._total, self._active = total_steps, active
        self._since, self._at = time.monotonic(), start_step
        self._tty = sys.stderr.isatty()

    def show(self, step: int, loss: float, examples: int) -> float:
        """Prints the line; `examples` since the last one. Returns examples per second."""
        now = time.monotonic()
        seconds, steps = max(now - self._since, 1e-9), step - self._at
        rate = examples / seconds
        eta = (self._total - step) * seconds / max(steps, 1)
        if self._active:
            line = (f"step {step}/{self._total}  loss {loss:.4f}  {rate:.0f} examples/s  "
                    f"ETA {_clock(eta)}")  # fmt: skip
            end = "\n" if not self._tty or step == self._total else ""
            print(f"\r{line}\x1b[K" if self._tty else line, end=end, file=sys.stderr, flush=True)
        self._since, self._at = now, step
        return rate


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
