"""One process of a run of several, as launch/local_pod.py starts them: trains a small model.

usage: python -m tests.training.one_of_several MODEL_DIR STEPS MESH [SECONDS_PER_BATCH]

MESH is "2,2,2" (data, fsdp, tensor). Writes the numbers of the examples that it read, a line per
batch, to MODEL_DIR/seen-<processes>-<process>.txt.
"""

import pathlib
import sys
import time

import jax


class Rows:
    """Sixteen rows for each seed of the tests' prompt batches; row i is always the same."""

    def __init__(self, log, seconds):
        self.log, self.seconds = log, seconds

    def rows(self, indices):
        import numpy as np

        from tests.training import models

        time.sleep(self.seconds)
        if self.log:
            with self.log.open("a") as stream:
                stream.write(" ".join(map(str, indices)) + "\n")
        batches = {i // models.ROWS: None for i in indices}
        made = {seed: models.prompt_batch(int(seed)) for seed in batches}
        rows = [{k: v[i % models.ROWS] for k, v in made[i // models.ROWS].items()} for i in indices]
        batch = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
        return batch | {n: batch[n].astype(np.float32) for n in ("loss_weights", "content_weights")}


def trainer(model_dir, steps, sizes, seconds=0.0, devices=None):
    """The trainer of these tests; equal in every process."""
    from ilm_jax.checkpoints.checkpoints import CheckpointConfig
    from ilm_jax.data.streams.schedule import Schedule
    from ilm_jax.sharding.partitioning import MeshConfig, Partitioner
    from ilm_jax.training.optimizers import OptimizerConfig
    from ilm_jax.training.trainer import Trainer, TrainerConfig
    from tests.training import models

    folder = pathlib.Path(model_dir)
    folder.mkdir(parents=True, exist_ok=True)
    name = f"seen-{jax.process_count()}-{jax.process_index()}.txt"
    return Trainer(
        model_dir=str(folder),
        objective=models.ILM,
        table=models.table(),
        sources={"prompt": Rows(folder / name, seconds)},
        eval_sources={"prompt": (Rows(None, 0), 16)},
        schedule=Schedule({"prompt": 1}),
        config=TrainerConfig(steps, models.ROWS, trainable=("^qformer/", "^adaptor/"), log_every=1),
        optimizer=OptimizerConfig("sgd", 0.05, "constant"),
        checkpoint=CheckpointConfig(every=3),
        partitioner=Partitioner(MeshConfig(*sizes), devices=devices),
    )


def main(model_dir, steps, mesh, seconds="0"):
    """Joins the others and trains."""
    from ilm_jax.sharding.processes import ProcessConfig

    jax.config.update("jax_disable_most_optimizations", True)
    ProcessConfig().start(False)
    trainer(model_dir, int(steps), [int(n) for n in mesh.split(",")], float(seconds)).fit()


if __name__ == "__main__":
    main(*sys.argv[1:])
