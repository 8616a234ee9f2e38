"""A run as `ilm train` makes it, whose steps take large temporaries; prints what they cost.

    python -m tests.training.large_steps FOLDER STEPS MEBIBYTES AVAILABLE

The last line is the MiB by which the process's peak lay above its memory before the run, on a
machine with so many MiB AVAILABLE.
"""

import dataclasses
import sys

from ilm_jax.training import host_memory
from ilm_jax.training.host_memory import keep_freed_memory, peak


def main(folder: str, steps: int, mebibytes: int, available: int) -> None:
    host_memory.available = lambda: available << 20
    keep_freed_memory()  # before JAX starts its threads

    import jax
    import jax.numpy as jnp

    from ilm_jax.objectives.objective import Sums
    from tests.training.small import TwoLayers, make_trainer

    @dataclasses.dataclass(frozen=True)
    class Large(TwoLayers):
        """With one temporary of so many MiB that is turned round, hence never fused away."""

        def loss(self, params, kind, batch, table, key):
            found = super().loss(params, kind, batch, table, key)["loss"]
            start = jax.lax.stop_gradient(params["first"]["kernel"].sum())
            ramp = start + jnp.arange(mebibytes << 17, dtype=jnp.float32)
            turned = jax.lax.fori_loop(0, 1, lambda _, x: x[::-1] * 1.0001, ramp)
            return {"loss": Sums(found.total + 1e-9 * turned.max(), found.weight)}

    trainer = make_trainer(
        folder, steps=steps, objective=Large(), config={"log_every": 50, "eval_every": 0}
    )
    trainer.eval_sources = {}
    before = peak()
    trainer.fit()
    print((peak() - before) >> 20)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
