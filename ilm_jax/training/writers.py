"""Metrics to metrics.jsonl and TensorBoard."""

import json
import os
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
