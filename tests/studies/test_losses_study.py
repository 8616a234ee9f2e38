"""The study of stage 1's losses: runs differ in these alone, and are compared item by item."""

import numpy as np
import pytest

from ilm_jax.errors import UserError
from ilm_jax.metrics.values import MetricValues
from ilm_jax.objectives.alignment_kinds import KINDS

FROZEN = "trainer.TrainerConfig.trainable"


@pytest.fixture
def study(script):
    return script("losses")


def test_runs_differ_in_the_losses_of_stage_one_alone(study, tmp_path):
    made = study.Losses("toy", 0, tmp_path)
    rows = made.rows()
    steps = {name: words for name, words, _ in made.steps_of(rows)}
    own = ("MODEL_DIR", "SCHEDULE", "TRAIN_STEPS", "QFORMER_FROM")

    def shared(words):
        return [word for word in words if not any(f"{name}=" in word for name in own)]

    for losses, (schedule, count) in study.STAGE_ONE.items():
        words = steps[f"stage1-{losses}"]
        assert shared(words) == shared(steps["stage1-all"]) and set(schedule) <= set(KINDS)
        assert f"--gin.TRAIN_STEPS={count}" in words and f"--gin.SCHEDULE={schedule!r}" in words
        texts = count * schedule["item_text"] / sum(schedule.values())
        assert texts == (300 if losses == "text-longer" else 150)
        for reader in made.readers:
            words = steps[f"{reader}-{losses}"]
            assert shared(words) == shared(steps[f"{reader}-all"])
            assert f"--gin.QFORMER_FROM='{tmp_path / f'stage1-{losses}'}'" in words
            frozen = any(
                word.startswith(f"--gin.{study.variations.few_texts.FROZEN}=") for word in words
            )
            assert frozen == (reader == "frozen")
    assert (
        len(steps)
        == len(study.variations.plan(made, ["ilm-rand"], False, until="stage1")) + 5 + 2 * 10
    )


def receipt(study, shift=0.0, first=0, row="row"):
    rng = np.random.default_rng(0)
    tokens = rng.integers(5, 9, 60).astype(float)
    values = tokens * (1.5 + shift + rng.normal(0, 0.1, 60))
    found = MetricValues("nll_content", "items", np.arange(60) + first, values, tokens, False)
    return study.receipts.Receipt(row, {}, "", 1.0, [], {"nll_content": found})


def test_losses_are_compared_item_by_item_and_world_by_world(study):
    shifts = {"all": 0.0, "text+items": 0.1, "text+users": 0.0, "text": 0.2, "text-longer": 0.2}
    wobble = (0.0, 0.01, -0.01)
    found = {
        study.variations.Row("frozen", losses): [
            receipt(study, shift + (losses == "text") * more) for more in wobble
        ]
        for losses, shift in shifts.items()
    }
    told = study.report(found)
    assert "all below text: all - text = -0.2000 [" in told and "text-longer - text" not in told
    assert "undecided: all - text+users = 0.0000" in told
    line = next(line for line in told.splitlines() if "all - text =" in line)
    assert "180 pairs" in line and float(line.rpartition("p = ")[2]) == pytest.approx(8e-4, rel=0.1)
    found[study.variations.Row("frozen", "text")] = [receipt(study, first=1, row="other")] * 3
    with pytest.raises(UserError, match="row and other were measured on different items"):
        study.report(found)


def test_a_world_with_receipts_is_not_run_again(study, tmp_path, monkeypatch):
    monkeypatch.setattr(study.Losses, "data", "catalogue")
    made = study.Losses("toy", 0, tmp_path, receipts=tmp_path / "receipts")
    rows = [study.variations.Row("frozen", losses) for losses in ("all", "text")]
    ran = []

    def run(one, steps):
        ran.append([name for name, *_ in steps])
        return {}

    monkeypatch.setattr(study.variations.scheduling, "run_steps", run)
    monkeypatch.setattr(
        study.variations,
        "_receipt",
        lambda one, row, seconds: study.dataclasses.replace(
            receipt(study, row=one.name(row)), made_from=one.made_from(row)
        ),
    )
    first = study.variations.measure([made], rows)
    assert ran == [
        ["cf", "stage0", "stage1-all", "stage1-text"]
        + ["frozen-all", "evaluate frozen-all", "frozen-text", "evaluate frozen-text"]
    ]
    again = study.variations.measure([made], rows)
    assert len(ran) == 1 and [c[0].row for c in again.values()] == [
        "toy_seed0_frozen-all",
        "toy_seed0_frozen-text",
    ]
    assert first.keys() == again.keys()
    # Another stage 1 is another row, and its receipt is not taken for this one.
    monkeypatch.setitem(study.STAGE_ONE, "text", ({"item_text": 1}, 151))
    with pytest.raises(UserError, match="frozen-text.json was made from another stage 1"):
        study.variations.measure([made], rows)


def test_the_committed_receipts_are_of_todays_recipes(study, monkeypatch, tmp_path):
    """Delete those whose recipe was changed on purpose: their rows are run again."""
    monkeypatch.setattr(study.Losses, "data", "catalogue")
    for world in range(4):
        made = study.Losses.of_world(world, tmp_path)
        for row in made.rows(["frozen"]):
            receipt = study.receipts.read(study.FOLDER, made.name(row))
            now = {**made.made_from(row), "data": receipt.made_from["data"]}
            assert study.receipts.changed(receipt, now) == []
