"""What an evaluation leaves in its folder belongs together, and what is missing says why."""

import json

import numpy as np
import pytest

from ilm_jax.cli import main as cli
from ilm_jax.data.streams.dataset_config import DatasetConfig
from ilm_jax.errors import UserError
from ilm_jax.evaluation.evaluator import EvaluationConfig
from ilm_jax.evaluation.infer_eval import InferEvalConfig
from ilm_jax.evaluation.reports import results
from ilm_jax.evaluation.reports.comparison import compare_content
from ilm_jax.metrics.texts import TOO_SHORT
from ilm_jax.metrics.values import Evaluation, MetricValues

CARD = {"texts": {"words": {"bleu": "13a"}, "ids": "ab"}}


def written(folder, values=(0.0, 1.0), names=("hr@10",), **more):
    metrics = [
        MetricValues(name, "users", np.arange(len(values)), np.array(values)) for name in names
    ]
    results.write(folder, Evaluation(metrics, protocol=more.pop("protocol", CARD), **more))
    return str(folder)


def leaving(name):
    def write(folder):
        (folder / name).write_text("x")
        return [name]

    return write


def test_files_of_an_earlier_evaluation_do_not_pass_for_the_next_ones(tmp_path):
    (tmp_path / "notes.txt").write_text("of a person")
    results.write(tmp_path, Evaluation([]), writers=[leaving("ranks.jsonl"), leaving("a.jsonl")])
    results.write(tmp_path, Evaluation([]), writers=[leaving("a.jsonl")])
    record = json.loads((tmp_path / "evaluation.json").read_text())
    assert record["files"] == ["a.jsonl", "per_unit.npz"]
    there = {path.name for path in tmp_path.iterdir()}
    assert there == {"a.jsonl", "per_unit.npz", "evaluation.json", "notes.txt"}


def test_nothing_outside_the_folder_is_taken_off(tmp_path):
    (tmp_path / "mine").write_text("x")
    folder = tmp_path / "evaluation"
    folder.mkdir()
    (folder / "evaluation.json").write_text(
        json.dumps({"files": ["../mine", str(tmp_path / "mine")]})
    )
    written(folder)
    assert (tmp_path / "mine").exists()


def test_an_evaluation_that_was_stopped_while_writing_is_none(tmp_path):
    written(tmp_path)

    def stopped(folder):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        results.write(tmp_path, Evaluation([]), writers=[stopped])
    with pytest.raises(UserError, match="holds no evaluation.json"):
        results.read(tmp_path)


def test_missing_unreadable_and_foreign_files_are_told_apart(tmp_path):
    with pytest.raises(UserError, match="there is no such folder"):
        results.read(tmp_path / "absent")
    written(tmp_path / "a")
    written(tmp_path / "b", values=(1.0, 1.0))
    (tmp_path / "a" / "per_unit.npz").write_bytes((tmp_path / "b" / "per_unit.npz").read_bytes())
    with pytest.raises(UserError, match="per_unit.npz is of another evaluation"):
        results.read(tmp_path / "a")
    (tmp_path / "b" / "per_unit.npz").write_bytes(b"PK")
    with pytest.raises(UserError, match="cannot be read"):
        results.read(tmp_path / "b")
    (tmp_path / "b" / "evaluation.json").write_text("{")
    with pytest.raises(UserError, match="cannot be read"):
        results.read(tmp_path / "b")


def test_compare_says_what_only_one_has_and_why(tmp_path, capsys):
    first = written(tmp_path / "a", names=("hr@10", "bleu"))
    second = written(tmp_path / "b", missing={"bleu": TOO_SHORT, "semantic": "not available (x)"})
    assert cli.main(["compare", first, second]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-3:] == [
        "Not compared:",
        f"- bleu: {TOO_SHORT} in B",
        "- semantic: absent in A, not available (x) in B",
    ]
    assert cli.main(["compare", first, second, "--figures=bleu"]) == 2
    assert "no reference has 4 words" in capsys.readouterr().err


def test_compare_refuses_other_words_and_other_units(tmp_path, capsys):
    first = written(tmp_path / "a")
    for name, change in (("words", {"bleu": "intl"}), ("ids", "cd")):
        card = {"texts": {**CARD["texts"], name: change}}
        assert cli.main(["compare", first, written(tmp_path / name, protocol=card)]) == 2
        assert f"texts.{name}" in capsys.readouterr().err
    assert cli.main(["compare", first, first, "--level=nan"]) == 2
    assert "--level=nan" in capsys.readouterr().err


@pytest.mark.parametrize(
    "bad",
    [
        {"users": 0},
        {"texts": -1},
        {"beams": 0},
        {"liked": float("nan")},
    ],
)
def test_numbers_of_a_plan_are_checked(bad):
    with pytest.raises(UserError, match=f"{next(iter(bad))}="):
        EvaluationConfig(**bad)


@pytest.mark.parametrize(
    "bad",
    [
        {"examples": 0},
        {"examples": 2.5},
        {"every": -1},
        {"beams": 0},
        {"every": True},
    ],
)
def test_numbers_of_an_evaluation_in_training_are_checked(bad):
    with pytest.raises(UserError, match=f"InferEvalConfig.{next(iter(bad))}="):
        InferEvalConfig(DatasetConfig("long_description"), **bad)


def test_content_is_paired_on_the_same_texts_or_not_at_all(tmp_path):
    folders = []
    for name, ids in (("a", "ab"), ("b", "ab"), ("c", "cd")):
        nll = MetricValues(
            "nll_content", "held-out texts", np.arange(3), np.arange(3.0), np.ones(3)
        )
        results.write(tmp_path / name, Evaluation([nll], protocol={"nll": {"ids": ids}}))
        folders.append(results.read(tmp_path / name))
    first, second, third = folders
    assert compare_content("a", [first], "b", [second]).verdict == "undecided"
    with pytest.raises(UserError, match="different items"):
        compare_content("a", [first], "c", [third])
    none = results.read(written(tmp_path / "d", missing={"nll_content": "not available (x)"}))
    with pytest.raises(UserError, match="d has no nll_content to compare: not available"):
        compare_content("a", [first], "d", [none])
