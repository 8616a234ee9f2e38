"""Training through a frozen decoder against training all of it: FLOPs and seconds of a step.

The shape: a decoder of 4 layers of width 512 (MLP 2,048, 8 heads, 2,048 tokens of vocabulary),
rows of 256 positions with 64 targets, two slots of 4 soft tokens, a Q-Former of 2 layers of width
64 (its products are under 5 % of the decoder's). The peer trains the decoder too, in the same
compiled step, with the same optimizer. FLOPs are the jaxpr's products, loops multiplied out;
seconds are the median of steps taken in turns. The floor is 4N / 6N of the peer's time without
rematerialisation, 6N / 8N with it. The exit code says whether the bounds held: FLOPs at most 0.70
and 0.78, seconds 0.78.

    python -m tests.benchmarks.bench_frozen [--steps 7] [--rows 8]
"""

import argparse
import dataclasses
import json
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ilm_jax.models.counting import count_dot_flops
from ilm_jax.models.decoder import DecoderConfig
from ilm_jax.models.qformer import QFormerConfig
from ilm_jax.models.readers import QFormerReader
from ilm_jax.objectives.language import LanguageModelling
from ilm_jax.sharding.freezing import split_by_patterns
from ilm_jax.sharding.partitioning import Partitioner
from ilm_jax.sharding.state import describe_variables, initialise, make_state
from ilm_jax.training.optimizers import OptimizerConfig
from ilm_jax.training.step import gradient, make_train_step
from tests.benchmarks.rows import prompt_rows

LENGTH, TARGETS, CF, VOCAB, QUERIES = 256, 64, 32, 2048, 4
FLOPS_BOUND = {"none": 0.70, "full": 0.78}
SECONDS_BOUND = 0.78
FLOOR = {"none": 4 / 6, "full": 6 / 8}
TRAINS = {"frozen": ("^qformer/", "^adaptor/"), "full": (".*",)}
LM = DecoderConfig(VOCAB, num_layers=4, embed_dim=512, num_heads=8, mlp_dim=2048)
QFORMER = QFormerConfig(
    CF, 64, num_layers=2, num_queries=QUERIES, embed_dim=64, num_heads=4, mlp_dim=128, dropout=0.0
)


def batch(rows: int) -> dict[str, np.ndarray]:
    """Prompts with two slots and targets at the end."""
    told = slice(LENGTH - TARGETS, None)
    return prompt_rows(rows, LENGTH, told, VOCAB, entities=40, slots=2, queries=QUERIES)


class Case:
    """One way of training, ready to step."""

    def __init__(self, name: str, remat: str, rows: int) -> None:
        lm = dataclasses.replace(LM, remat=remat)
        objective = LanguageModelling(lm, QFormerReader(QFORMER), target_length=TARGETS)
        partitioner = Partitioner(devices=tuple(jax.devices()[:1]))
        variables = describe_variables(objective)
        params = initialise(objective, variables, list(variables), partitioner, jax.random.key(0))
        trainable, frozen = split_by_patterns(params, TRAINS[name])
        optimizer = OptimizerConfig(learning_rate=1e-4).build(100)
        self._table, self._key = jnp.ones((40, CF)), jax.random.key(1)
        traced = jax.make_jaxpr(
            lambda t, f, b: gradient(objective, "prompt", t, f, b, self._table, self._key)
        )(trainable, frozen, batch(rows))
        self.flops = count_dot_flops(traced)
        self._state = make_state(trainable, frozen, optimizer)
        self._step: Any = make_train_step(
            objective, "prompt", optimizer, partitioner, self._state, rows
        )
        self._batch = batch(rows)
        self.seconds: list[float] = []

    def step(self) -> None:
        """One step, timed to its end."""
        start = time.perf_counter()
        self._state, report = self._step(self._state, self._batch, self._table, self._key)
        jax.block_until_ready((self._state, report))
        self.seconds.append(time.perf_counter() - start)


def main() -> int:
    """Prints both ratios for each way of rematerialising; the last line is JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=7)
    parser.add_argument("--rows", type=int, default=8)
    flags = parser.parse_args()
    good, record = True, {}
    for remat in ("none", "full"):
        cases = {name: Case(name, remat, flags.rows) for name in TRAINS}
        for _ in range(flags.steps + 1):
            for case in cases.values():
                case.step()
        seconds = {name: float(np.median(case.seconds[1:])) for name, case in cases.items()}
        flops = cases["frozen"].flops / cases["full"].flops
        ratio = seconds["frozen"] / seconds["full"]
        held = flops <= FLOPS_BOUND[remat] and ratio <= SECONDS_BOUND
        good = good and held
        print(
            f"remat {remat}: FLOPs {flops:.3f} of full training (at most {FLOPS_BOUND[remat]}), "
            f"seconds {ratio:.3f} (at most {SECONDS_BOUND}): {seconds['frozen']:.3f} against "
            f"{seconds['full']:.3f}: {'held' if held else 'NOT held'}"
        )
        if remat == "none":
            record = {
                "benchmark": "frozen",
                "peer": "full fine-tuning",
                "ours_s": seconds["frozen"],
                "peer_s": seconds["full"],
                "ratio": 1 / ratio,
                "floor_s": FLOOR[remat] * seconds["full"],
            }
    print(json.dumps(record))
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
