"""Lists on disk: TREC files by the format's definition, JSON lines, seqio's lines."""

import json

import numpy as np
import pytest

from ilm_jax.evaluation import run_files, seqio_files
from ilm_jax.evaluation.measures import Ranked

RANKED = Ranked(
    index=np.array([0, 1]),
    targets=np.array([2, 0]),
    lists=np.array([[1, 2, -1], [2, 1, 3]]),
    scores=np.array([[-0.5, -1.25, -np.inf], [-0.25, -0.75, -3.0]], np.float32),
    items=4,
)
USERS, ITEMS = ["anna b", "7"], ["i0", "i 1", "ü", "i3"]


def test_trec_lines_have_six_columns_ids_without_spaces_and_falling_scores(tmp_path):
    run_files.write_ranks(tmp_path, RANKED, USERS, ITEMS, tag="mlp")
    lines = [line.split(" ") for line in (tmp_path / "ranks.trec").read_text().splitlines()]
    assert [line[:4] for line in lines[:2]] == [
        ["anna%20b", "Q0", "i%201", "1"],
        ["anna%20b", "Q0", "%C3%BC", "2"],
    ]
    assert len(lines) == 5 and all(len(line) == 6 and line[5] == "mlp" for line in lines)
    assert [float(line[4]) for line in lines[2:]] == [-0.25, -0.75, -3.0]
    qrels = (tmp_path / "qrels.trec").read_text().splitlines()
    assert qrels == ["anna%20b 0 %C3%BC 1", "7 0 i0 1"]


def test_json_lines_keep_rank_and_list(tmp_path):
    run_files.write_ranks(tmp_path, RANKED, USERS, ITEMS)
    first, second = map(json.loads, (tmp_path / "ranks.jsonl").read_text().splitlines())
    assert first == {
        "user": "anna b", "target": "ü", "rank": 2, "items": ["i 1", "ü"],
        "scores": [-0.5, -1.25],
    }  # fmt: skip
    assert second["rank"] is None and second["items"] == ["ü", "i 1", "i3"]


def test_figures_of_lists_stop_where_the_lists_do():
    figures = {figure.name: figure for figure in RANKED.figures(np.array([4, 2, 6, 0]))}
    assert set(figures) == {"hr@1", "ndcg@1", "mrr@1", "popularity@1"}
    totals = RANKED.totals()
    assert totals == {"coverage@1": 0.5, "valid_ids": pytest.approx(5 / 6), "repeated_ids": 0}


def test_seqio_lines_and_a_resumed_run_repeats_no_step(tmp_path):
    for step in (10, 20, 10):
        seqio_files.append_metrics(tmp_path, "task", step, {"nll": 1.5, "auc": float("nan")})
    lines = (tmp_path / "task-metrics.jsonl").read_text().splitlines()
    assert lines == ['{"step": 10, "nll": 1.5, "auc": null}']
    example = {"key": "a", "inputs": np.array([1, -1], np.int32), "target_text": "x"}
    example |= {"slots": np.array([], np.int32), "targets_content": np.ones(1)}
    asked = [seqio_files.asked(example, lambda ids: f"words of {ids}")]
    seqio_files.write_answers(tmp_path, "task", 10, asked, ["x"], prediction=["y"])
    line = json.loads((tmp_path / "task-000010.jsonl").read_text())
    assert line == {
        "input": {
            "key": "a", "inputs": [1, -1], "inputs_pretokenized": "words of [1, -1]",
            "targets_pretokenized": "x",
        },
        "target": "x", "prediction": "y",
    }  # fmt: skip
    with pytest.raises(ValueError, match="shorter|longer"):
        seqio_files.write_answers(tmp_path, "task", 10, asked, ["x"], score=[])
