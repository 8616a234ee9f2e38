"""One of two processes that load a published folder together: prints what it read, as JSON.

usage: python -m tests.checkpoints.one_process ADDRESS PROCESS FOLDER MESH
"""

import json
import sys
from typing import Any

import jax


def main(address: str, process: int, folder: str, mesh: str) -> None:
    """Loads the folder's decoder on a mesh of both processes' devices."""
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(address, num_processes=2, process_id=process)
    import numpy as np

    from ilm_jax.checkpoints import fingerprints, loading
    from ilm_jax.checkpoints.checkpoints import InitFrom
    from ilm_jax.checkpoints.published.sources import Opened, open_source
    from ilm_jax.objectives.language import LanguageModelling
    from ilm_jax.sharding.partitioning import MeshConfig, Partitioner
    from ilm_jax.sharding.state import describe_variables

    opened: list[Opened] = []

    def remembered(*args: Any, **kwargs: Any) -> Opened:
        opened.append(open_source(*args, **kwargs))
        return opened[-1]

    loading.open_source = remembered
    objective = LanguageModelling(open_source(folder).config)
    config = {"split": MeshConfig(1, 2, 1), "columns": MeshConfig(1, 1, 2)}[mesh]
    params, _ = loading.load_sources(
        objective,
        describe_variables(objective),
        [InitFrom(folder)],
        (),
        Partitioner(config),
        jax.random.key(0),
    )
    kernel = params["lm/layers/sub_0/mlp/up/kernel"].addressable_shards[0]
    print(
        json.dumps(
            {
                "read": opened[0].source.bytes_read,
                "held": sum(s.data.nbytes for x in params.values() for s in x.addressable_shards),
                "total": sum(x.nbytes for x in params.values()),
                "fingerprint": fingerprints.fingerprint(params),
                "sum": float(np.asarray(kernel.data, np.float64).sum()),
            }
        )
    )


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4])
