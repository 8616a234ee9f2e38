"""Our side of bench_steps: the product's own step on full rows, its FLOPs and its temporaries.

python -m tests.benchmarks.steps_ours SHAPE    # as bench_steps starts it, SHAPE being JSON
"""

import json
import sys
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ilm_jax.models.counting import count_dot_flops
from ilm_jax.models.qformer import QFormerConfig
from ilm_jax.models.readers import QFormerReader
from ilm_jax.models.t5 import T5Config
from ilm_jax.objectives.alignment import Alignment
from ilm_jax.objectives.language import LanguageModelling
from ilm_jax.objectives.objective import Objective
from ilm_jax.sharding.freezing import split_by_patterns
from ilm_jax.sharding.partitioning import Partitioner
from ilm_jax.sharding.state import describe_variables, initialise, make_state
from ilm_jax.training import fitting
from ilm_jax.training.host_memory import keep_freed_memory
from ilm_jax.training.optimizers import OptimizerConfig
from ilm_jax.training.step import gradient, make_train_step
from tests.benchmarks import bench_real_lm
from tests.benchmarks.rows import prompt_rows
from tests.benchmarks.worker import serve

Batch = dict[str, np.ndarray]
ENTITIES = 4096  # rows of the table


def stage_one(shape: dict[str, Any]) -> tuple[Objective, str, Batch]:
    """Items with their texts: ITC, ITM and ITG."""
    rng, rows = np.random.default_rng(0), shape["rows"]
    config = QFormerConfig(
        shape["cf"],
        shape["vocab"],
        num_layers=shape["layers"],
        num_queries=shape["queries"],
        embed_dim=shape["width"],
        num_heads=shape["heads"],
        mlp_dim=4 * shape["width"],
        max_text_length=shape["length"],
        dropout=shape["dropout"],
    )
    text = rng.integers(6, shape["vocab"], (rows, shape["length"])).astype(np.int32)
    entities = rng.permutation(ENTITIES)[:rows].astype(np.int32)
    return Alignment(config), "item_text", {"entities": entities, "text": text}


def t5(shape: dict[str, Any]) -> tuple[Objective, str, Batch]:
    """Full rows of inputs, which begin with soft tokens where it is frozen, and targets."""
    rows, slots = shape["rows"], shape["slots"]
    inputs, targets = shape["length"], shape["targets"]
    lm = T5Config(
        shape["vocab"],
        shape["layers"],
        shape["width"],
        shape["heads"],
        4 * shape["width"],
        activation="relu",
        gated=False,
        tie_embeddings=True,
    )
    reader = None
    if slots:
        reader = QFormerReader(
            QFormerConfig(shape["cf"], 64, 2, 8, 64, 4, 128, dropout=shape["dropout"])
        )
    told = slice(inputs - 1, inputs + targets - 1)
    batch = prompt_rows(
        rows,
        inputs + targets,
        told,
        shape["vocab"],
        entities=ENTITIES,
        slots=slots // 8,
        queries=8,
    )
    batch["source"] = np.tile(np.arange(inputs + 1, dtype=np.int32), (rows, 1))
    return LanguageModelling(lm, reader, target_length=targets), "prompt", batch


def main(words: Sequence[str]) -> None:
    """Builds what the shape says and takes steps."""
    shape = json.loads(words[0])
    if shape["model"] == "decoder":
        step, temporaries = bench_real_lm.build(shape)
        tokens = shape["rows"] * shape["length"]
        serve(step, temporaries, {"flops": 4 * bench_real_lm.weights(shape) * tokens})
        return
    keep_freed_memory()
    objective, kind, batch = {"stage_one": stage_one, "t5": t5}[shape["model"]](shape)
    partitioner = Partitioner(devices=tuple(jax.devices()[:1]))
    variables = describe_variables(objective)
    params = initialise(objective, variables, list(variables), partitioner, jax.random.key(0))
    trainable, frozen = split_by_patterns(params, tuple(shape["trains"]))
    table, key = jnp.ones((ENTITIES, shape["cf"])), jax.random.key(1)
    traced = jax.make_jaxpr(lambda t, f, b: gradient(objective, kind, t, f, b, table, key))(
        trainable, frozen, batch
    )
    optimizer = OptimizerConfig(learning_rate=1e-4).build(100)
    held = [make_state(trainable, frozen, optimizer)]
    del params, trainable, frozen
    step: Any = make_train_step(objective, kind, optimizer, partitioner, held[0], shape["rows"])

    def call() -> Any:
        held[0], report = step(held[0], batch, table, key)
        return report

    temporaries = fitting.temporaries(step.lower(held[0], batch, table, key).compile())
    serve(call, temporaries, {"flops": count_dot_flops(traced), "temporaries": temporaries})


if __name__ == "__main__":
    main(sys.argv[1:])
