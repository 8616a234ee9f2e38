"""While a model trains its answers are measured, task by task, and written in seqio's files."""

import json
import types

import jax
import numpy as np
import pytest

from ilm_jax.data.streams.dataset_config import DatasetConfig
from ilm_jax.errors import UserError
from ilm_jax.evaluation.infer_eval import InferEval, InferEvalConfig
from ilm_jax.evaluation.measures.passes import ModelOnMesh
from ilm_jax.evaluation.trained import EvaluatedTask
from ilm_jax.metrics import registry
from ilm_jax.metrics.registry import Metric, register_metric
from ilm_jax.sharding.partitioning import MeshConfig, Partitioner
from ilm_jax.training.writers import read_metrics
from tests.evaluation import small
from tests.training import models
from tests.training.small import make_trainer

RANKS, WORDS = "openp5_toy_sequential_random", "elm24_toy_long_description"


@pytest.fixture
def evaluation(tmp_path, monkeypatch):
    monkeypatch.setattr(EvaluatedTask, "trie", small.small_trie())
    items = [f"i{row}" for row in range(models.ITEMS)]
    catalogue = types.SimpleNamespace(item_ids=items, num_items=len(items))
    one = Partitioner(MeshConfig(1), devices=tuple(jax.devices()[:1]))

    def build(*tasks):
        dataset = DatasetConfig(
            dict.fromkeys(tasks, 1.0), task_feature_lengths={"inputs": 16, "targets": 3}
        )
        return InferEval(
            InferEvalConfig(dataset, every=2, examples=7),
            ModelOnMesh(models.ILM, one, models.table()),
            lambda dataset: small.small_feed(20),
            lambda dataset: types.SimpleNamespace(catalogue=catalogue),
            small.TOKENIZER,
            tmp_path,
        )

    return build, one


def test_lists_and_texts_are_measured_and_kept(evaluation, tmp_path, monkeypatch):
    build, one = evaluation
    monkeypatch.setattr(registry.METRICS, "_entries", dict(registry.METRICS._entries))
    register_metric(Metric("longest", "items", lambda lists, targets: lists.max(axis=1)))
    jax.config.update("jax_disable_most_optimizations", True)
    try:
        measure = build("sequential_random", "long_description")
        found = measure(small.parameters(one), 2)
        assert measure.model.soft_tokens.computed == 1, "lists and texts read the same"
    finally:
        jax.config.update("jax_disable_most_optimizations", False)
    assert {f"{RANKS}/hr@10", f"{RANKS}/coverage@10", f"{WORDS}/exact_match"} <= set(found)
    assert np.isfinite(found[f"{WORDS}/nll"]) and f"{WORDS}/worth" in found
    assert f"{RANKS}/nll" not in found, "what counts of lists is the answer"
    lines = [json.loads(x) for x in (tmp_path / f"{RANKS}-000002.jsonl").read_text().splitlines()]
    longest = [max(int(item[1:]) for item in line["prediction"]) for line in lines]
    assert found[f"{RANKS}/longest"] == np.mean(longest), "a metric of one's own is measured too"
    assert len(lines) == 7 and all(len(line["prediction"]) == 10 for line in lines)
    hits = np.mean([line["target"] in line["prediction"] for line in lines])
    assert found[f"{RANKS}/hr@10"] == hits
    metrics = json.loads((tmp_path / f"{WORDS}-metrics.jsonl").read_text())
    assert metrics["step"] == 2 and metrics["exact_match"] == found[f"{WORDS}/exact_match"]
    assert (tmp_path / f"{WORDS}-000002.jsonl").exists()


def test_a_corpus_has_nothing_to_answer(evaluation, monkeypatch):
    build, _ = evaluation
    feed = small.small_feed(2)
    feed.stream[0]["inputs"] = np.array([], np.int32)
    monkeypatch.setattr(small, "small_feed", lambda number: feed)
    with pytest.raises(UserError, match="corpus_toy_text, whose examples have no prompt"):
        build("text")


class Answers:
    """Remembers when it was asked."""

    every = 5

    def __init__(self):
        self.asked = []

    def __call__(self, params, step):
        self.asked.append((step, float(params["first"]["kernel"].sum())))
        return {"task/figure": step / 10}


def test_the_trainer_asks_at_the_period_and_at_the_end(tmp_path):
    answers = Answers()
    make_trainer(tmp_path, steps=12, inference=answers).fit()
    assert [step for step, _ in answers.asked] == [5, 10, 12]
    assert len({total for _, total in answers.asked}) == 3  # of the parameters at that step
    records = read_metrics(tmp_path / "metrics.jsonl")
    name = "infer_eval/task/figure"
    assert {r["step"]: r[name] for r in records if name in r} == {5: 0.5, 10: 1.0, 12: 1.2}
