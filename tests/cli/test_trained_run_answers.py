"""One small run, trained, and asked by every verb."""

import io
import json
import pathlib
import runpy
import subprocess
import sys

import numpy as np
import pytest

import ilm_jax
from ilm_jax.cf.ials import IALSConfig
from ilm_jax.cli import main as cli
from ilm_jax.data.catalogue.splits import make_splits
from ilm_jax.data.examples.prompts import PromptRenderer
from ilm_jax.data.examples.task_settings import TaskSettings
from ilm_jax.errors import UserError
from ilm_jax.evaluation.reports import results
from ilm_jax.runs.fitting import fit_method
from tests.cli import small_world
from tests.cli.small_world import DECODER
from tests.serving.test_exporting import READER
from tests.some import some

TASKS = (
    "text",
    "long_description",
    "sequential_random",
    "sequential_sequential",
    "rating",
    "ranking",
    "user_profile",
)
LENGTHS = '--gin.TASK_FEATURE_LENGTHS={"inputs": 240, "targets": 60}'


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """(folder, catalogue, folder of a run of stage 2 of one step)."""
    root = tmp_path_factory.mktemp("trained")
    catalogue = small_world.save_world(root)
    small_world.cache(root, TASKS, "--nowith_text_only")
    assert small_world.train(root, "stage0", "0", *DECODER) == 0
    assert (
        small_world.train(
            root,
            "stage2_mlp",
            "2",
            *DECODER,
            f"--gin.LM_FROM={root}/0",
            LENGTHS,
            f"--gin.CF_TABLE={root}/cf.safetensors",
        )
        == 0
    )
    return root, catalogue, root / "2"


def run(*words):
    assert cli.main([str(word) for word in words]) == 0


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def refused(capsys, *words):
    capsys.readouterr()
    assert cli.main([str(word) for word in words]) == 2
    return capsys.readouterr().err.splitlines()[-1]


def test_every_task_has_the_figures_of_its_kind(world, tmp_path, capsys):
    _, catalogue, model_dir = world
    run(
        "evaluate",
        f"--model_dir={model_dir}",
        f"--output={tmp_path}",
        "--users=6",
        "--texts=3",
        "--beams=5",
        "--nogeneration",
        "--tasks=rating,ranking,sequential_sequential,user_profile",
    )
    record = json.loads((tmp_path / "evaluation.json").read_text())
    figures, intervals = record["figures"], record["intervals"]
    for name in ("rating/rmse", "rating/mae", "ranking/ndcg@5", "user_profile/nll"):
        low, high = intervals[name]["low"], intervals[name]["high"]
        assert low <= figures[name] <= high, name
    assert figures["rating/rmse"] == pytest.approx(np.sqrt(figures["rating/mse"]))
    assert 0.5 <= figures["rating/mae"] <= 4, "the scale's mean is never further than that"
    assert "rating/uauc" in record["not_available"]
    cards = record["protocol"]
    assert cards["ranking/ranking"]["candidates"].startswith("20 that the prompt names")
    found = cards["sequential_sequential/ranking"]["found"]
    assert found["valid_ids"] == 1 and found["colliding_ids"] == 0
    assert 0 <= found["valid_ids_without_trie"] <= 1 and found["written_without_trie"] == 6
    for row in some(rows(tmp_path / "ranking" / "ranks.jsonl")):
        assert len(set(row["items"])) == 5 and set(row["items"]) <= set(catalogue.item_ids)
    assert "rating/uauc" in capsys.readouterr().out


def test_a_language_model_judges_the_texts(world, tmp_path):
    root, _, model_dir = world
    run("convert", f"--source={root / '0'}", f"--model_dir={tmp_path / 'judge'}")
    run(
        "evaluate",
        f"--model_dir={model_dir}",
        f"--output={tmp_path}",
        "--texts=3",
        "--tasks=long_description",
        f"--rater={tmp_path / 'judge'}",
    )
    record = json.loads((tmp_path / "evaluation.json").read_text())
    assert 0 < record["figures"]["rater_fluency"] < 1 and 0 < record["figures"]["rater_item"] < 1
    assert "rater_history" not in record["figures"], "nobody chose before a description"
    assert record["protocol"]["texts"]["rater"] == "judge"


