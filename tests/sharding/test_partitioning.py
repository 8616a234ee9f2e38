"""Meshes that do not fit are refused; rows and shards agree."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ilm_jax.compilation.costs import analyse
from ilm_jax.errors import UserError
from ilm_jax.models.layers import Embed, constrain_logits
from ilm_jax.sharding.partitioning import MeshConfig, Partitioner


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


def test_a_dimension_falls_back_to_the_axes_that_divide_it():
    partitioner = Partitioner(MeshConfig(2, 2, 2))
    assert partitioner.spec(("vocab", "embed"), (8, 6)) == jax.P(("tensor", "fsdp"), None)
    assert partitioner.spec(("vocab", "embed"), (6, 6)) == jax.P("tensor", "fsdp")
    assert partitioner.spec(("vocab", "embed"), (7, 6)) == jax.P(None, "fsdp")


@pytest.mark.parametrize("words", [640, 634], ids=["split over both axes", "over one"])
def test_a_table_of_tokens_is_read_and_attended_to_where_its_words_are(words):
    partitioner = Partitioner(MeshConfig(2, 2, 2))
    table = Embed(words, 32)
    ids = jnp.arange(8 * 6).reshape(8, 6) % words
    params = nn.unbox(table.init(jax.random.key(0), ids))

    def read(params, ids):
        rows = table.apply(params, ids)
        logits = constrain_logits(table.apply(params, jnp.sin(rows), method="attend"))
        return rows, logits, jax.nn.logsumexp(logits, axis=-1)

    spec = partitioner.sharding(("vocab", "embed"), (words, 32))
    rows = partitioner.batch_sharding(8)
    with partitioner.context():
        step = jax.jit(read, in_shardings=(jax.tree.map(lambda _: spec, params), rows))
        compiled = step.lower(params, ids).compile()
    got = compiled(jax.device_put(params, spec), jax.device_put(ids, rows))
    for one, other in zip(got, jax.jit(read)(params, ids), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    gathers = [c for c in analyse(compiled.as_text()).collectives if c.opcode == "all-gather"]
    if words == 640:
        assert max((math.prod(c.shape) for c in gathers), default=0) < words * 32 / 4
