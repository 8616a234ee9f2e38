"""Two processes load one published folder: each reads what its own devices hold, and no more."""

import json
import os
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest

from ilm_jax.checkpoints.checkpoints import InitFrom
from ilm_jax.checkpoints.fingerprints import fingerprint
from ilm_jax.checkpoints.loading import load_sources
from ilm_jax.checkpoints.published.sources import open_source
from ilm_jax.objectives.language import LanguageModelling
from ilm_jax.sharding.partitioning import MeshConfig, Partitioner
from ilm_jax.sharding.state import describe_variables
from tests.checkpoints.published import LLAMA, publish, weights


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def both(folder, mesh):
    """What the two processes printed."""
    address = f"127.0.0.1:{free_port()}"
    environment = {**os.environ, "XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"}
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.checkpoints.one_process", address, str(i), folder, mesh],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(2)
    ]
    try:
        outputs = [process.communicate(timeout=120) for process in started]
    finally:
        for process in started:
            process.kill()
    assert [p.returncode for p in started] == [0, 0], outputs[0][1] + outputs[1][1]
    return [json.loads(out.splitlines()[-1]) for out, _ in outputs]


@pytest.mark.slow
@pytest.mark.parametrize("mesh", ["split", "columns"])
def test_each_process_reads_what_its_devices_hold(tmp_path, mesh):
    publish(tmp_path)
    results = both(str(tmp_path), mesh)
    for result in results:
        assert result["read"] == result["held"] < 0.6 * result["total"]
    objective = LanguageModelling(open_source(str(tmp_path)).config)
    one = Partitioner(MeshConfig(1), devices=tuple(jax.devices()[:1]))
    params, _ = load_sources(
        objective,
        describe_variables(objective),
        [InitFrom(str(tmp_path))],
        (),
        one,
        jax.random.key(0),
    )
    # Together they hold the whole, and say so with one fingerprint.
    assert {result["fingerprint"] for result in results} == {fingerprint(params)}
    theirs = weights(LLAMA)
    names = [f"model.layers.{i}.mlp.up_proj.weight" for i in range(3)]
    whole = sum(theirs[name].astype(np.float64).sum() for name in names)
    assert sum(result["sum"] for result in results) == pytest.approx(whole, rel=1e-9)
