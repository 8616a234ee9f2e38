"""Programs here are compiled once and run once on a few numbers: compiling is all their time."""

import jax
import pytest


@pytest.fixture(scope="package", autouse=True)
def compile_quickly():
    """Leaves out XLA's expensive passes for the tests of this folder."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
