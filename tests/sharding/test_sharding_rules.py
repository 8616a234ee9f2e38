"""Every default rule splits what it says over the mesh, and slices stand where they were asked."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from ilm_jax.errors import UserError
from ilm_jax.models.t5 import T5Config
from ilm_jax.objectives.language import LanguageModelling
from ilm_jax.runs.sampled import SampledConfig
from ilm_jax.sharding.partitioning import DEFAULT_RULES, MeshConfig, Partitioner
from ilm_jax.sharding.state import describe_variables, initialise
from tests.training import models

T5_LM = LanguageModelling(
    T5Config(vocab_size=64, num_layers=2, embed_dim=32, num_heads=4, mlp_dim=64)
)
FACTORIZATION = SampledConfig(dim=8, hidden=(4,)).objective(300, np.ones(50, np.int64))
OBJECTIVES = {"stage 1": models.ALIGNMENT, "stage 2": models.ILM, "t5": T5_LM}

# What a dimension of a parameter is split over, by its logical name: written down apart from the
# rules. Where the words are split over both axes, "embed" beside them stays whole.
SPLIT = {
    "rows": ("data", "fsdp", "tensor"),
    "embed": ("fsdp",),
    "heads": ("tensor",),
    "mlp": ("tensor",),
    "vocab": ("tensor", "fsdp"),
    **dict.fromkeys(("kv", "length", "layers", "queries", "cf", None), ()),
}


@functools.cache
def cube():
    return Partitioner(MeshConfig(2, 2, 2))


def split_of(axes):
    """Mesh axes of each dimension, by the table above."""
    whole = "vocab" in axes
    return [() if whole and axis == "embed" else SPLIT[axis] for axis in axes]


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_variable_of_the_real_models_lies_as_its_axes_say(name):
    objective, partitioner = OBJECTIVES[name], cube()
    variables = describe_variables(objective)
    params = initialise(objective, variables, list(variables), partitioner, jax.random.key(0))
    assert set(params) == set(variables) and len(params) > 10
    for path, variable in variables.items():
        over = split_of(variable.axes)
        shards = [int(np.prod([partitioner.mesh.shape[axis] for axis in axes])) for axes in over]
        held = tuple(size // parts for size, parts in zip(variable.shape, shards, strict=True))
        leaf = params[path]
        assert len(leaf.addressable_shards) == 8
        assert {shard.data.shape for shard in leaf.addressable_shards} == {held}, path
        spec = leaf.sharding.spec
        got = [(axes,) if isinstance(axes, str) else tuple(axes or ()) for axes in spec]
        assert got + [()] * (len(over) - len(got)) == over, path
    met = {axis for variable in variables.values() for axis in variable.axes}
    assert met >= {"embed", "heads", "mlp", "vocab", "layers"}


def test_tables_of_users_and_items_are_shared_by_their_rows():
    """Whatever their number: they are filled up."""
    variables, partitioner = describe_variables(FACTORIZATION), cube()
    for name, rows in (("user_table", 512), ("item_table", 256)):
        table = variables[f"two_tower/{name}"]
        assert table.shape == (rows, 8)
        assert partitioner.spec(table.axes, table.shape) == jax.P(SPLIT["rows"], None)
    layers = [v for path, v in variables.items() if "layers" in path]
    assert layers and all(set(layer.axes) == {None} for layer in layers)


@pytest.mark.parametrize(
    ("axes", "want"),
    [
        (("batch", "length", "embed"), (("data", "fsdp"), None, None)),
        (("batch", "length", "heads", "kv"), (("data", "fsdp"), None, "tensor", None)),
        (("batch", "length", "mlp"), (("data", "fsdp"), None, "tensor")),
        (("readout", "length", "vocab"), ("data", None, ("tensor", "fsdp"))),
        (("batch", "length", "vocab"), (("data", "fsdp"), None, "tensor")),
        (("heads", "kv", "embed"), ("tensor", None, "fsdp")),
        (("queries", "embed"), (None, "fsdp")),
        (("cf", "mlp"), (None, "tensor")),
        (("layers", "length"), (None, None)),
    ],
)
def test_activations_are_split_as_the_rules_say(axes, want):
    assert cube().spec(axes, (8,) * len(axes)) == jax.P(*want)


def test_every_logical_name_of_the_models_has_a_rule_of_its_own():
    """A misspelt name would stay whole in silence."""
    named = {name for name, _ in DEFAULT_RULES}
    used = {
        axis
        for objective in (*OBJECTIVES.values(), FACTORIZATION)
        for variable in describe_variables(objective).values()
        for axis in variable.axes
    }
    assert used - {None} <= named
    assert named == (set(SPLIT) - {None}) | {"batch", "readout"}


@dataclasses.dataclass(frozen=True)
class Chip:
    """What a mesh asks of a device: which slice it is of."""

    id: int
    slice_index: int
    process_index: int = 0
    platform: str = "chip"
    device_kind: str = "chip"


def slices_of(config, slices=2, chips=8):
    """[data, fsdp, tensor]: the slice of each place of the mesh."""
    devices = tuple(Chip(i, i * slices // chips) for i in range(chips))
    mesh = Partitioner(config, devices=devices).mesh
    assert mesh.axis_names == ("data", "fsdp", "tensor")
    assert sorted(d.id for d in mesh.devices.ravel()) == list(range(chips))
    return np.vectorize(lambda device: device.slice_index)(mesh.devices)


def test_slices_lie_along_the_axis_that_dcn_sizes_name():
    inside = {"data": 1, "fsdp": 2, "tensor": 2}
    first, last = np.zeros((1, 2, 2), int), np.ones((1, 2, 2), int)
    by_data = slices_of(MeshConfig(**inside, dcn_data=2))
    np.testing.assert_array_equal(by_data, np.concatenate([first, last], axis=0))
    by_fsdp = slices_of(MeshConfig(**inside, dcn_fsdp=2))
    np.testing.assert_array_equal(by_fsdp, np.concatenate([first, last], axis=1))
    by_tensor = slices_of(MeshConfig(**inside, dcn_tensor=2))
    np.testing.assert_array_equal(by_tensor, np.concatenate([first, last], axis=2))


def test_minus_one_takes_what_the_slices_leave():
    assert MeshConfig(-1, 2, 1, dcn_data=2).resolve(16) == ((4, 2, 1), (2, 1, 1))
    assert MeshConfig(1, -1, 2, dcn_fsdp=2).resolve(16) == ((1, 4, 2), (1, 2, 1))
    assert MeshConfig(2, 2, -1, dcn_tensor=4).resolve(32) == ((2, 2, 2), (1, 1, 4))
    assert slices_of(MeshConfig(-1, dcn_data=4), slices=4).tolist() == [
        [[n]] for n in (0, 0, 1, 1, 2, 2, 3, 3)
    ]


@pytest.mark.parametrize("sizes", [{"dcn_data": 0}, {"data": 8, "dcn_fsdp": 2}])
def test_slices_that_do_not_fit_the_devices_are_refused(sizes):
    with pytest.raises(UserError, match="MeshConfig"):
        MeshConfig(**sizes).resolve(8)


def test_more_slices_than_there_are_is_refused():
    with pytest.raises(UserError, match=r"dcn=\(2, 1, 1\).*slices"):
        _ = Partitioner(MeshConfig(dcn_data=2)).mesh
