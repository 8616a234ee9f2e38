"""Curves are drawn from metrics.jsonl files; what cannot be drawn is one clear error."""

import json

import pytest
from matplotlib.axes import Axes

from ilm_jax.errors import UserError
from ilm_jax.evaluation.reports.plots import loss_curves


def write_run(path, steps: int, **metrics):
    lines = [{"step": s + 1} | {name: of(s) for name, of in metrics.items()} for s in range(steps)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_png_of_long_short_and_single_record_runs(tmp_path):
    runs = {
        "long": write_run(tmp_path / "a", 200, loss=lambda s: 5 / (s + 1), nan=lambda s: 1.0),
        "short": write_run(tmp_path / "b", 3, loss=lambda s: float("nan") if s == 1 else 2.0),
        "one": write_run(tmp_path / "c", 1, loss=lambda s: 3.0),
    }
    loss_curves(runs, tmp_path / "plots" / "loss.png", metrics=("loss", "nan"), title="title")
    assert (tmp_path / "plots" / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_absent_file_and_absent_metric_are_user_errors(tmp_path):
    run = write_run(tmp_path / "a", 2, loss=lambda s: 1.0)
    with pytest.raises(UserError, match="train the run first"):
        loss_curves({"x": tmp_path / "absent"}, tmp_path / "x.png")
    with pytest.raises(UserError, match="none of the metrics accuracy"):
        loss_curves({"x": run}, tmp_path / "x.png", metrics=("accuracy",))
    assert not (tmp_path / "x.png").exists()


def test_validation_stands_beside_training_in_its_runs_colour(tmp_path, monkeypatch):
    drawn, plot = [], Axes.plot

    def noted(self, *data, **how):
        drawn.append((list(map(list, data)), how))
        return plot(self, *data, **how)

    monkeypatch.setattr(Axes, "plot", noted)
    runs = {}
    for name, value in (("a", 1.0), ("b", 2.0)):
        runs[name] = tmp_path / name
        lines = [{"step": 5, "loss": value}, {"step": 9, "loss": value - 0.5}]
        lines.insert(1, {"step": 5, "validation/loss": value + 1})
        runs[name].write_text("".join(json.dumps(line) + "\n" for line in lines))
    loss_curves(runs, tmp_path / "x.png", validation=True)
    training = [line for line in drawn if "linestyle" not in line[1]]
    held_out = [line for line in drawn if "linestyle" in line[1]]
    assert [data for data, _ in training] == [[[5, 9], [1.0, 0.5]], [[5, 9], [2.0, 1.5]]]
    assert [data for data, _ in held_out] == [[[5], [2.0]], [[5], [3.0]], [[], []]]
    assert [how["color"] for _, how in held_out[:2]] == [how["color"] for _, how in training]
    assert held_out[2][1]["label"] == "validation"
    drawn.clear()
    loss_curves(runs, tmp_path / "x.png")
    assert len(drawn) == 2
