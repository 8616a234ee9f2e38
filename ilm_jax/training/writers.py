"""Metric writers: metrics.jsonl always, and beside it those that the recipe names.

    trainer.TrainerConfig.metric_writers = {"tensorboard": {}, "wandb": {"project": "items"}}

A writer of one's own is a class with `write` and `close` (see `MetricWriter`), made of a
`WriterRun` and the settings that the recipe gives, and registered in a module that the recipe
imports:

    register_metric_writer("mine", MyWriter)

Only the first process of a run makes writers. A run that resumes at step s makes them with
`start_step` = s: what was written beyond s is dropped or not written again, so that a run that was
killed leaves the same metrics as one that was not.
"""

import dataclasses
import importlib.util
import inspect
import json
import os
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TextIO

from ilm_jax.errors import UserError
from ilm_jax.files import atomic_write, folder_path, is_remote, is_there
from ilm_jax.registry import Registry

REMOTE_PERIOD = 60.0  # seconds


@dataclasses.dataclass(frozen=True)
class WriterRun:
    """The run that a writer writes of.

    Attributes:
      model_dir: its folder.
      start_step: it goes on from here; 0: it begins.
      config: the text of its config.gin.
    """

    model_dir: str
    start_step: int = 0
    config: str = ""


class MetricWriter(Protocol):
    """Takes a run's metrics as they come."""

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Metrics of a step, which never falls; a step may come more than once, with others."""

    def close(self) -> None:
        """All is written, or the run was stopped; called once."""


@dataclasses.dataclass(frozen=True)
class MetricWriterType:
    """A registered metric writer: how it is opened, and the package that it needs.

    Attributes:
      opens: makes it, of a `WriterRun` and settings by name.
      package: that it imports, "" for none.
      remedy: what installs the package.
    """

    opens: Callable[..., MetricWriter]
    package: str = ""
    remedy: str = ""


METRIC_WRITERS: Registry[MetricWriterType] = Registry("metric writer")


def register_metric_writer(
    name: str, opens: Callable[..., MetricWriter], package: str = "", remedy: str = ""
) -> None:
    """Makes a writer known to `TrainerConfig.metric_writers`; see `MetricWriterType`.

    Raises:
      UserError: if another one has this name.
    """
    METRIC_WRITERS.register(name, MetricWriterType(opens, package, remedy))


def check_writers(settings: Mapping[str, Mapping[str, Any]]) -> None:
    """Checks writers before anything is trained.

    Raises:
      UserError: for a writer that there is not, whose package is missing, or other settings than
        it takes.
    """
    for name, given in settings.items():
        kind = METRIC_WRITERS[name]
        if kind.package and importlib.util.find_spec(kind.package) is None:
            remedy = kind.remedy or f"pip install {kind.package}"
            raise UserError(f"metric writer {name!r} needs the package {kind.package}: {remedy}")
        try:
            inspect.signature(kind.opens).bind(WriterRun(""), **given)
        except TypeError as error:
            known = list(inspect.signature(kind.opens).parameters)[1:]
            takes = ", ".join(known) or "no settings"
            raise UserError(f"metric writer {name!r}: {error}; it takes {takes}") from error


class MetricWriters:
    """All writers of a run as one; silent on all processes but the first."""

    def __init__(
        self, run: WriterRun, settings: Mapping[str, Mapping[str, Any]], *, active: bool = True
    ) -> None:
        """Opens metrics.jsonl and the writers that are named."""
        self._writers: list[MetricWriter] = []
        if not active:
            return
        self._writers.append(JsonLines(run))
        for name, given in settings.items():
            self._writers.append(METRIC_WRITERS[name].opens(run, **given))

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """To each of them."""
        plain = {name: float(value) for name, value in metrics.items()}
        for writer in self._writers:
            writer.write(step, plain)

    def close(self) -> None:
        """Flushes and closes them."""
        for writer in self._writers:
            writer.close()


class JsonLines:
    """MODEL_DIR/metrics.jsonl: one record {"step", name: value, …} a line, flushed at once.

    In a bucket, where nothing can be appended, the file is written anew once a minute and at the
    end.
    """

    def __init__(self, run: WriterRun) -> None:
        """Drops the records beyond the run's start."""
        self._path = folder_path(run.model_dir) / "metrics.jsonl"
        kept = read_metrics(self._path, up_to=run.start_step) if is_there(self._path) else []
        self._lines = [json.dumps(record) + "\n" for record in kept]
        self._write_anew()
        self._stream: TextIO | None = None
        if not is_remote(self._path):
            self._stream = self._path.open("a", encoding="utf-8")

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """One record."""
        line = json.dumps({"step": step, **metrics}) + "\n"
        if self._stream:
            self._stream.write(line)
            self._stream.flush()
            return
        self._lines.append(line)
        if time.monotonic() - self._written > REMOTE_PERIOD:
            self._write_anew()

    def close(self) -> None:
        """The file is whole."""
        if self._stream:
            self._stream.close()
        else:
            self._write_anew()

    def _write_anew(self) -> None:
        with atomic_write(self._path) as stream:
            stream.writelines(self._lines)
        self._written = time.monotonic()


class TensorBoard:
    """Events in MODEL_DIR; those beyond the run's start are purged."""

    def __init__(self, run: WriterRun) -> None:
        """Begins a file of events."""
        from tensorboardX import SummaryWriter

        purge = run.start_step + 1 if run.start_step else None
        self._board = SummaryWriter(run.model_dir, purge_step=purge)

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """A scalar each."""
        for name, value in metrics.items():
            self._board.add_scalar(name, value, step)

    def close(self) -> None:
        """Flushes."""
        self._board.close()


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


def _wandb(
    run: WriterRun, project: str = "", entity: str = "", name: str = "", group: str = ""
) -> MetricWriter:
    from ilm_jax.training.tracking import WeightsAndBiases

    return WeightsAndBiases(run, project, entity, name, group)


def _mlflow(run: WriterRun, experiment: str = "", uri: str = "", name: str = "") -> MetricWriter:
    from ilm_jax.training.tracking import MLflow

    return MLflow(run, experiment, uri, name)


register_metric_writer("tensorboard", TensorBoard)
register_metric_writer("wandb", _wandb, "wandb", "pip install 'ilm_jax[wandb]'")
register_metric_writer("mlflow", _mlflow, "mlflow", "pip install 'ilm_jax[mlflow]'")
