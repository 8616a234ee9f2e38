"""One of two processes that measure a model together; prints what it found, as JSON.

usage: python -m tests.evaluation.one_process ADDRESS PROCESS MESH
"""

import json
import sys

import jax


def main(address: str, process: int, sizes: list[int]) -> None:
    """Measures on a mesh of both processes' devices."""
    jax.config.update("jax_disable_most_optimizations", True)  # compiling is nearly all the time
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(address, num_processes=2, process_id=process)
    from ilm_jax.sharding.partitioning import MeshConfig, Partitioner
    from tests.evaluation.small import measure_all

    assert jax.device_count() == 2 and len(jax.local_devices()) == 1
    print(json.dumps(measure_all(Partitioner(MeshConfig(*sizes)))))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3]))
