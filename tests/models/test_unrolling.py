"""Which scans over layers have every layer in their body, and that it changes no number."""

import flax.linen as nn
import jax
import numpy as np
import pytest

from ilm_jax.models import unrolling
from tests.models.test_decoder import ONES, POSITIONS, TOKENS, make


def unrolled(function, *args):
    """How many repetitions stand in the body of each scan over layers."""
    equations = jax.make_jaxpr(function)(*args).jaxpr.eqns
    return [eqn.params["unroll"] for eqn in equations if eqn.primitive.name == "scan"]


def states(model):
    return lambda params: model.apply(
        {"params": params}, TOKENS, method=lambda m, tokens: m(m.embed(tokens), POSITIONS, ONES)
    )


@pytest.mark.parametrize(
    ("changes", "platform", "want"),
    [
        ({}, "cpu", 2),
        ({}, "tpu", 1),
        ({"remat": "full"}, "cpu", 1),
        ({"num_layers": unrolling.FEW + 1}, "cpu", 1),
    ],
    ids=["few", "tpu", "remat", "many"],
)
def test_few_layers_on_a_cpu_leave_no_loop(monkeypatch, changes, platform, want):
    model, params = make(**{"num_layers": 2, "scan_layers": True, **changes})
    monkeypatch.setattr(unrolling, "platform", lambda: platform)
    assert unrolled(states(model), params) == [want]


def test_what_draws_parameters_keeps_its_loop():
    class Drawn(nn.Module):
        def __call__(self):
            return unrolling.unroll(self, 2, "none")

    assert Drawn().init_with_output(jax.random.key(0))[0] == 1
    assert Drawn().apply({}) == 2


def test_the_numbers_are_those_of_the_loop(monkeypatch):
    model, params = make(num_layers=2, scan_layers=True)
    whole = states(model)(params)
    monkeypatch.setattr(unrolling, "FEW", 0)
    np.testing.assert_allclose(states(model)(params), whole, rtol=1e-5, atol=1e-6)
