"""Curves are drawn from metrics.jsonl files; what cannot be drawn is one clear error."""

import json

import pytest

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
