"""Codebooks by an RQ-VAE, from settings and vectors to the one trainer and back."""

import contextlib
import dataclasses
import hashlib
from typing import Any

import numpy as np
from jaxtyping import Array, Float32, PyTree

from ilm_jax.cf.quantizer import Quantizer
from ilm_jax.checkpoints.checkpoints import CheckpointConfig
from ilm_jax.checks import Count, Number, Positive, Seed, Weight, check
from ilm_jax.data.streams.schedule import Schedule
from ilm_jax.errors import UserError
from ilm_jax.objectives.quantization import TOP, ResidualQuantization
from ilm_jax.sharding.partitioning import Partitioner
from ilm_jax.sharding.processes import writing
from ilm_jax.training.optimizers import OptimizerConfig
from ilm_jax.training.trainer import Trainer, TrainerConfig

Vectors = Float32[np.ndarray, "items dim"]
LOG_EVERY = 500


class Items:
    """Epoch after epoch all items in a new order; example i is a pure function of i."""

    def __init__(self, count: int, seed: int) -> None:
        """Of so many items."""
        self._count, self._seed = count, seed

    def rows(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """{"items"} of the examples."""
        epochs, places = np.divmod(np.asarray(indices, np.int64), self._count)
        items = np.empty(len(places), np.int32)
        for epoch in np.unique(epochs):
            draw = np.random.Generator(np.random.Philox(key=[self._seed, int(epoch)]))
            mine = epochs == epoch
            items[mine] = draw.permutation(self._count)[places[mine]]
        return {"items": items}


@dataclasses.dataclass(frozen=True)
class RQVAE:
    """Codebooks and an encoder that are trained; see `ResidualQuantization`.

    TIGER's sizes are the defaults; its optimizer is Adagrad with a rate of 0.4, ours Adam.

    Attributes:
      levels, width, hidden, commitment, restart_every: see `ResidualQuantization`.
      learning_rate: of Adam; it falls to 0 by a cosine.
      batch_size: items of a step at most.
      steps: of training.
      seed: of parameters and order.
      model_dir: for checkpoints and metrics: training that was killed goes on from there; "": none.
      partitioner: the mesh.
    """

    levels: tuple[Count, ...] = (256, 256, 256)
    width: Count = 32
    hidden: tuple[Count, ...] = (512, 256, 128)
    commitment: Weight = 0.25
    restart_every: Number = 100
    learning_rate: Positive = 1e-3
    batch_size: Count = 1024
    steps: Count = 4000
    seed: Seed = 0
    model_dir: str = ""
    partitioner: Partitioner = Partitioner()

    def __post_init__(self) -> None:
        check(self)

    def record(self) -> dict[str, Any]:
        """See `QuantizerConfig.record`."""
        apart = ("partitioner", "model_dir")
        fields = [field.name for field in dataclasses.fields(self) if field.name not in apart]
        return {name: getattr(self, name) for name in fields}

    def fit(self, vectors: Vectors, reading: Quantizer) -> Quantizer:
        """See `QuantizerConfig.fit`; of a `model_dir` it is the only writer."""
        if max(self.levels) > len(vectors):
            raise UserError(
                f"{len(vectors)} items have vectors, and a level {max(self.levels)} codes: give "
                "smaller RQVAE.levels"
            )
        trainer = self._trainer(vectors)
        with (
            writing(self.model_dir, "semantic_ids") if self.model_dir else contextlib.nullcontext()
        ):
            trainer.fit()
        if trainer.stopped:
            raise UserError(
                f"stopped at step {trainer.step} of {self.steps}: the same command goes on from "
                f"{self.model_dir}"
            )
        return self.quantizer(trainer.params(), reading)

    def quantizer(self, params: PyTree[Array], reading: Quantizer) -> Quantizer:
        """What was trained, as arrays that NumPy reads."""
        found = params[TOP]
        layers = [found[f"encoder_{k}"] for k in range(len(self.hidden) + 1)]
        books = [found[f"codebook_{level:02d}"] for level in range(len(self.levels))]
        return dataclasses.replace(
            reading,
            codebooks=tuple(map(np.asarray, books)),
            layers=tuple((np.asarray(at["kernel"]), np.asarray(at["bias"])) for at in layers),
        )

    def _trainer(self, vectors: Vectors) -> Trainer:
        count, batch = len(vectors), min(self.batch_size, len(vectors))
        batch -= batch % min(batch, self.partitioner.mesh.size)
        fields = ("levels", "width", "hidden", "commitment", "restart_every")
        digest = hashlib.sha256(np.ascontiguousarray(vectors).tobytes()).hexdigest()
        return Trainer(
            model_dir=self.model_dir,
            objective=ResidualQuantization(
                vectors.shape[1], **{name: getattr(self, name) for name in fields}
            ),
            table=vectors,
            sources={"item": Items(count, self.seed)},
            eval_sources={},
            schedule=Schedule({"item": 1}),
            config=TrainerConfig(
                total_steps=self.steps,
                batch_size=batch,
                log_every=min(LOG_EVERY, self.steps),
                seed=self.seed,
            ),
            optimizer=OptimizerConfig(
                learning_rate=self.learning_rate,
                schedule="cosine",
                warmup_steps=min(100, self.steps // 10),
                weight_decay=0.0,
            ),
            # Entries that start anew move the norm: no sign of going astray.
            checkpoint=CheckpointConfig(every=1000 if self.model_dir else 0, outlier=0.0),
            partitioner=self.partitioner,
            made_from={"train": {"item": {"vectors": digest, "seed": self.seed}}},
        )