def test_lists_hold_only_the_candidates_that_the_prompt_names(world, tmp_path):
    _, catalogue, model_dir = world
    run(
        "evaluate",
        f"--model_dir={model_dir}",
        f"--output={tmp_path}",
        "--users=5",
        "--beams=20",
        "--tasks=ranking",
    )
    lists = rows(tmp_path / "ranking" / "ranks.jsonl")
    assert {len(row["items"]) for row in lists} == {20}
    assert all(row["target"] in row["items"] for row in some(lists))
    assert len({frozenset(row["items"]) for row in lists}) == 5, "each user has its own"


def test_earlier_choices_are_no_candidates_where_the_plan_says_so(world, tmp_path):
    _, catalogue, model_dir = world
    every = set(catalogue.item_ids)
    run(
        "evaluate",
        f"--model_dir={model_dir}",
        f"--output={tmp_path}",
        "--users=4",
        f"--beams={len(every)}",
        "--tasks=sequential_random",
        "--split=validation",
        "--exclude_seen",
    )
    lists = rows(tmp_path / "ranks.jsonl")
    assert len(lists) == 4
    for row in lists:
        items = catalogue.sequence(catalogue.user_ids.index(row["user"])).tolist()
        had = {catalogue.item_ids[item] for item in items[:-2]} - {row["target"]}
        assert row["target"] == catalogue.item_ids[items[-2]] and had
        assert set(row["items"]) == every - had
    protocol = json.loads((tmp_path / "evaluation.json").read_text())["protocol"]
    assert protocol["ranking"]["seen_items"] == "left out, but for the target"


def test_a_run_compared_with_itself_ties(world, tmp_path, capsys):
    _, _, model_dir = world
    for name in ("a", "b"):
        run(
            "evaluate",
            f"--model_dir={model_dir}",
            f"--output={tmp_path / name}",
            "--users=6",
            "--tasks=sequential_random",
            "--beams=5",
        )
    capsys.readouterr()
    run("compare", tmp_path / "a", tmp_path / "b")
    table = capsys.readouterr().out
    assert table.count("tie within noise") >= 5 and "better" not in table


def test_a_sample_limits_scoring_writing_and_ranking_alike(world, tmp_path, capsys):
    _, _, model_dir = world
    folders = [tmp_path / "few", tmp_path / "more"]
    for folder, size in zip(folders, (2, 5), strict=True):
        run(
            "evaluate",
            f"--model_dir={model_dir}",
            f"--output={folder}",
            f"--users={size}",
            f"--texts={size}",
            "--beams=5",
        )
    shown = capsys.readouterr()
    few, more = (results.read(folder) for folder in folders)
    for name, stored, size in (("few", few, 2), ("more", more, 5)):
        units = {figure: len(one.index) for figure, one in stored.metrics.items()}
        assert set(units.values()) == {size}, (name, units)
        for part, unit in (("nll", "texts"), ("texts", "texts"), ("ranking", "users")):
            assert stored.record["protocol"][part][unit].startswith(f"{size}, a fixed sample of ")
    for name, figure in few.metrics.items():
        assert set(figure.index) < set(more.metrics[name].index), name
    assert "nll: texts 5, a fixed sample of" in shown.out
    for line in ("scoring long_description", "writing long_description", "ranking sequential"):
        assert f"{line}" in shown.err
    assert few.record["not_available"]["hr@10"] == "not available (lists hold 5)"
    assert "nll.ids" in refused(capsys, "compare", *folders)


