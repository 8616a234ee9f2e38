"""A second stage 1 takes over all of the first, scalars and empty arrays too, on any mesh."""

import dataclasses

import jax
import numpy as np
import pytest

from ilm_jax.checkpoints import converting
from ilm_jax.checkpoints.checkpoints import InitFrom
from ilm_jax.checkpoints.published.entries import Entry
from ilm_jax.checkpoints.published.sources import open_source
from ilm_jax.checkpoints.reading import read_array
from ilm_jax.sharding.partitioning import MeshConfig, Partitioner
from tests.training import models
from tests.training.test_stage_two_starts_from_stage_one import OPTIMIZER, trainer

MESHES = {"one": MeshConfig(1), "eight": MeshConfig(2, 2, 2)}


def on(mesh, folder, **config):
    stage = trainer(folder, models.ALIGNMENT, "user_item", **config)
    devices = tuple(jax.devices()[: 1 if mesh == "one" else 8])
    return dataclasses.replace(stage, partitioner=Partitioner(MESHES[mesh], devices=devices))


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    folder = tmp_path_factory.mktemp("first") / "stage1"
    trainer(folder, models.ALIGNMENT, "user_item").fit()
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("mesh", MESHES)
def test_every_parameter_is_the_first_stages(first, tmp_path, mesh):
    stage = on(mesh, tmp_path / "second", init=(InitFrom(str(first)),), total_steps=2)
    started = stage.initial_state(OPTIMIZER.build(1))[0].trainable
    saved = open_source(str(first)).entries
    scalars = [name for name, entry in saved.items() if entry.shape == ()]
    assert scalars == ["qformer/log_temperature"] or "log_temperature" in scalars[0]
    for name in scalars:
        assert started[name].shape == ()
        np.testing.assert_array_equal(started[name], saved[name].read())
    # It trains, and resumes from where it stopped.
    stage.fit()
    on(mesh, tmp_path / "second", init=(InitFrom(str(first)),), total_steps=3).fit()
    assert open_source(f"{tmp_path}/second", step="last").where.endswith("(step 3)")


@pytest.mark.parametrize("mesh", MESHES)
@pytest.mark.parametrize("shape", [(), (0,), (0, 4), (3, 0)])
@pytest.mark.parametrize("cheap_axis", [None, 0])
def test_scalars_and_empty_arrays_keep_their_shapes(mesh, shape, cheap_axis):
    value = np.full(shape, 2.5, np.float32)
    entry = Entry(shape, value.dtype, lambda index: value[index], cheap_axis)
    devices = tuple(jax.devices()[: 1 if mesh == "one" else 8])
    partitioner = Partitioner(MESHES[mesh], devices=devices)
    where = jax.sharding.NamedSharding(partitioner.mesh, jax.sharding.PartitionSpec())
    like = jax.ShapeDtypeStruct(shape, np.float32, sharding=where)
    np.testing.assert_array_equal(read_array([entry], like, stacked=False), value)
    assert entry.read().shape == shape


@pytest.mark.slow
def test_scalars_go_out_and_come_back_in_an_adapters_folder(first, tmp_path):
    converting.to_adapter(str(first), str(tmp_path / "adapter"))
    saved, back = open_source(str(first)).entries, open_source(f"{tmp_path}/adapter").entries
    assert set(saved) == set(back)
    for name, entry in saved.items():
        assert back[name].shape == entry.shape
        np.testing.assert_array_equal(back[name].read(), entry.read())
