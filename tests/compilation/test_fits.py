"""Fits of vectors as programs: what is compiled without data is what training runs."""

import dataclasses

import numpy as np
import pytest

from ilm_jax.cf.negatives import SamplerConfig
from ilm_jax.cf.sequences import Sequences
from ilm_jax.cf.text_vectors import TextConfig
from ilm_jax.compilation.fits import fit_programs
from ilm_jax.errors import UserError
from ilm_jax.models.sasrec import SASRecConfig
from ilm_jax.runs.fitting import FitCF
from ilm_jax.runs.gin_config import build
from ilm_jax.runs.sequential import SequentialConfig, SequentialFit
from ilm_jax.sharding.partitioning import MeshConfig, Partitioner

SMALL = SequentialConfig(
    SASRecConfig(max_length=6, num_layers=1, embed_dim=8), batch_size=4, epochs=1
)


@pytest.mark.parametrize("text", [None, TextConfig(dim=3)], ids=["ids", "texts"])
def test_a_fit_without_data_has_the_shapes_of_one_with_data(text):
    config = dataclasses.replace(SMALL, text=text)
    shapes = config.shapes(20)
    told = Sequences.of([np.arange(9), np.arange(5, 20)], 20)
    texts = np.ones((20, 3), np.float32) if text else None
    fit = SequentialFit(told, config, texts=texts)
    batch = fit.examples.rows(np.arange(4))
    assert {n: (x.shape[1:], x.dtype) for n, x in batch.items()} == {
        n: (x.shape, x.dtype) for n, x in shapes.row.items()
    }
    assert (fit.table.shape, fit.table.dtype) == (shapes.table.shape, shapes.table.dtype)
    assert shapes.objective.num_items == fit.objective.num_items
    assert shapes.objective.text_dim == fit.objective.text_dim


def test_the_recipe_for_a_pod_shares_its_table_among_the_chips():
    fit = build(FitCF, ["pods/sasrec_v5e_16.gin"], [])
    partitioner = dataclasses.replace(fit.partitioner, mesh_config=MeshConfig(data=1, fsdp=-1))
    (program,) = fit_programs(fit, partitioner, 4096)
    assert program.rows == 1024 and program.name == "train sequence"
    (table,) = (x for path, x in program.state.trainable.items() if "item/embedding" in path)
    assert table.shape[0] >= 4096
    assert table.sharding.shard_shape(table.shape)[0] == table.shape[0] // 8


def test_a_step_of_a_sampled_softmax_lowers_for_eight_devices():
    method = dataclasses.replace(SMALL, sampler=SamplerConfig("popularity", drawn=16), batch_size=8)
    partitioner = Partitioner(MeshConfig(2, 2, 2))
    (program,) = fit_programs(FitCF(methods=(method,)), partitioner, 64)
    assert "8x6xi32" in program.lower().as_text().replace("tensor<", "")


def test_what_no_step_trains_is_refused():
    with pytest.raises(UserError, match="no method of the recipe is trained step by step"):
        next(fit_programs(FitCF(), Partitioner(), 10))
    sampled = build(FitCF, ["runs/cf_sampled.gin"], [])
    with pytest.raises(UserError, match="'sampled' does not say what its steps are"):
        next(fit_programs(sampled, Partitioner(), 10))
