"""Pods by name: what is understood, and what is said where it is not."""

import pytest

from ilm_jax.compilation import topology
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
    with pytest.raises(UserError, match=r"pip install 'jax\[tpu\]'"):
        Topology.parse("v5e:4x4").devices()


@pytest.mark.parametrize(
    ("asked", "installed", "wanted"),
    [
        ("libtpu==0.0.42.*; extra == 'tpu'", "0.0.42.1", None),
        ("libtpu==0.0.42; extra == 'tpu'", "0.0.42", None),
        ("libtpu==0.0.42.*; extra == 'tpu'", "0.0.52", "libtpu==0.0.42.*"),
        ("libtpu==0.0.4.*; extra == 'tpu'", "0.0.42", "libtpu==0.0.4.*"),
        ("libtpu>=0.0.1; extra == 'tpu'", "0.0.52", None),
        ("libtpu==0.0.42.*; extra == 'tpu'", None, None),
    ],
)
def test_a_compiler_of_another_version_is_known(asked, installed, wanted, monkeypatch):
    def version(name):
        if name == "libtpu" and installed is None:
            raise topology.importlib.metadata.PackageNotFoundError(name)
        return {"jax": "0.10.2", "libtpu": installed}[name]

    monkeypatch.setattr(topology.importlib.metadata, "version", version)
    monkeypatch.setattr(topology.importlib.metadata, "requires", lambda name: ["numpy", asked])
    found = topology.mismatch()
    wrong = f"jax 0.10.2 goes with {wanted}, not {installed}", f"pip install '{wanted}'"
    assert found == (wanted and wrong)
