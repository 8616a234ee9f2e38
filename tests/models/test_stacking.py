"""Stacked layers and one entry per layer are two views of the same tree."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ilm_jax.checkpoints.layout import disk_names, is_stacked, to_memory
from ilm_jax.errors import UserError
from ilm_jax.models.stacking import unstack_layers
from ilm_jax.sharding.partitioning import Partitioner

PERIODS = {"qformer": 2, "lm": 1}


@pytest.fixture
def stacked():
    rng = np.random.default_rng(0)
    return {
        "qformer/queries/embedding": rng.normal(size=(3, 4)),
        "qformer/layers/sub_0/attention/query/kernel": rng.normal(size=(2, 4, 4)),
        "qformer/layers/sub_0/cross_attention/query/kernel": rng.normal(size=(2, 4, 4)),
        "qformer/layers/sub_1/attention/query/kernel": rng.normal(size=(2, 4, 4)),
        "lm/layers/sub_0/mlp/up/kernel": rng.normal(size=(12, 4, 5)),
    }


def test_layers_are_numbered_across_periods(stacked):
    apart = unstack_layers(stacked)
    assert len([path for path in apart if path.startswith("lm/layer_")]) == 12
    key = "qformer/layer_{:02d}/attention/query/kernel"
    for i in range(4):
        source = stacked[f"qformer/layers/sub_{i % 2}/attention/query/kernel"][i // 2]
        np.testing.assert_array_equal(apart[key.format(i)], source)
    crossing = {path.split("/")[1] for path in apart if "cross_attention" in path}
    assert crossing == {"layer_00", "layer_02"}


def test_there_and_back_is_the_identity(stacked):
    stacked = {path: leaf.astype(np.float32) for path, leaf in stacked.items()}
    whole = Partitioner().replicated
    like = {p: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole) for p, x in stacked.items()}
    back = to_memory(unstack_layers(stacked), like, disk_names(stacked))
    assert set(back) == set(stacked)
    for path, leaf in stacked.items():
        np.testing.assert_array_equal(back[path], leaf)


def test_layers_behind_the_scan_keep_their_name_and_number():
    rng = np.random.default_rng(0)
    stacked = {f"lm/layers/sub_{j}/mlp/up/kernel": rng.normal(size=(2, 4, 5)) for j in range(3)}
    stacked["lm/layer_06/mlp/up/kernel"] = rng.normal(size=(4, 5))
    stacked = {path: leaf.astype(np.float32) for path, leaf in stacked.items()}
    apart = unstack_layers(stacked)
    assert set(apart) == {f"lm/layer_{i:02d}/mlp/up/kernel" for i in range(7)}
    names = disk_names(stacked)
    middle = ["lm/layer_01/mlp/up/kernel", "lm/layer_04/mlp/up/kernel"]
    assert names["lm/layers/sub_1/mlp/up/kernel"] == middle
    assert not is_stacked("lm/layer_06/mlp/up/kernel", names)
    whole = Partitioner().replicated
    like = {p: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole) for p, x in stacked.items()}
    back = to_memory(apart, like, names)
    for path, leaf in stacked.items():
        np.testing.assert_array_equal(back[path], leaf)


def test_what_comes_before_the_model_does_not_matter(stacked):
    slots = {f"opt_state/0/mu/{path}": jnp.asarray(leaf) for path, leaf in stacked.items()}
    apart = unstack_layers(slots)
    assert "opt_state/0/mu/lm/layer_11/mlp/up/kernel" in apart


def test_a_part_of_a_tree_keeps_its_numbers_when_the_period_is_told(stacked):
    crossing = {path: leaf for path, leaf in stacked.items() if "cross_attention" in path}
    apart = unstack_layers(crossing, PERIODS)
    assert {path.split("/")[1] for path in apart} == {"layer_00", "layer_02"}
    with pytest.raises(UserError, match="no period"):
        unstack_layers(crossing, {"lm": 1})


def test_shapes_alone_convert_too(stacked):
    shapes = {path: jax.ShapeDtypeStruct(x.shape, x.dtype) for path, x in stacked.items()}
    apart = unstack_layers(shapes)
    assert apart["lm/layer_03/mlp/up/kernel"].shape == (4, 5)
    assert set(apart) == set(unstack_layers(stacked))
