"""Lists on disk: TREC files by the format's definition, JSON lines, seqio's lines."""

import json

import numpy as np
import pytest

from ilm_jax.errors import UserError
from ilm_jax.evaluation.measures.ranking import Ranked
from ilm_jax.evaluation.reports import run_files, seqio_files
from ilm_jax.metrics.registry import measure

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


def as_trec_eval_reads(folder):
    """{query: items in order}: by score in float32, the larger first; ties by name, downwards."""
    lists, right = {}, {}
    for line in (folder / "ranks.trec").read_text().splitlines():
        query, _, item, _, score, _ = line.split()
        lists.setdefault(query, []).append((np.float32(score), item))
    for line in (folder / "qrels.trec").read_text().splitlines():
        query, _, item, _ = line.split()
        right[query] = item
    assert all(len(set(found)) == len(found) for found in lists.values()), "names are told apart"
    assert all(np.isfinite(score) for found in lists.values() for score, _ in found)
    ranked = {q: [item for _, item in sorted(found, reverse=True)] for q, found in lists.items()}
    return ranked, right


def ranks_in(folder):
    ranked, right = as_trec_eval_reads(folder)
    assert set(ranked) == set(right), "a user without a line would not be counted"
    return [ranked[q].index(i) + 1 if i in ranked[q] else np.inf for q, i in right.items()]


LONG = float(np.float32(-123.45678))
HARD = {
    "ties": [-0.5, -0.5, -0.5, -2.0],
    "equal in float32": [-1.0, -1.0 - 1e-12, -1.0 - 2e-12, -1.0 - 3e-12],
    "neighbours": [LONG, LONG, np.nextafter(np.float32(LONG), np.float32(-200)), -124.0],
    "one that cannot be": [-0.5, -1.0, -np.inf, -np.inf],
    "none that can be": [-np.inf] * 4,
    "beyond float32": [1e300, 1e299, -1e299, -1e300],
}


@pytest.mark.parametrize("name", HARD)
def test_a_reader_of_the_trec_files_finds_our_ranks(tmp_path, name):
    lists = np.array([[2, 0, 3, 1], [1, 3, 0, 2], [0, 1, 2, -1], [3, 1, 0, 2]])
    ranked = Ranked(np.arange(4), np.array([3, 2, 3, 1]), lists, np.array([HARD[name]] * 4), 4)
    run_files.write_ranks(tmp_path, ranked, ["a b", "é", "a\tb", "%"], ["x", "x y", "#", ""])
    assert ranks_in(tmp_path) == ranked.ranks.tolist() == [3, 4, np.inf, 2]
    json.loads(
        (tmp_path / "ranks.jsonl").read_text().splitlines()[0], parse_constant=lambda n: 1 / 0
    )


def test_repeats_second_lists_and_empty_ones_read_as_we_count_them(tmp_path):
    lists = np.array([[1, 1, 0], [2, 1, 0], [-1, -1, -1]])
    ranked = Ranked(np.arange(3), np.array([0, 0, 0]), lists, np.zeros((3, 3)), 3)
    run_files.write_ranks(tmp_path, ranked, ["u", "u", "v"], ITEMS)
    assert ranks_in(tmp_path) == ranked.ranks.tolist() == [3, 3, np.inf]
    ranked, right = as_trec_eval_reads(tmp_path)
    assert ranked["u"] == ["i%201", "i%201#2", "i0"] and list(right) == ["u", "u#2", "v"]


def test_a_model_that_gives_no_numbers_is_no_model_that_misses():
    with pytest.raises(UserError, match="NaN.* in 1 of 2 examples, first in example 7"):
        Ranked(
            np.array([3, 7]), np.zeros(2, int), -np.ones((2, 1), int), np.array([[0], [np.nan]]), 4
        )


def test_json_lines_keep_rank_and_list(tmp_path):
    run_files.write_ranks(tmp_path, RANKED, USERS, ITEMS)
    first, second = map(json.loads, (tmp_path / "ranks.jsonl").read_text().splitlines())
    assert first == {
        "user": "anna b",
        "target": "ü",
        "rank": 2,
        "items": ["i 1", "ü"],
        "scores": [-0.5, -1.25],
    }
    assert second["rank"] is None and second["items"] == ["ü", "i 1", "i3"]


def test_figures_of_lists_stop_where_the_lists_do():
    evaluation = measure("items", RANKED)
    evaluation += RANKED.popularity(np.array([4, 2, 6, 0]), [np.array([], int)] * 2)
    metrics = {metric.name: metric for metric in evaluation.metrics}
    assert set(metrics) == {"hr@1", "ndcg@1", "mrr@1", "popularity@1"}
    totals = RANKED.totals()
    assert totals == {"coverage@1": 0.5, "valid_ids": pytest.approx(5 / 6), "repeated_ids": 0}


def test_seqio_lines_and_a_resumed_run_repeats_no_step(tmp_path):
    for step in (10, 20, 10):
        seqio_files.append_metrics(tmp_path, "task", step, {"nll": 1.5, "auc": float("nan")})
    lines = (tmp_path / "task-metrics.jsonl").read_text().splitlines()
    assert lines == ['{"step": 10, "nll": 1.5, "auc": null}']
    example = {"key": "a", "inputs": np.array([1, -1], np.int32), "target_text": "x"}
    example |= {"slots": np.array([], np.int32), "targets_content": np.ones(1)}
    asked = [seqio_files.input_fields(example, lambda ids: f"words of {ids}")]
    seqio_files.write_answers(tmp_path, "task", 10, asked, ["x"], prediction=["y"])
    line = json.loads((tmp_path / "task-000010.jsonl").read_text())
    assert line == {
        "input": {
            "key": "a",
            "inputs": [1, -1],
            "inputs_pretokenized": "words of [1, -1]",
            "targets_pretokenized": "x",
        },
        "target": "x",
        "prediction": "y",
    }
    with pytest.raises(ValueError, match="shorter|longer"):
        seqio_files.write_answers(tmp_path, "task", 10, asked, ["x"], score=[])
