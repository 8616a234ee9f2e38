"""The study of stage 1's losses: runs differ in these alone, and are compared item by item."""

import numpy as np
import pytest

from ilm_jax.errors import UserError
from ilm_jax.metrics.values import MetricValues
from ilm_jax.objectives.alignment_kinds import KINDS


@pytest.fixture
def study(script):
    return script("losses")


def test_runs_differ_in_the_losses_of_stage_one_alone(study, tmp_path):
    made = study.Study("toy", 0, tmp_path)
    steps = {name: words for name, words, _ in study.steps_of(made, list(study.READERS))}
    own = ("MODEL_DIR", "SCHEDULE", "TRAIN_STEPS", "QFORMER_FROM")

    def shared(words):
        return [word for word in words if not any(f"{name}=" in word for name in own)]

    for losses, (schedule, count) in study.STAGE_ONE.items():
        words = steps[f"stage1-{losses}"]
        assert shared(words) == shared(steps["stage1-all"]) and set(schedule) <= set(KINDS)
        assert f"--gin.TRAIN_STEPS={count}" in words and f"--gin.SCHEDULE={schedule!r}" in words
        texts = count * schedule["item_text"] / sum(schedule.values())
        assert texts == (300 if losses == "text-longer" else 150)
        for reader in study.READERS:
            words = steps[f"{reader}-{losses}"]
            assert shared(words) == shared(steps[f"{reader}-all"])
            assert f"--gin.QFORMER_FROM='{tmp_path / f'stage1-{losses}'}'" in words
            frozen = any(word.startswith(f"--gin.{study.few_texts.FROZEN}=") for word in words)
            assert frozen == (reader == "frozen")
    assert len(steps) == len(study.plan(made, ["ilm-rand"], False, until="stage1")) + 5 + 2 * 10


def metrics(shift=0.0, first=0):
    rng = np.random.default_rng(0)
    tokens = rng.integers(5, 9, 60).astype(float)
    values = tokens * (1.5 + shift + rng.normal(0, 0.1, 60))
    return MetricValues("nll_content", "items", np.arange(60) + first, values, tokens, False)


def test_losses_are_compared_item_by_item_and_world_by_world(study, tmp_path, monkeypatch):
    worlds = [study.Study("toy", seed, tmp_path / str(seed)) for seed in range(3)]
    shifts = {"all": 0.0, "text+items": 0.1, "text+users": 0.0, "text": 0.2, "text-longer": 0.2}
    wobble = {0: 0.0, 1: 0.01, 2: -0.01}
    monkeypatch.setattr(
        study,
        "metric_of",
        lambda one, reader, losses: metrics(shifts[losses] + (losses == "text") * wobble[one.seed]),
    )
    told = study.report(worlds, ["frozen"])
    assert "all below text: all - text = -0.2000 [" in told and "text-longer - text" not in told
    assert "undecided: all - text+users = 0.0000" in told
    line = next(line for line in told.splitlines() if "all - text =" in line)
    assert "180 pairs" in line and float(line.rpartition("p = ")[2]) == pytest.approx(8e-4, rel=0.1)
    monkeypatch.setattr(
        study, "metric_of", lambda one, reader, losses: metrics(first=losses == "text")
    )
    with pytest.raises(UserError, match="all and text were measured on different items"):
        study.report(worlds, ["frozen"])
