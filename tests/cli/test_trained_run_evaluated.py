"""One small run, trained, and measured: figures, lists, samples, comparisons."""

import json

import numpy as np
import pytest

from ilm_jax.evaluation.reports import results
from tests.cli.trained_run import refused, rows, run
from tests.some import some


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


@pytest.mark.slow
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


@pytest.mark.slow
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
