"""A training step through a frozen language model of real size, beside transformers in PyTorch.

The shape is SmolLM2-135M's (30 layers of width 576, 9 heads on 3 key heads, MLP 1,536, 49,152
words, tied), with random weights; rows are full: 8 soft tokens, a short prompt, 406 of 430
positions are targets. Ours is the product's step (Q-Former, adaptor, frozen decoder, AdamW); the
peer trains a linear layer through transformers' Llama, weights frozen, and projects to the
vocabulary at targets alone. Each has a process of its own, so that peak memory is its own; steps
are taken in turns. The peer's allocator is told to keep its memory, which is its best.

The floor is 4 FLOPs a weight and token (forward, and the gradient of the activations) at the rate
of this machine's matrix product; 2 x 6 x layers x width x length / 2 a token of causal attention
come on top of it, and are printed apart.

    python -m tests.benchmarks.bench_real_lm [--rows 2] [--length 430] [--steps 5]
        [--dtype float32] [--remat none] [--peer_python PYTHON | --no_peer] [--train 100]

needs torch and transformers (of another environment: --peer_python). `--train N` takes N steps as
the training loop does, without waiting for each, and prints the peak memory of all of them. The
last line is JSON; the exit code says whether ours took at most 1 / 1.2 of the peer's time and at
most 1.5 times the floor.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable
from typing import Any

from tests.benchmarks import real_lm_peer
from tests.benchmarks.rows import prompt_rows
from tests.benchmarks.worker import KEEP, Worker, gib, product_rate, serve

SHAPE = {
    "vocab": 49152,
    "width": 576,
    "mlp": 1536,
    "layers": 30,
    "heads": 9,
    "kv_heads": 3,
    "slots": 8,
    "cf": 32,
}
PROMPT = 24  # positions before the targets, soft tokens included
RATIO, OF_FLOOR = 1.2, 1.5


def build(shape: dict[str, Any]) -> tuple[Callable[[], Any], int]:
    """(our step: dispatches one update, returns what tells that it is done; its temporaries)."""
    import jax
    import jax.numpy as jnp

    from ilm_jax.models.decoder import DecoderConfig
    from ilm_jax.models.qformer import QFormerConfig
    from ilm_jax.models.readers import QFormerReader
    from ilm_jax.objectives.language import LanguageModelling
    from ilm_jax.sharding.freezing import split_by_patterns
    from ilm_jax.sharding.partitioning import Partitioner
    from ilm_jax.sharding.state import describe_variables, initialise, make_state
    from ilm_jax.training import fitting
    from ilm_jax.training.host_memory import keep_freed_memory
    from ilm_jax.training.optimizers import OptimizerConfig
    from ilm_jax.training.step import make_train_step

    keep_freed_memory()
    lm = DecoderConfig(
        shape["vocab"],
        num_layers=shape["layers"],
        embed_dim=shape["width"],
        num_heads=shape["heads"],
        num_kv_heads=shape["kv_heads"],
        mlp_dim=shape["mlp"],
        dtype=shape["dtype"],
        remat=shape["remat"],
    )
    qformer = QFormerConfig(
        shape["cf"],
        64,
        num_layers=2,
        num_queries=shape["slots"],
        embed_dim=64,
        num_heads=4,
        mlp_dim=128,
        dropout=0.0,
    )
    objective = LanguageModelling(lm, QFormerReader(qformer), target_length=shape["targets"])
    partitioner = Partitioner(devices=tuple(jax.devices()[:1]))
    variables = describe_variables(objective)
    params = initialise(objective, variables, list(variables), partitioner, jax.random.key(0))
    trainable, frozen = split_by_patterns(params, ("^qformer/", "^adaptor/"))
    optimizer = OptimizerConfig(learning_rate=1e-4).build(100)
    state = make_state(trainable, frozen, optimizer)
    step: Any = make_train_step(objective, "prompt", optimizer, partitioner, state, shape["rows"])
    table, key = jnp.ones((40, shape["cf"])), jax.random.key(1)
    told = slice(shape["length"] - shape["targets"], None)
    sizes = shape["rows"], shape["length"], told, shape["vocab"]
    rows = prompt_rows(*sizes, entities=40, slots=1, queries=shape["slots"])
    held = [state]

    def call() -> Any:
        held[0], report = step(held[0], rows, table, key)
        return report

    return call, fitting.temporaries(step.lower(state, rows, table, key).compile())


def weights(shape: dict[str, Any]) -> int:
    """Of the language model, each in one product a token."""
    kv = shape["kv_heads"] * shape["width"] // shape["heads"]
    layer = shape["width"] * (2 * shape["width"] + 2 * kv + 3 * shape["mlp"])
    return shape["layers"] * layer + shape["vocab"] * shape["width"]


def parse() -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=2)
    parser.add_argument("--length", type=int, default=430)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--remat", default="none")
    parser.add_argument("--peer_python", default=sys.executable)
    parser.add_argument("--no_peer", action="store_true")
    parser.add_argument("--train", type=int, default=0)
    parser.add_argument("--worker")
    return parser.parse_args()


def main() -> int:
    """Prints both sides' seconds and memory; the last line is JSON."""
    flags = parse()
    if flags.worker:
        serve(*build(json.loads(flags.worker)))
        return 0
    shape = SHAPE | {
        "rows": flags.rows,
        "length": flags.length,
        "targets": flags.length - PROMPT,
        "dtype": flags.dtype,
        "remat": flags.remat,
        "threads": len(os.sched_getaffinity(0)),
    }
    rate = product_rate()
    own = [sys.executable, "-m", "tests.benchmarks.bench_real_lm", "--worker", json.dumps(shape)]
    sides = {"ours": Worker(own, {"JAX_PLATFORMS": "cpu"})}
    if not flags.no_peer:
        command = [flags.peer_python, real_lm_peer.__file__, json.dumps(shape)]
        sides["peer"] = Worker(command, KEEP)
    for _ in range(flags.steps + 1):
        for name, side in sides.items():
            print(f"{name}: {side.step():.2f} s", file=sys.stderr, flush=True)
    if flags.train:
        seconds = sides["ours"].step(flags.train)
        print(f"{flags.train} steps as in training: {seconds:.1f} s, {gib(sides['ours'].peak)}")
        sides["ours"].seconds.pop()
    for side in sides.values():
        side.close()
    return tell(shape, rate, sides)


