"""Metrics to tracking services: Weights & Biases and MLflow, each with an extra of its name.

A service keeps what it was sent, so nothing can be dropped there when a run resumes. What a resumed
run repeats is the same to the bit, so steps that the service has are not sent to it again. Which of
its runs a MODEL_DIR belongs to stands in a file there; a run that begins anew begins a new one.
"""

import importlib
import os
import re
import time
from collections.abc import Mapping
from typing import Any

from ilm_jax.files import atomic_write, folder_path, is_there
from ilm_jax.training.writers import WriterRun


class _RunId:
    """The service's name of a run, in a file of MODEL_DIR."""

    def __init__(self, run: WriterRun, service: str) -> None:
        self._path = folder_path(run.model_dir) / f"{service}-run.txt"
        self.known = ""
        if run.start_step and is_there(self._path):
            self.known = self._path.read_text(encoding="utf-8").strip()

    def keep(self, name: str) -> None:
        """Writes the name, so that a resumed run goes on under it."""
        with atomic_write(self._path) as stream:
            stream.write(name + "\n")


class WeightsAndBiases:
    """A run of Weights & Biases; its own settings, such as WANDB_MODE, hold too."""

    def __init__(
        self, run: WriterRun, project: str = "", entity: str = "", name: str = "", group: str = ""
    ) -> None:
        """Begins a run, or goes on with the one of this MODEL_DIR.

        Args:
          run: that is written of.
          project, entity, group: of Weights & Biases; "": its own defaults.
          name: shown; "": that of the folder.
        """
        wandb: Any = importlib.import_module("wandb")
        run_id = _RunId(run, "wandb")
        self._run = wandb.init(
            project=project or None,
            entity=entity or None,
            group=group or None,
            name=name or os.path.basename(os.path.abspath(run.model_dir)),
            id=run_id.known or None,
            resume="allow" if run_id.known else None,
            config={"model_dir": run.model_dir, "config.gin": run.config},
        )
        run_id.keep(self._run.id)
        # The first step that it has not; a step is sent when the next one comes, or at the end.
        self._next = int(self._run.step) if run_id.known else 0

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Sends them unless they are there."""
        if step >= self._next:
            self._run.log(dict(metrics), step=step)

    def close(self) -> None:
        """Sends what is left."""
        self._run.finish()


class MLflow:
    """A run of MLflow, by its client: nothing of MLflow's global state is touched."""

    def __init__(self, run: WriterRun, experiment: str = "", uri: str = "", name: str = "") -> None:
        """Begins a run, or goes on with the one of this MODEL_DIR.

        Args:
          run: that is written of.
          experiment: made if absent; "": "Default".
          uri: of the tracking server; "": MLFLOW_TRACKING_URI, or MLflow's default.
          name: shown; "": that of the folder.
        """
        mlflow: Any = importlib.import_module("mlflow")
        self._metric = importlib.import_module("mlflow.entities").Metric
        self._client = mlflow.MlflowClient(tracking_uri=uri or None)
        run_id = _RunId(run, "mlflow")
        self._id = run_id.known or self._begin(run, experiment or "Default", name)
        run_id.keep(self._id)
        self._last = self._last_steps() if run_id.known else {}

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Sends those that are not there, in one request."""
        now, sent = int(time.time() * 1000), []
        for name, value in metrics.items():
            key = re.sub(r"[^\w\-. /]", "_", name)  # MLflow takes no other characters
            if step > self._last.get(key, -1):
                sent.append(self._metric(key, value, now, step))
        if sent:
            self._client.log_batch(self._id, metrics=sent)

    def close(self) -> None:
        """Marks the run as ended."""
        self._client.set_terminated(self._id)

    def _begin(self, run: WriterRun, experiment: str, name: str) -> str:
        found = self._client.get_experiment_by_name(experiment)
        where = found.experiment_id if found else self._client.create_experiment(experiment)
        shown = name or os.path.basename(os.path.abspath(run.model_dir))
        begun = self._client.create_run(where, run_name=shown)
        self._client.log_text(begun.info.run_id, run.config, "config.gin")
        return str(begun.info.run_id)

    def _last_steps(self) -> dict[str, int]:
        """The last step that each metric has there."""
        known = self._client.get_run(self._id).data.metrics
        return {
            key: max(one.step for one in self._client.get_metric_history(self._id, key))
            for key in known
        }
