"""One pass over examples: what it finds is numbers, or it says for which example not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ilm_jax.errors import UserError
from ilm_jax.evaluation.measures import passes
from ilm_jax.evaluation.measures.passes import ModelOnMesh, Pass, gathered
from ilm_jax.sharding.partitioning import MeshConfig, Partitioner
from tests.evaluation.small import small_feed
from tests.training import models


def scores_of(bad):
    """A pass whose score is the example's number, but NaN and infinity for two of them."""
    one = Partitioner(MeshConfig(1), devices=tuple(jax.devices()[:1]))

    def step(params, batch, table):
        number = batch["number"].astype(jnp.float32)
        number = jnp.where(number == bad, jnp.nan, jnp.where(number == 3, -jnp.inf, number))
        return {"score": number, "row": batch["number"]}

    model = ModelOnMesh(models.ILM, one, models.table())
    columns = {"number": lambda rows: rows.astype(np.int32)}
    return gathered(Pass(model, small_feed(), step, columns=columns)({}))


def test_a_score_that_is_no_number_is_refused_with_its_example(monkeypatch):
    monkeypatch.setattr(passes, "BATCH", 64)  # other tests make it smaller
    with pytest.raises(UserError, match="answer to example 5 is not a number, and to 1 of 37"):
        scores_of(5)


def test_infinity_stands_for_nothing_found_and_is_kept():
    index, found = scores_of(-1)
    assert found["row"].tolist() == index.tolist() and found["score"][3] == -np.inf