def tell(shape: dict[str, Any], rate: float, sides: dict[str, Worker]) -> int:
    """Prints what was measured; returns 0 if the bounds held."""
    tokens = shape["rows"] * shape["length"]
    floor = 4 * weights(shape) * tokens / rate
    attention = 6 * shape["layers"] * shape["width"] * shape["length"] * tokens / rate
    print(
        f"{shape['rows']} x {shape['length']}, {shape['dtype']}, remat {shape['remat']}: floor "
        f"{floor:.2f} s at {rate / 1e9:.0f} GFLOP/s (causal attention: {attention:.2f} s more)"
    )
    for name, side in sides.items():
        print(
            f"{name} ({side.facts['versions']}): {side.median:.2f} s a step "
            f"({side.core_seconds:.2f} core seconds), {tokens / side.median:.0f} real tokens/s, "
            f"{side.median / floor:.2f} times the floor, {gib(side.peak)}, "
            f"first step {side.seconds[0]:.1f} s"
        )
    ours, peer = sides["ours"].median, sides.get("peer")
    record = {
        "benchmark": f"real_lm_{shape['rows']}x{shape['length']}_{shape['dtype']}",
        "peer": peer.facts["versions"] if peer else None,
        "ours_s": ours,
        "peer_s": peer.median if peer else None,
        "ratio": peer.median / ours if peer else None,
        "ours_core_s": sides["ours"].core_seconds,
        "peer_core_s": peer.core_seconds if peer else None,
        "floor_s": floor,
        "ours_peak_bytes": sides["ours"].peak,
        "peer_peak_bytes": peer.peak if peer else None,
    }
    print(json.dumps(record))
    held = ours <= OF_FLOOR * floor and (peer is None or peer.median >= RATIO * ours)
    return 0 if held else 1


if __name__ == "__main__":
    raise SystemExit(main())
