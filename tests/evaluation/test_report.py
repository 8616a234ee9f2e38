"""report.json has the promised keys and is strict JSON; the table is aligned."""

import json
import math

import numpy as np

from ilm_jax.evaluation.reports.report import Row, format_intervals, format_table, write_report
from ilm_jax.metrics.intervals import compare, mean_interval

ROWS = [
    Row("text-zero", {"nll": 5.25, "nll_content": 6.5}, 0, 1_234_567, 3.2),
    Row(
        "ilm",
        {"nll": 1.5, "nll_content": 2.25, "hr@10": 0.5, "ndcg@10": 0.25, "hr@1": math.inf},
        9_876,
        1_234_567,
        61.0,
        {"nll": mean_interval(np.ones(1))},
    ),
]
CARD = {"ranking": {"users": "200, a fixed sample of 3000"}}


def test_report_json_has_the_promised_keys(tmp_path):
    verdict = compare("ilm", np.zeros(40), "mlp", np.arange(40.0))
    path = tmp_path / "run" / "report.json"
    returned = write_report(
        path, "toy", 3, ROWS, protocol=CARD, comparisons=[verdict], ceiling={"nll_content": 1.9}
    )
    read = json.loads(path.read_text(), parse_constant=lambda name: 1 / 0)
    assert read == returned
    assert read["dataset"] == "toy" and read["seed"] == 3
    keys = {"model", "nll", "nll_content", "hr@10", "ndcg@10"}
    keys |= {"trainable_params", "frozen_params", "seconds"}
    assert all(keys <= set(row) for row in read["rows"])
    assert read["rows"][0]["hr@10"] is None and read["rows"][1]["other"]["hr@1"] is None
    assert read["rows"][1]["intervals"]["nll"]["low"] is None
    assert read["comparisons"][0]["verdict"] == "ilm below mlp"
    assert read["ceiling"]["nll_content"] == 1.9
    assert read["protocol"] == CARD


def test_table_is_aligned_and_names_floor_and_ceiling():
    lines = format_table(ROWS, ceiling={"nll_content": 1.9}).split("\n")
    assert len(lines) == 4 and max(map(len, lines)) <= 125
    column = lines[0].index("nll_content") + len("nll_content")
    assert [line[column - 6 : column] for line in lines[1:]] == ["6.5000", "2.2500", "1.9000"]
    assert lines[1].endswith("floor") and "1.23M" in lines[1] and "9.88k" in lines[2]
    assert lines[3].startswith("ceiling")


def test_what_nobody_counted_is_no_number(tmp_path):
    row = Row("ials", {"ndcg@10": 0.1}, None, None, None)
    (_, line) = format_table([row]).split("\n")
    assert line.split() == ["ials", "-", "-", "-", "-", "0.1000", "-", "-", "-", "-"]
    (written,) = write_report(tmp_path / "r.json", "toy", 0, [row], protocol={})["rows"]
    assert written["seconds"] is None and written["trainable_params"] is None


def test_intervals_stand_under_the_figures_that_have_one():
    values = Row("mlp", {"nll": 0.5}, intervals={"nll": mean_interval(np.arange(40) / 39)})
    lines = format_intervals([ROWS[0], values]).split("\n")
    low, high = values.intervals["nll"].low, values.intervals["nll"].high
    assert f"[{low:.4f}, {high:.4f}]" in lines[2] and "[" not in lines[1]
    head = ["model", "nll", "nll_content", "worth_content", "hr@10", "ndcg@10", "semantic"]
    assert lines[0].split() == head
