"""Processes that share a mesh fit what one device fits, and each holds the result."""

import dataclasses
import os
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest

from ilm_jax.cf import ials
from ilm_jax.cf.interactions import Interactions
from ilm_jax.cf.negatives import SamplerConfig
from ilm_jax.runs import sampled
from ilm_jax.sharding.partitioning import Partitioner
from tests.cf.test_ials import CONFIG, ITEMS, USERS, pairs

SAMPLED = sampled.SampledConfig(
    dim=4, epochs=2, batch_size=64, learning_rate=0.01, sampler=SamplerConfig("uniform", 8)
)


@pytest.mark.parametrize("gather", [pytest.param("whole", marks=pytest.mark.slow), "rows"])
def test_two_processes_fit_what_one_device_fits(tmp_path, gather):
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{found.getsockname()[1]}"
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
    }
    files = [tmp_path / f"{process}.npz" for process in range(2)]
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.cf.one_process", address, str(i), gather, str(file)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for i, file in enumerate(files)
    ]
    try:
        outputs = [process.communicate(timeout=120)[0] for process in started]
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [0, 0], outputs
    one = ials.fit(*pairs(), USERS, ITEMS, dataclasses.replace(CONFIG, epochs=2))
    folded = ials.fold_in([np.array([1, 2])], one.item, CONFIG)
    for file in files:
        theirs = np.load(file, allow_pickle=False)
        np.testing.assert_allclose(theirs["user"], one.user, atol=1e-5)
        np.testing.assert_allclose(theirs["item"], one.item, atol=1e-5)
        np.testing.assert_allclose(theirs["folded"], folded, atol=1e-5)
    if gather == "whole":
        alone = Partitioner(devices=(jax.devices()[0],))
        trained = sampled.fit(Interactions.from_pairs(*pairs(), USERS, ITEMS), SAMPLED, alone)
        for file in files:
            theirs = np.load(file, allow_pickle=False)
            np.testing.assert_allclose(theirs["trained_user"], trained.user, atol=1e-4)
            np.testing.assert_allclose(theirs["trained_item"], trained.item, atol=1e-4)
