"""A model and data small enough for a test of the trainer itself."""

import dataclasses
import os
import signal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ilm_jax.checkpoints.checkpoints import CheckpointConfig
from ilm_jax.data.streams.schedule import Schedule
from ilm_jax.objectives.objective import Objective, Sums
from ilm_jax.sharding.partitioning import Partitioner
from ilm_jax.training.optimizers import OptimizerConfig
from ilm_jax.training.trainer import Trainer, TrainerConfig


@dataclasses.dataclass(frozen=True)
class TwoLayers(Objective):
    """y = second(tanh(first(x + table[row]))) with dropout; two batch kinds."""

    width: int = 8
    blow_up_above: float = 1e9
    kinds = ("plain", "scaled")

    def init(self, key):
        keys = jax.random.split(key)
        weight = nn.with_logical_partitioning(nn.initializers.normal(0.3), ("embed", "mlp"))
        return {
            "first": {"kernel": weight(keys[0], (4, self.width))},
            "second": {"kernel": weight(keys[1], (self.width, 2))},
        }

    def loss(self, params, kind, batch, table, key):
        x = batch["x"] + table[batch["row"]]
        hidden = jnp.tanh(x @ params["first"]["kernel"])
        if key is not None:
            hidden = hidden * jax.random.bernoulli(key, 0.9, hidden.shape)
        error = (hidden @ params["second"]["kernel"] - batch["y"]) ** 2
        error = jnp.where(batch["x"][:, :1] > self.blow_up_above, jnp.nan, error)
        scale = 2.0 if kind == "scaled" else 1.0
        return {"loss": Sums(scale * error.sum(), jnp.float32(error.shape[0]))}


class Rows:
    """Example i is a pure function of i."""

    def __init__(self, salt):
        self.salt, self.seen = salt, []

    def rows(self, indices):
        self.seen += [int(i) for i in indices]
        draws = [np.random.default_rng([self.salt, int(i)]).normal(size=6) for i in indices]
        values = np.stack(draws).astype(np.float32)
        return {"x": values[:, :4], "y": values[:, 4:], "row": (indices % 3).astype(np.int32)}


class StopsAt:
    """A source that asks the process to end while a given batch is read."""

    def __init__(self, source, example):
        self.source, self.example = source, example

    def rows(self, indices):
        if self.example in indices:
            os.kill(os.getpid(), signal.SIGTERM)
        return self.source.rows(indices)


def make_trainer(model_dir, *, steps=12, objective=None, mesh=None, **changes):
    """A trainer over two kinds of batches of eight rows."""
    config = TrainerConfig(total_steps=steps, batch_size=8, log_every=2, eval_every=4)
    config = dataclasses.replace(config, **changes.pop("config", {}))
    return Trainer(
        model_dir=str(model_dir),
        objective=objective or TwoLayers(),
        table=np.eye(3, 4, dtype=np.float32),
        sources={"plain": Rows(1), "scaled": Rows(2)},
        eval_sources=changes.pop("eval_sources", {"plain": (Rows(3), 16)}),
        schedule=changes.pop("schedule", Schedule({"plain": 2, "scaled": 1})),
        config=config,
        optimizer=changes.pop("optimizer", OptimizerConfig(learning_rate=0.01)),
        checkpoint=changes.pop("checkpoint", CheckpointConfig(every=4)),
        partitioner=mesh or Partitioner(),
        **changes,
    )
