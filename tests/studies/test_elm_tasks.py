"""ELM's tasks together: one mixture, a metric of each task, and means over tasks."""

import ast
import dataclasses
import functools

import numpy as np
import pytest

from ilm_jax.errors import UserError
from ilm_jax.metrics.values import MetricValues
from ilm_jax.runs import gin_config
from ilm_jax.runs.run import Run

TEXTS = 30


@pytest.fixture
def study(script):
    return script("elm_tasks")


def receipts_of(study, shift, worlds=2, measures=None):
    """Receipts of a row whose every task has noise of its own and one shift."""
    found = []
    for world in range(worlds):
        rng = np.random.default_rng(world)
        metrics = {}
        for task in study.TASKS:
            for measure in measures or study.MEASURES:
                values = rng.normal(0.5 + shift + world, 0.1, TEXTS)
                name = study.named(task, measure)
                metrics[name] = MetricValues(name, "texts", np.arange(TEXTS), values)
        made = {"data": str(world)}
        found.append(study.receipts.Receipt(f"row{world}", made, "", 1.0, [], metrics))
    return found


def test_every_row_learns_all_tasks_in_equal_shares(study, tmp_path):
    made = study.ElmTasks("toy", 0, tmp_path)
    assert len(study.TASKS) == 24 and "long_description" in study.TASKS
    for row in made.rows:
        words = made.train_cell(study.Cell(0, row), 3e-3)
        files = [word.removeprefix("--gin_file=") for word in words if "--gin_file=" in word]
        bound = [word.removeprefix("--gin.") for word in words if word.startswith("--gin.")]
        run = gin_config.build(Run, files, bound)
        assert run.train["prompt"].mixture_or_task_name == dict.fromkeys(study.TASKS, 1.0)
        assert run.trainer.total_steps == study.STEPS
    asked = made.scored[0].removeprefix("--tasks=").split(",")
    assert asked == list(study.TASKS) and "--nogeneration" not in made.scored
    assert made.metrics[:2] == ("summary/semantic", "summary/nll_content")
    assert {"semantic", "nll_content"} <= set(made.metrics)  # descriptions bear no name


def test_the_frozen_model_has_read_every_tasks_texts(study, tmp_path):
    made = study.ElmTasks("toy", 0, tmp_path)
    ((_, words, _),) = made.lm_steps()
    named = next(word for word in words if "elm_tasks=" in word)
    assert set(study.TASKS) == {*ast.literal_eval(named.partition("=")[2]), "long_description"}
    for cell in map(functools.partial(study.Cell, 0), made.rows):
        assert named in made.train_cell(cell, 3e-3)  # so that the tokenizer is the corpus's


def test_means_over_tasks_are_tested_item_by_item_and_world_by_world(study):
    found = {"ilm-rand": receipts_of(study, 0.0), "ilm": receipts_of(study, 0.02)}
    noise = np.random.default_rng(9).normal(0, 0.01, (2, TEXTS))
    for world, receipt in enumerate(found["ilm"]):
        for metric in receipt.metrics.values():
            metric.values[:] += noise[world]
    told = study.report(found)
    assert told.count("ilm-rand below ilm: ilm - ilm-rand = 0.0") == len(study.MEASURES)
    assert told.count(f"{2 * TEXTS} pairs") == told.count("; over 2 worlds p = ") == 3
    lines = [line for line in told.splitlines() if line.startswith("| ")]
    assert len(lines) == 1 + len(study.TASKS)
    means = study.by_world(found["ilm"], "semantic")
    assert means == pytest.approx([0.52, 1.52], abs=0.02)


def test_an_items_mean_over_tasks_is_of_nats_per_token(study):
    (cell,) = receipts_of(study, 0.0, worlds=1)
    weights = np.random.default_rng(1).integers(5, 20, (len(study.TASKS), TEXTS)).astype(float)
    names = [study.named(task, "nll_content") for task in study.TASKS]
    for name, tokens in zip(names, weights, strict=True):
        metric = cell.metrics[name]
        cell.metrics[name] = dataclasses.replace(metric, weights=tokens)
    values = np.stack([cell.metrics[name].values for name in names])
    assert study.over_tasks([cell], "nll_content") == pytest.approx((values / weights).mean(0))
    cell.metrics[names[3]] = MetricValues(names[3], "texts", np.arange(9), np.ones(9))
    with pytest.raises(UserError, match="tasks were measured on different items"):
        study.over_tasks([cell], "nll_content")


def test_a_row_without_an_encoder_is_told(study):
    found = {"ilm": receipts_of(study, 0.0, measures=["nll_content"])}
    with pytest.raises(UserError, match="row0 has no summary/semantic: was there a sentence"):
        study.report(found)


def test_the_page_shows_rows_of_the_worlds_that_have_all(study, script, tmp_path):
    section = script("page_tasks").tasks_section
    assert section(tmp_path) == ""
    for row, shift in (("ilm-rand", 0.0), ("ilm", 0.02)):
        for world, receipt in enumerate(receipts_of(study, shift)):
            world_of = f"_world{world}" if world else ""
            name = f"toy{world_of}_seed{world}_all_{row}"
            kept = study.dataclasses.replace(receipt, row=name)
            study.receipts.write(tmp_path / study.FOLDER.name, kept)
    shown = section(tmp_path)
    assert "Toy worlds, each with a seed of its own: 2." in shown
    assert shown.count("<tr>") == 1 + 24 + 1 + 1 + 1  # both tables' heads, tasks, mean, one test
    assert "Q-Former, stage 1 less Q-Former, no stage 1" in shown and "over 2 worlds p" in shown
    (tmp_path / study.FOLDER.name / "toy_seed0_all_ilm.json").unlink()
    assert "of its own: 1." in section(tmp_path)
