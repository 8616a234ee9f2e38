"""One of two processes that fit iALS, and sampled losses, together: saves what it got.

usage: python -m tests.cf.one_process ADDRESS PROCESS GATHER FILE
"""

import sys

import jax


def main(address: str, process: int, gather: str, file: str) -> None:
    """Fits on a mesh of both processes' devices, then folds users in alone."""
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(address, num_processes=2, process_id=process)
    import numpy as np
    from jax.sharding import Mesh

    from ilm_jax.cf import ials
    from ilm_jax.cf.interactions import Interactions
    from ilm_jax.runs import sampled
    from tests.cf.test_ials import CONFIG, ITEMS, USERS, pairs
    from tests.cf.test_two_processes import SAMPLED

    users, items = pairs()
    config = ials.IALSConfig(**{**vars(CONFIG), "gather": gather, "epochs": 2})
    factors = ials.fit(users, items, USERS, ITEMS, config, mesh=Mesh(jax.devices(), "data"))
    folded = ials.fold_in([np.array([1, 2])], factors.item, config)
    found = {"user": factors.user, "item": factors.item, "folded": folded}
    if gather == "whole":  # which is iALS's alone
        trained = sampled.fit(Interactions.from_pairs(users, items, USERS, ITEMS), SAMPLED)
        found |= {"trained_user": trained.user, "trained_item": trained.item}
    np.savez(file, **found)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4])