@pytest.mark.parametrize(
    "words, said",
    [
        (("evaluate", "--users=-1"), "users"),
        (("evaluate", "--beams=0"), "beams"),
        (("evaluate", "--beams=81"), "beams=81: give a number from 1 to 80"),
        (("evaluate", "--liked=nan"), "liked=nan"),
        (("evaluate", "--step=1e1"), "--step=1e1"),
        (("evaluate", "--step=7"), "no checkpoint '7'"),
        (("infer", "--temperature=-1"), "temperature=-1.0"),
        (("infer", "--top_p=nan"), "top_p=nan"),
        (("infer", "--top_p=0"), "top_p=0.0"),
        (("infer", "--length_penalty=nan"), "length_penalty"),
        (("infer", "--answer=items", "--beams=0"), "beams=0"),
        (("infer", "--answer=items", "--beams=81"), "from 1 to 80"),
        (("infer", "--answer=items", "--sample"), "--sample draws texts"),
        (("chat", "--items=81"), "from 1 to 80"),
        (("chat", "--max_new_tokens=0"), "max_new_tokens=0"),
        (("export", "--answer=items", "--beams=81"), "from 1 to 80"),
        (("export", "--batch_size=0"), "batch_size"),
        (("export", "--step=newest"), "--step=newest"),
    ],
)
def test_numbers_that_make_no_sense_are_refused_in_one_line(world, tmp_path, capsys, words, said):
    given = [f"--model_dir={world[2]}"]
    given += [] if words[0] == "chat" else [f"--output={tmp_path / 'none'}"]
    given += ["--task=sequential_random"] if words[0] == "infer" else []
    assert said in refused(capsys, *words, *given)
    assert list(tmp_path.iterdir()) == []


def test_evaluate_refuses_what_has_nothing_to_measure(world, tmp_path, capsys):
    _, _, model_dir = world
    words = ("evaluate", f"--model_dir={model_dir}", f"--output={tmp_path / 'none'}")
    assert "near it: " in refused(capsys, *words, "--tasks=rankng")
    assert "name at least one, and each once" in refused(capsys, *words, "--tasks=")
    assert "tasks='rating,rating'" in refused(capsys, *words, "--tasks=rating,rating")
    assert "pairs of vectors" in refused(capsys, *words, "--tasks=item_text")
    assert not (tmp_path / "none").exists()


def test_a_run_is_used_with_what_it_was_made_from_and_refused_with_anything_else(
    world, tmp_path, capsys
):
    root, catalogue, model_dir = world
    other = tmp_path / "other.safetensors"
    fit_method(make_splits(catalogue), IALSConfig(dim=4, epochs=2)).save(other)
    again = (
        "train",
        "--gin_file=tiny/stage2_mlp.gin",
        f"--gin.CACHE_DIR={root / 'cache'}",
        f"--gin.MODEL_DIR={model_dir}",
        *small_world.SMALL,
        *DECODER,
        LENGTHS,
        f"--gin.LM_FROM={root}/0",
        f"--gin.CF_TABLE={root}/cf.safetensors",
    )
    kept = {f: f.read_bytes() for f in model_dir.iterdir() if f.suffix in (".gin", ".json", ".txt")}
    assert len(kept) == 4
    run(*again)
    assert "had made all its steps: nothing is written" in capsys.readouterr().out
    assert "table (CF_TABLE)" in refused(capsys, *again, f"--gin.CF_TABLE={other}")
    assert "optimizer.learning_rate" in refused(capsys, *again, "--gin.LEARNING_RATE=0.5")
    assert kept == {file: file.read_bytes() for file in kept}
    for verb in (
        ("evaluate", f"--output={tmp_path / 'e'}"),
        ("infer", "--task=sequential_random", f"--output={tmp_path / 'i'}"),
        ("export", f"--output={tmp_path / 'x'}"),
    ):
        words = (verb[0], f"--model_dir={model_dir}", *verb[1:])
        line = refused(capsys, *words, f"--gin.CF_TABLE={other}")
        assert "was trained with something else: table (CF_TABLE)" in line
    assert not list(tmp_path.glob("[eix]"))


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
    settings = {**small_world.SETTINGS, "elm24": {"texts_file": str(texts)}}
    small_world.cache(root, ["summary"], "--nowith_text_only", settings=settings)


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


def test_the_example_that_asks_prints_lists_and_texts(world, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["ask.py", str(world[2]), "--count=2"])
    runpy.run_path(str(pathlib.Path(__file__).parents[2] / "examples/ask.py"), run_name="__main__")
    lines = capsys.readouterr().out.splitlines()
    assert sum("log p" in line for line in lines) == 4
