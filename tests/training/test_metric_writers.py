"""Metrics go where the recipe says; a resumed run leaves what one that was never killed leaves."""

import importlib.util
import types

import pytest

from ilm_jax.errors import UserError
from ilm_jax.training import tracking, writers
from ilm_jax.training.writers import MetricWriters, WriterRun, check_writers, read_metrics
from tests.training.small import make_trainer


class Kept:
    """A writer of one's own."""

    made: list = []

    def __init__(self, run, prefix=""):
        self.run, self.prefix, self.records, self.closed = run, prefix, [], 0
        Kept.made.append(self)

    def write(self, step, metrics):
        self.records.append((step, {self.prefix + name: value for name, value in metrics.items()}))

    def close(self):
        self.closed += 1


@pytest.fixture
def kept(monkeypatch):
    monkeypatch.setattr(Kept, "made", [])
    monkeypatch.setattr(writers.METRIC_WRITERS, "_entries", dict(writers.METRIC_WRITERS._entries))
    writers.register_metric_writer("kept", Kept)
    return Kept.made


def test_a_writer_of_ones_own_hears_what_metrics_jsonl_hears(tmp_path, kept):
    named = {"metric_writers": {"kept": {"prefix": "a/"}}}
    make_trainer(tmp_path, config=named, config_text="TRAIN_STEPS = 12").fit()
    (one,) = kept
    assert one.run == WriterRun(str(tmp_path), 0, "TRAIN_STEPS = 12") and one.closed == 1
    told = [{"step": s, **{n.removeprefix("a/"): v for n, v in m.items()}} for s, m in one.records]
    assert told == read_metrics(tmp_path / "metrics.jsonl") and len(told) > 6
    assert not list(tmp_path.glob("events*")), "TensorBoard was not named"


def test_other_processes_write_nothing(tmp_path, kept):
    silent = MetricWriters(WriterRun(str(tmp_path)), {"kept": {}}, active=False)
    silent.write(1, {"loss": 1.0})
    silent.close()
    assert not kept and not list(tmp_path.iterdir())


def test_a_name_that_is_taken_is_refused(kept):
    with pytest.raises(UserError, match="there is a metric writer 'wandb' already"):
        writers.register_metric_writer("wandb", Kept)


@pytest.mark.parametrize(
    "named, said",
    [
        ({"wandbb": {}}, "no metric writer 'wandbb'; there are wandb"),
        ({"kept": {"suffix": 1}}, "'kept': .*suffix.*; it takes prefix"),
        ({"wandb": {}}, r"'wandb' needs the package wandb: pip install 'ilm_jax\[wandb\]'"),
        ({"mlflow": {}}, r"'mlflow' needs the package mlflow: pip install 'ilm_jax\[mlflow\]'"),
    ],
)
def test_what_cannot_be_written_is_refused_before_anything_is_trained(
    tmp_path, kept, monkeypatch, named, said
):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=said):
        make_trainer(tmp_path, config={"metric_writers": named}).fit()
    assert not list(tmp_path.iterdir())


class Service:
    """Weights & Biases and MLflow, as far as they are used."""

    def __init__(self):
        self.runs, self.texts = [], {}

    def init(self, id, resume, **named):
        if id is None:
            self.runs.append({})
        number = len(self.runs) - 1 if id is None else int(id)
        points = self.runs[number]

        def log(metrics, step):
            for name, value in metrics.items():
                points.setdefault(name, []).append((step, value))

        steps = [step for series in points.values() for step, _ in series]
        return types.SimpleNamespace(
            id=str(number), step=max(steps, default=-1) + 1, log=log, finish=lambda: None
        )

    def client(self, tracking_uri):
        info = types.SimpleNamespace
        return types.SimpleNamespace(
            get_experiment_by_name=lambda name: None,
            create_experiment=lambda name: "e",
            create_run=lambda where, run_name: info(info=info(run_id=self.init(None, None).id)),
            log_text=lambda run, text, name: self.texts.update({name: text}),
            log_batch=lambda run, metrics: [
                self.init(run, None).log({m.key: m.value}, m.step) for m in metrics
            ],
            get_run=lambda run: info(data=info(metrics=dict(self.runs[int(run)]))),
            get_metric_history=lambda run, key: [
                info(step=step) for step, _ in self.runs[int(run)][key]
            ],
            set_terminated=lambda run: None,
        )


class Metric:
    def __init__(self, key, value, timestamp, step):
        self.key, self.value, self.step = key, value, step


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_service_has_every_point_once_whenever_the_run_was_killed(tmp_path, monkeypatch, name):
    service = Service()
    modules = {
        "wandb": types.SimpleNamespace(init=service.init),
        "mlflow": types.SimpleNamespace(MlflowClient=service.client),
        "mlflow.entities": types.SimpleNamespace(Metric=Metric),
    }
    monkeypatch.setattr(tracking.importlib, "import_module", modules.__getitem__)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    check_writers({name: {"name": "x"}})

    def write(start, steps):
        made = MetricWriters(WriterRun(str(tmp_path), start, "A = 1"), {name: {}})
        for step in steps:
            made.write(step, {"loss": float(step)})
            if step % 2 == 0:
                made.write(step, {"hr@10": step / 10})
        made.close()

    write(0, [1, 2, 3])
    write(2, [3, 4])  # killed after 3, resumed at 2
    (points,) = service.runs
    hits = "hr@10" if name == "wandb" else "hr_10"
    assert points == {"loss": [(n, float(n)) for n in (1, 2, 3, 4)], hits: [(2, 0.2), (4, 0.4)]}
    write(0, [1])
    assert len(service.runs) == 2, "a run that begins anew is another"
    if name == "mlflow":
        assert service.texts == {"config.gin": "A = 1"}
