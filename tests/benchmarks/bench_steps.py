"""Training steps beside PyTorch's, same run: stage 1, T5 and a frozen decoder.

Each side has a process of its own, so that peak memory is its own, and steps are taken in turns.
Ours is the product's step; peers are transformers' modules in PyTorch (steps_peer.py,
real_lm_peer.py), whose allocator is told to keep its memory, which is their best. The floor is the
step's products at the rate of this machine's matrix product; of the frozen decoder, without
attention.

    stage1        8 layers of width 256, 8 queries, 128 texts of 32 tokens, 30,523 words
    stage1_base   BERT-base's shape: 12 layers of width 768, 32 queries, 32 texts; dropout 0.1
    t5            T5-small's shape, all trained, 16 x (256 + 32)
    t5_frozen     the same, frozen, behind 64 soft tokens
    lm_2x430      SmolLM2-135M's shape, frozen (see bench_real_lm)
    lm_8x128      the same, shorter rows

    python -m tests.benchmarks.bench_steps [CASE…] [--steps 3] [--peer_python PYTHON | --no_peer]
        [--alone] [--device cpu|cuda]

needs torch and transformers (of another environment: --peer_python). Each case ends with a line of
JSON; the exit code says whether every ratio reached its bound.
"""

import argparse
import json
import os
import sys
from typing import Any

from tests.benchmarks import bench_real_lm, real_lm_peer, steps_peer
from tests.benchmarks.worker import KEEP, Worker, gib, product_rate

_STAGE_ONE = {"model": "stage_one", "vocab": 30523, "cf": 128, "length": 32, "dropout": 0.1}
_T5 = {
    "model": "t5",
    "vocab": 32128,
    "cf": 128,
    "layers": 6,
    "width": 512,
    "heads": 8,
    "rows": 16,
    "length": 256,
    "targets": 32,
    "dropout": 0.0,
}
_LM = {"model": "decoder", **bench_real_lm.SHAPE, "dtype": "float32", "remat": "none"}
ALL = [".*"]
# {case: (shape, least ratio)}
CASES: dict[str, tuple[dict[str, Any], float]] = {
    "stage1": (
        _STAGE_ONE
        | {"layers": 8, "width": 256, "heads": 4, "queries": 8, "rows": 128, "trains": ALL},
        1.2,
    ),
    "stage1_base": (
        _STAGE_ONE
        | {"layers": 12, "width": 768, "heads": 12, "queries": 32, "rows": 32, "trains": ALL},
        1.1,
    ),
    "t5": (_T5 | {"slots": 0, "trains": ALL}, 1.0),
    "t5_frozen": (_T5 | {"slots": 64, "trains": ["^qformer/", "^adaptor/"]}, 1.2),
    "lm_2x430": (_LM | {"rows": 2, "length": 430, "targets": 430 - bench_real_lm.PROMPT}, 1.2),
    "lm_8x128": (_LM | {"rows": 8, "length": 128, "targets": 128 - bench_real_lm.PROMPT}, 1.2),
}


def parse() -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cases", nargs="*", default=[*CASES], help=", ".join(CASES))
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--peer_python", default=sys.executable)
    parser.add_argument("--no_peer", action="store_true")
    alone = "one side after the other, where memory does not hold both"
    parser.add_argument("--alone", action="store_true", help=alone)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    flags = parser.parse_args()
    if unknown := [case for case in flags.cases if case not in CASES]:
        parser.error(f"no case {unknown[0]!r}: one of {', '.join(CASES)}")
    return flags


def measure(case: str, flags: argparse.Namespace, rate: float) -> bool:
    """Prints one case; returns whether its ratio reached its bound."""
    shape, bound = CASES[case]
    given = json.dumps(shape | {"threads": len(os.sched_getaffinity(0)), "device": flags.device})
    ours = [sys.executable, "-m", "tests.benchmarks.steps_ours", given]
    commands = {"ours": (ours, {"JAX_PLATFORMS": flags.device})}
    if not flags.no_peer:
        script = real_lm_peer if shape["model"] == "decoder" else steps_peer
        commands["peer"] = ([flags.peer_python, script.__file__, given], KEEP)
    sides: dict[str, Worker] = {}
    for turn in [[name] for name in commands] if flags.alone else [list(commands)]:
        sides |= {name: Worker(*commands[name]) for name in turn}
        for _ in range(flags.steps + 1):
            for name in turn:
                print(f"{case}, {name}: {sides[name].step():.2f} s", file=sys.stderr, flush=True)
        for name in turn:
            sides[name].close()
    flops = sides["ours"].facts["flops"]
    floor = flops / rate
    print(f"{case}: {flops / 1e9:.0f} GFLOP, {floor:.2f} s at {rate / 1e9:.0f} GFLOP/s")
    for name, side in sides.items():
        print(
            f"  {name} ({side.facts['versions']}): {side.median:.2f} s a step "
            f"({side.core_seconds:.2f} core seconds), {side.median / floor:.2f} times the floor, "
            f"{gib(side.peak)}, first step {side.seconds[0]:.1f} s"
        )
    peer = sides.get("peer")
    ratio = peer.median / sides["ours"].median if peer else None
    record = {
        "benchmark": f"steps_{case}",
        "peer": peer.facts["versions"] if peer else None,
        "ours_s": sides["ours"].median,
        "peer_s": peer.median if peer else None,
        "ratio": ratio,
        "bound": bound,
        "floor_s": floor,
        "flops": flops,
        "ours_core_s": sides["ours"].core_seconds,
        "peer_core_s": peer.core_seconds if peer else None,
        "ours_peak_bytes": sides["ours"].peak,
        "peer_peak_bytes": peer.peak if peer else None,
    }
    print(json.dumps(record), flush=True)
    return ratio is None or ratio >= bound


def main() -> int:
    """Measures the cases one after the other."""
    flags, rate = parse(), product_rate()
    held = [measure(case, flags, rate) for case in flags.cases]
    return 0 if all(held) else 1


if __name__ == "__main__":
    raise SystemExit(main())
