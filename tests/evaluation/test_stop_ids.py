"""Every end token of the model's files ends an answer that is measured, and says that it ended."""

import jax
import numpy as np

from ilm_jax.evaluation.measures.generation import GenerationMeasure
from ilm_jax.evaluation.measures.passes import ModelOnMesh
from ilm_jax.evaluation.reports.card import texts_card
from ilm_jax.sharding.partitioning import MeshConfig, Partitioner
from tests.evaluation.small import TOKENIZER, parameters, small_feed
from tests.training import models


def test_an_answer_ends_at_any_of_them():
    partitioner = Partitioner(MeshConfig(1), devices=tuple(jax.devices()[:1]))
    model = ModelOnMesh(models.ILM, partitioner, models.table())
    params, feed = parameters(partitioner), small_feed(8)

    def written(stops):
        found = GenerationMeasure(model, feed, TOKENIZER, 4, stops)(params)
        return [list(map(int, text.split())) for text in found.predictions], found.ended

    whole, before = written(())
    stop = whole[0][1]
    cut, after = written((TOKENIZER.eos_id, stop))
    assert cut == [row[: row.index(stop)] if stop in row else row for row in whole]
    assert np.isclose(after - before, sum(stop in row for row in whole) / 8) and after > before


def test_the_card_of_an_evaluation_says_them():
    given = {"task": "t", "split": "test", "texts": 1, "length": 8, "encoder": "e", "rater": "r"}
    given["words"] = {}
    assert texts_card(**given, stop_ids=(2,))["decoding"] == "greedy, at most 8 tokens"
    said = texts_card(**given, stop_ids=(2, 7))["decoding"]
    assert said == "greedy, at most 8 tokens, ended by ids 2, 7"
