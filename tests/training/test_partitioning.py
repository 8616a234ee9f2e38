"""Meshes that do not fit are refused; rows and shards agree."""

import jax
import numpy as np
import pytest

from ilm_jax.errors import UserError
from ilm_jax.training.partitioning import MeshConfig, Partitioner


def test_minus_one_takes_what_is_left():
    assert MeshConfig(data=-1, tensor=2).resolve(8) == ((4, 1, 2), (1, 1, 1))


@pytest.mark.parametrize("sizes", [(3, 1, 1), (-1, 3, 1), (-1, -1, 1), (0, 1, 1), (16, 1, 1)])
def test_a_mesh_that_does_not_fit_the_devices_is_refused(sizes):
    with pytest.raises(UserError, match="MeshConfig"):
        MeshConfig(*sizes).resolve(8)


def test_a_batch_that_is_not_divisible_names_the_multiple():
    with pytest.raises(UserError, match="multiple of 4"):
        Partitioner(MeshConfig(2, 2, 2)).batch_sharding(6)


@pytest.mark.parametrize("sizes", [(8, 1, 1), (2, 2, 2), (1, 1, 8)])
def test_global_batches_hold_the_rows_they_were_given(sizes):
    partitioner = Partitioner(MeshConfig(*sizes))
    rows = partitioner.local_rows(16)
    batch = partitioner.global_batch({"x": rows[:, None] * np.ones((1, 3))}, 16)
    np.testing.assert_array_equal(np.asarray(batch["x"])[:, 0], np.arange(16))
    assert batch["x"].sharding.spec[0] == ("data", "fsdp")


def test_parameters_shard_and_indivisible_dimensions_stay_whole():
    partitioner = Partitioner(MeshConfig(2, 2, 2))
    assert partitioner.spec(("embed", "mlp"), (8, 6)) == jax.P("fsdp", "tensor")
    assert partitioner.spec(("embed", "mlp"), (7, 6)) == jax.P(None, "tensor")
    assert partitioner.spec(("batch", "length", "embed"), (8, 3, 8)) == jax.P(
        ("data", "fsdp"), None, None
    )
