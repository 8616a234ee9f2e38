"""Pods by name: what is understood, and what is said where it is not."""

import pytest

from ilm_jax.compilation.topology import Topology
from ilm_jax.errors import UserError


@pytest.mark.parametrize(
    ("name", "shown", "chips", "cloud"),
    [
        ("v5e:16x16", "v5e:16x16", 256, "v5litepod-256"),
        ("v5litepod-16", "v5e:4x4", 16, "v5litepod-16"),
        ("v5p-128", "v5p:4x4x4", 64, "v5p-128"),
        ("v6e-64", "v6e:8x8", 64, "v6e-64"),
        ("v5e:8x16*2", "v5e:8x16*2", 256, "v5litepod-128"),
        ("v4-8", "v4:2x2x1", 4, "v4-8"),
    ],
)
def test_names_are_read(name, shown, chips, cloud):
    topology = Topology.parse(name)
    assert (str(topology), topology.chips, topology.accelerator_type) == (shown, chips, cloud)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("v5e", "is not written like v5e:4x4"),
        ("v5e-100", "v5e comes as v5e-1, v5e-4"),
        ("v9:4x4", "TPU 'v9' is not one of v4, v5e"),
        ("v5e:0x4", "has no chips"),
        ("v5e:4x4x4", "a slice of v5e is one of 1x1, 2x2"),
        ("v6e:16x32", "a slice of v6e is one of"),
        ("v5p:8x8", "v5p is a cube, such as v5p:2x2x4"),
        ("v5e:4x4; rm -rf /", "is not written like"),
    ],
)
def test_other_names_are_refused_with_names_that_would_do(name, words):
    with pytest.raises(UserError, match=words):
        Topology.parse(name)


def test_a_shape_that_libtpu_does_not_know_is_refused():
    pytest.importorskip("libtpu")
    with pytest.raises(UserError, match="libtpu knows no topology 'v5p:17x3x5'"):
        Topology.parse("v5p:17x3x5").devices()


def test_without_the_compiler_it_says_how_to_get_it(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "libtpu", None)
    with pytest.raises(UserError, match="pip install libtpu"):
        Topology.parse("v5e:4x4").devices()
