"""examples/own_reader.py: a reader that the package knows nothing of trains, sharded and by gin."""

import dataclasses
import importlib
import pathlib

import flax.linen as nn
import jax
import numpy as np
import pytest

from ilm_jax.runs import gin_config
from ilm_jax.runs.run import Run
from ilm_jax.sharding.state import describe_variables
from tests.examples.test_examples import ROOT, run_example
from tests.training import models


@pytest.fixture
def own_reader(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    return importlib.import_module("own_reader")


def test_a_recipe_that_imports_it_trains_it_alone(own_reader, tmp_path):
    recipe = tmp_path / "own_reader.gin"
    recipe.write_text(own_reader.RECIPE)
    run = gin_config.build(Run, [str(recipe)], ["MODEL_DIR=m", "LM_FROM=lm", "CF_TABLE=t"])
    reader = run.objective.reader
    assert (reader.num_queries, run.objective.num_queries) == (4, 4)
    assert run.objective.layout("prompt").num_queries == 4 and run.objective.needs_table
    sized = dataclasses.replace(run.objective, lm=models.LM).with_sizes(cf_dim=16, target_length=8)
    assert sized.cf_dim == 16 and sized.target_length == 8
    variables = describe_variables(sized)
    assert variables["words"].axes == ("queries", "embed")
    assert {path.split("/")[0] for path in variables} == {"words", "move", "lm"}


def test_its_parameters_learn_through_the_frozen_model(own_reader):
    reader = own_reader.MovedWordsReader(models.QFORMER.num_queries, models.CF)
    objective = dataclasses.replace(models.ILM, reader=reader)
    params = nn.unbox(jax.jit(objective.init)(jax.random.key(0)))
    batch, table = models.prompt_batch(), models.table()

    @jax.jit
    def grads(reader):
        def loss(reader):
            sums = objective.loss({**params, **reader}, "prompt", batch, table, None)
            return sums["loss"].total

        return jax.grad(loss)(reader)

    for leaf in jax.tree.leaves(grads({name: params[name] for name in ("words", "move")})):
        assert np.isfinite(leaf).all() and np.abs(leaf).max() > 0


@pytest.mark.slow  # two stages, most of it caching and compiling
def test_it_trains_on_the_toy_world(own_reader, monkeypatch, tmp_path, capsys):
    run_example(monkeypatch, "own_reader.py", tmp_path, "--steps=3")
    assert "validation nll" in capsys.readouterr().out
    assert "import own_reader" in pathlib.Path(tmp_path / "reader" / "config.gin").read_text()
