"""One small run, trained, and asked by every verb that answers."""

import io
import json
import pathlib
import runpy
import subprocess
import sys

import numpy as np
import pytest

import ilm_jax
from ilm_jax.data.catalogue.splits import make_splits
from ilm_jax.data.examples.prompts import PromptRenderer
from ilm_jax.data.examples.settings_json import settings_from
from ilm_jax.data.examples.task_settings import TaskSettings
from ilm_jax.data.streams.tasks_on_disk import open_tasks
from ilm_jax.errors import UserError
from tests.cli import small_world
from tests.cli.trained_run import refused, rows, run
from tests.serving.test_exporting import READER
from tests.some import some


def test_prompts_of_a_file_are_answered_once(world, tmp_path, capsys):
    _, catalogue, model_dir = world
    asked, answers = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    prompts = ["Describe {item:i5}.", "{user:u7} chose {item:i1}, {item:i2}:", "Tell a story."]
    asked.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts))
    words = (
        "infer",
        f"--model_dir={model_dir}",
        f"--input={asked}",
        f"--output={answers}",
        "--max_new_tokens=4",
    )
    run(*words)
    found = rows(answers)
    assert sorted(row["prompt"] for row in found if "prompt" in row) == sorted(prompts)
    before = answers.read_bytes()
    run(*words)
    assert answers.read_bytes() == before, "nothing is asked twice"
    asked.write_text(json.dumps({"prompt": "Describe {item:i99}."}) + "\n")
    line = refused(capsys, *words)
    assert f"{asked}:1: no item 'i99'" in line


def test_a_task_is_answered_with_items_that_were_not_mentioned(world, tmp_path):
    _, catalogue, model_dir = world
    answers = tmp_path / "items.jsonl"
    run(
        "infer",
        f"--model_dir={model_dir}",
        "--task=sequential_random",
        f"--output={answers}",
        "--answer=items",
        "--beams=4",
        "--exclude_mentioned",
    )
    found = [row for row in rows(answers) if "items" in row]
    assert len(found) == sum(len(catalogue.sequence(user)) >= 3 for user in range(60))
    for row in found:
        ids = [item["id"] for item in row["items"]]
        assert len(set(ids)) == 4 and set(ids) <= set(catalogue.item_ids)
        scores = [item["score"] for item in row["items"]]
        assert scores == sorted(scores, reverse=True)


def test_a_task_is_answered_by_its_own_ids(world, tmp_path):
    _, catalogue, model_dir = world
    answers = tmp_path / "items.jsonl"
    run(
        "infer",
        f"--model_dir={model_dir}",
        "--task=sequential_sequential",
        f"--output={answers}",
        "--answer=items",
        "--beams=3",
    )
    splits = make_splits(catalogue)
    names = {
        order: PromptRenderer(splits, TaskSettings(item_index=order))
        for order in ("sequential", "random")
    }
    found = [row for row in rows(answers) if row.get("items")]
    best = [catalogue.item_row[row["items"][0]["id"]] for row in found]
    assert [row["text"] for row in found] == [names["sequential"].target(item) for item in best]
    assert [row["text"] for row in found] != [names["random"].target(item) for item in best]


def test_a_conversation_over_a_pipe(world, capsys, monkeypatch):
    _, catalogue, model_dir = world
    said = f"/find {catalogue.titles[5].split()[0]}\n/history add i5\n/recommend\nsadder\n/quit\n"
    monkeypatch.setattr(sys, "stdin", io.StringIO(said))
    run("chat", f"--model_dir={model_dir}", "--max_new_tokens=3")
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].endswith("[i5]") and lines[2].startswith("added")
    listed = [line.split("[")[1].split("]")[0] for line in lines if line[:2] in ("1.", "2.", "3.")]
    assert len(listed) == len(set(listed)) == 6, "a critique brings other items"
    assert "i5" not in listed


@pytest.mark.parametrize("writer", ["run", "folder"])
def test_a_written_corpus_is_what_training_reads(world, tmp_path, writer):
    root, catalogue, model_dir = world
    texts = tmp_path / "texts.jsonl"
    given = [f"--model_dir={model_dir}"]
    if writer == "folder":
        converted = tmp_path / "lm"
        run("convert", f"--source={root / '0'}", f"--model_dir={converted}")
        given = [f"--lm={converted}", "--dataset=toy", f"--cache_dir={root / 'cache'}"]
    run(
        "generate",
        *given,
        "--tasks=summary",
        "--limit=5",
        "--max_new_tokens=6",
        "--tries=0",  # a model that has hardly learnt ends no text
        f"--output={texts}",
    )
    written = [row for row in rows(texts) if "target" in row]
    assert 0 < len(written) <= 5
    assert all(row["task"] == "summary" and row["target"].strip() for row in some(written))
    settings = settings_from({**small_world.SETTINGS, "elm24": {"texts_file": str(texts)}})
    (task,) = open_tasks(
        "toy", settings, ["summary"], "train", cache_dir=root / "cache", catalogue=catalogue
    ).values()
    assert {example["target_text"] for example in task} <= {row["target"] for row in written}


def test_an_export_runs_without_the_library(world, tmp_path):
    _, _, model_dir = world
    folder = tmp_path / "exported"
    run(
        "export",
        f"--model_dir={model_dir}",
        f"--output={folder}",
        "--batch_size=2",
        "--prompt_length=24",
        "--max_new_tokens=4",
    )
    manifest = json.loads((folder / "manifest.json").read_text())
    prompts = {
        name: np.ones(spec["shape"], spec["dtype"]) for name, spec in manifest["prompts"].items()
    }
    assert prompts["tokens"].shape == (2, 24)
    np.savez(tmp_path / "prompts.npz", **prompts)
    command = [sys.executable, READER, folder, tmp_path / "prompts.npz", tmp_path / "results.npz"]
    subprocess.run([str(word) for word in command], check=True)
    with np.load(tmp_path / "results.npz") as results:
        assert results["tokens"].shape == (2, 4)


def test_a_notebook_is_answered_as_the_command_line_is(world, tmp_path):
    _, catalogue, model_dir = world
    opened = ilm_jax.open_run(model_dir)
    user, item = catalogue.user_ids[0], catalogue.item_ids[3]
    listed = opened.recommend(user, count=4)
    chosen = {catalogue.item_ids[row] for row in catalogue.sequence(0)}
    assert len({item.id for item in listed}) == 4 and not chosen & {item.id for item in listed}
    assert sorted((item.score for item in listed), reverse=True) == [i.score for i in listed]
    assert opened.recommend(history=[item], count=4) != listed
    prompt = f"Describe {{item:{item}}}."
    (tmp_path / "prompts.jsonl").write_text(json.dumps({"prompt": prompt}) + "\n")
    run(
        "infer",
        f"--model_dir={model_dir}",
        f"--input={tmp_path}/prompts.jsonl",
        f"--output={tmp_path}/answers.jsonl",
        "--max_new_tokens=6",
    )
    assert opened.ask(prompt, max_new_tokens=6) == rows(tmp_path / "answers.jsonl")[0]["text"]
    assert isinstance(opened.describe(item, max_new_tokens=2), str)
    with pytest.raises(UserError, match="no user 'nobody'"):
        opened.recommend("nobody")


@pytest.mark.slow
def test_the_example_that_asks_prints_lists_and_texts(world, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["ask.py", str(world[2]), "--count=2"])
    runpy.run_path(str(pathlib.Path(__file__).parents[2] / "examples/ask.py"), run_name="__main__")
    lines = capsys.readouterr().out.splitlines()
    assert sum("log p" in line for line in lines) == 4
