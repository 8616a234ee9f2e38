"""A quickstart's table: baselines and rows on the same users, each by its own way to rank."""

import json
import pathlib
import sys

import numpy as np
import pytest

from ilm_jax.cf import evaluation
from ilm_jax.data.catalogue.splits import TEST, make_splits
from ilm_jax.errors import UserError
from ilm_jax.evaluation.reports import results
from ilm_jax.metrics.values import Evaluation, MetricValues
from tests.data.small_catalogue import small_catalogue

ROOT = pathlib.Path(__file__).parents[2]
ROWS = ["text-zero", "prompt", "mlp", "ilm-rand", "ilm", "text-full"]
MODULES = ("reporting", "recommending", "baselines", "study", "steps", "scheduling")
TEXTS, USERS = 40, 60


@pytest.fixture
def modules(monkeypatch):
    """(reporting, recommending, baselines, study)."""
    monkeypatch.syspath_prepend(str(ROOT / "studies"))
    import baselines
    import recommending
    import reporting
    import study

    yield reporting, recommending, baselines, study
    for name in (*MODULES, "cf_data", "cf_sweep"):
        sys.modules.pop(name)


def evaluated(folder, ndcg=None, content=None, targets=USERS):
    """An evaluation of constant metrics, with the lists' file."""
    draw = np.random.default_rng(0)
    metrics, protocol = [], {"intervals": "95 %"}
    if content is not None:
        values, weights = content + draw.normal(size=TEXTS) / 9, np.ones(TEXTS)
        names = ("nll", "nll_content")
        metrics += [MetricValues(n, "texts", np.arange(TEXTS), values, weights) for n in names]
        protocol["nll"] = {"nll": "nats", "nll_content": "content", "texts": TEXTS, "ids": "same"}
    if ndcg is not None:
        at, values = np.arange(USERS), ndcg + draw.normal(size=USERS) / 99
        metrics += [MetricValues(name, "users", at, values) for name in ("hr@10", "ndcg@10")]
        ranking = {"candidates": "all", "seen_items": "left out", "users": str(USERS)}
        protocol["ranking"] = ranking | {"beams": 10, "history": 10}
    lists = [json.dumps({"user": f"u{n}", "target": f"i{n}"}) + "\n" for n in range(targets)]

    def write_lists(at):
        (at / "ranks.jsonl").write_text("".join(lists))
        return ["ranks.jsonl"]

    folder.mkdir(parents=True)
    missing = {"semantic": "no encoder"}
    sizes = {"trainable_params": 5, "frozen_params": 7, "model_dir": "", "step": 1}
    given = Evaluation(metrics, protocol=protocol, missing=missing)
    results.write(folder, given, writers=[write_lists], **sizes)


def test_one_table_holds_baselines_rows_and_id_strings(modules, tmp_path):
    reporting, _, baselines, study = modules
    work = study.Study("toy", 0, tmp_path, heads=True)
    for place, row in enumerate(ROWS):
        ranked = None if row == "text-zero" else 0.9 if row == "ilm" else 0.1 * place
        evaluated(tmp_path / row / "evaluation", ranked, 5.0 - place)
    for row in baselines.ROWS:
        evaluated(tmp_path / "baselines" / row, 0.7)
    curve = {"step": 1, "loss": 1.0, "nll_content": 2.0, "validation/nll_content": 3.0}
    for stage in ("stage0", "stage1", *ROWS[1:]):
        (tmp_path / stage).mkdir(exist_ok=True)
        (tmp_path / stage / "metrics.jsonl").write_text(json.dumps(curve) + "\n")
    said = reporting.report_study(work, ROWS, {"cf": 3.0}, {}).split("\n")
    table = {line.split()[0]: line.split() for line in said[1 : 1 + len(baselines.ROWS) + 7]}
    assert list(table) == [*baselines.ROWS, *ROWS, "id-strings"]
    assert table["ials"][1:5] == ["-"] * 3 + [table["ials"][4]] and table["popularity"][-1] == "-"
    assert table["text-zero"][4:6] == ["-", "-"] and table["text-full"][4:6] == ["-", "-"]
    assert table["id-strings"][1:4] == ["-"] * 3 and float(table["id-strings"][5]) < 0.6
    assert any(line.startswith("  ials below ilm: ilm - ials = 0.2") for line in said)
    assert any("ilm - id-strings" in line for line in said)
    report = json.loads((tmp_path / "report.json").read_text())
    names = [row["model"] for row in report["rows"]]
    assert names == list(table) and len(report["comparisons"]) == 3 + len(reporting.RANKED)
    (tmp_path / "baselines/ials/ranks.jsonl").write_text('{"user": "u1", "target": "i2"}\n')
    with pytest.raises(UserError, match="ilm and ials were measured on other users or items"):
        reporting.compare_rankings(work)


def test_a_head_is_compared_with_ials_and_with_id_strings(modules, tmp_path, monkeypatch):
    _, recommending, baselines, study = modules
    pairs = []
    for world in range(2):
        work = study.Study("toy", world, tmp_path / str(world), heads=True)
        evaluated(work.folder / "ilm/evaluation", 0.8 + world / 10)
        evaluated(work.folder / "text-full/evaluation", 0.05)
        for row in baselines.ROWS:
            evaluated(work.folder / "baselines" / row, 0.4)
        pairs.append((world, world, work))
    asked = []
    monkeypatch.setattr(recommending, "run_study", lambda work, rows: asked.append((work, rows)))
    lines = recommending.measure(pairs).split("\n")
    assert [rows for _, rows in asked] == [["ilm", "text-full"]] * 2
    monkeypatch.setattr(study.Study, "tokenizer", tmp_path / "stage0.model")
    words = {name: command for name, command, _ in study.plan(asked[0][0], *asked[0][1:], True)}
    assert "--gin_file=tiny/stage2_items.gin" in words["ilm"]
    assert all("--exclude_seen" in words[f"evaluate {row}"] for row in ("ilm", "text-full"))
    shares = [float(line.split()[0]) for line in lines if " of ials; " in line]
    assert shares == pytest.approx([2.0, 2.25, 2.125], abs=0.05)
    assert sum(" of id-strings; " in line for line in lines) == 3
    assert "all 2 pairs together (users of every pair):" in lines
    assert f"{2 * USERS} pairs" in lines[-1] and f" {USERS} pairs" in lines[4]


def test_lists_of_a_baseline_have_the_ranks_of_the_evaluation(modules):
    baselines = modules[2]
    splits = make_splits(small_catalogue(80, 60, 0, "toy"))
    draw = np.random.default_rng(0)
    user, item = (draw.normal(size=(n, 5)).astype(np.float32) for n in (60, 80))
    scorer = evaluation.vector_scorer(user, item)
    seen, users, targets = evaluation.held_back(splits, TEST)
    found = baselines.lists(scorer, seen, users, targets)
    ranks = evaluation.evaluate(scorer, splits, TEST).ranks
    np.testing.assert_array_equal(found.ranks, np.where(ranks <= 10, ranks, np.inf))
    assert (ranks <= 10).any() and (ranks > 10).any() and (found.lists >= 0).all()
    for row, had in zip(found.lists, users, strict=True):
        gone = set(seen.items[seen.offsets[had] : seen.offsets[had + 1]].tolist())
        target = targets[np.flatnonzero(users == had)[0]]
        assert not set(row.tolist()) & (gone - {target})
