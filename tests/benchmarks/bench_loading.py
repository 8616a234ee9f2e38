"""Loading a published folder onto the mesh: time, and host memory beyond what lands on devices.

A generated Llama-shaped checkpoint in shards is loaded in fresh processes: by the framework, and by
the obvious way (the peer): `safetensors.numpy.load_file` of every shard, transposed and stacked on
the host, then put on the devices. The floor is reading the files' bytes once into one buffer. On
CPU the devices' memory is the host's, so what is beyond is the peak minus start minus what has
landed, for ours the largest such difference of all arrays. The bound is 1.3 of the largest tensor;
the exit code says whether it held.

    python -m tests.benchmarks.bench_loading [--layers 6] [--dtype bfloat16] [--devices 1]
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from typing import Any

import numpy as np

BOUND = 1.3
WIDTH, MLP, VOCAB = 1024, 4096, 48_000


def config(layers: int) -> dict[str, Any]:
    """Of a decoder whose token table is its largest tensor."""
    return {
        "model_type": "llama",
        "vocab_size": VOCAB,
        "num_hidden_layers": layers,
        "hidden_size": WIDTH,
        "intermediate_size": MLP,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
        "tie_word_embeddings": False,
    }


def generate(folder: pathlib.Path, layers: int) -> int:
    """Writes the checkpoint in bfloat16; returns the size of its largest tensor."""
    import ml_dtypes

    from ilm_jax.checkpoints.published import families
    from ilm_jax.checkpoints.published.hugging_face import Tensor, write_folder

    family = families.find("llama")
    shapes = {"down_proj": (WIDTH, MLP), "gate_proj": (MLP, WIDTH), "up_proj": (MLP, WIDTH)}
    shapes |= {"embed_tokens": (VOCAB, WIDTH), "lm_head": (VOCAB, WIDTH)}
    rng = np.random.default_rng(0)
    tensors = {}
    for rule in family.rules(family.config(config(layers))).values():
        part = rule.source.split(".")[-2]
        shape = (WIDTH,) if "norm" in part else shapes.get(part, (WIDTH, WIDTH))

        def draw(shape: tuple[int, ...] = shape) -> np.ndarray:
            return rng.standard_normal(shape, np.float32).astype(ml_dtypes.bfloat16)

        tensors[rule.source] = Tensor(shape, np.dtype(ml_dtypes.bfloat16), draw)
    write_folder(folder, tensors, config(layers), shard_bytes=100_000_000)
    return VOCAB * WIDTH


def peak_bytes() -> int:
    """Largest resident size since `forget_peak`."""
    status = pathlib.Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def forget_peak() -> None:
    """Starts the peak anew (Linux)."""
    pathlib.Path("/proc/self/clear_refs").write_text("5")


def measured(how: str, folder: str, dtype: str) -> None:
    """In a process of its own: loads, and prints time and memory as JSON."""
    import jax

    from ilm_jax.checkpoints import loading
    from ilm_jax.checkpoints.checkpoints import InitFrom
    from ilm_jax.checkpoints.published import sources
    from ilm_jax.models.decoder import DecoderConfig
    from ilm_jax.objectives.language import LanguageModelling
    from ilm_jax.sharding.partitioning import MeshConfig, Partitioner
    from ilm_jax.sharding.state import describe_variables, param_shardings

    found = sources.open_source(folder).config
    objective = LanguageModelling(DecoderConfig(**{**found.__dict__, "param_dtype": dtype}))
    variables = describe_variables(objective)
    partitioner = Partitioner(MeshConfig(1, -1, 1))
    jax.jit(lambda: jax.numpy.zeros((8, 8)))().block_until_ready()

    def ours() -> Any:
        sources = [InitFrom(folder)]
        key = jax.random.key(0)
        return loading.load_sources(objective, variables, sources, (), partitioner, key)[0]

    def peer() -> Any:
        shardings = param_shardings(variables, partitioner)
        host = load_whole(folder, variables, found)
        return {path: jax.device_put(host.pop(path), shardings[path]) for path in list(host)}

    landed, worst = 0, 0
    read_array = loading.read_array

    def watched(*args: Any, **kwargs: Any) -> jax.Array:
        nonlocal landed, worst
        forget_peak()
        leaf = jax.block_until_ready(read_array(*args, **kwargs))
        landed += leaf.nbytes
        worst = max(worst, peak_bytes() - before - landed)
        return leaf

    loading.read_array = watched
    forget_peak()
    start, before = time.monotonic(), peak_bytes()
    params = jax.block_until_ready({"ours": ours, "peer": peer}[how]())
    seconds = time.monotonic() - start
    held = sum(leaf.nbytes for leaf in params.values())
    worst = max(worst, peak_bytes() - before - held)
    print(json.dumps({"seconds": seconds, "params": held, "beyond": worst}))


def load_whole(folder: str, variables: Any, found: Any) -> dict[str, np.ndarray]:
    """The peer's way: everything in memory, then the layout of the model."""
    import safetensors.numpy

    from ilm_jax.checkpoints.layout import disk_names, is_stacked
    from ilm_jax.checkpoints.published.families import decoders

    tensors: dict[str, np.ndarray] = {}
    for file in sorted(pathlib.Path(folder).glob("*.safetensors")):
        tensors |= safetensors.numpy.load_file(file)
    rules = decoders.rules(found)
    names = disk_names(variables)
    host = {}
    for path, variable in variables.items():
        rows = []
        for name in names[path]:
            rule = rules[name.removeprefix("lm/")]
            value = tensors.pop(rule.source)
            rows.append(value.T if rule.transposed else value)
        whole = np.stack(rows) if is_stacked(path, names) else rows[0]
        host[path] = np.ascontiguousarray(whole, dtype=variable.dtype)
    return host


def in_process(how: str, folder: str, dtype: str, devices: int) -> dict[str, float]:
    """`measured` in a fresh process."""
    flags = f"--xla_force_host_platform_device_count={devices}"
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
    words = [sys.executable, "-m", "tests.benchmarks.bench_loading", "--measure", how]
    words += ["--folder", folder, "--dtype", dtype]
    done = subprocess.run(words, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def floor(folder: pathlib.Path) -> float:
    """Seconds to read every byte once."""
    buffer = bytearray(1 << 24)
    start = time.monotonic()
    for file in folder.glob("*.safetensors"):
        with open(file, "rb", buffering=0) as stream:
            while stream.readinto(buffer):
                pass
    return time.monotonic() - start


def main() -> int:
    """Prints both; returns 0 if the bound held."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--measure", choices=["ours", "peer"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        measured(args.measure, args.folder, args.dtype)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        largest = (
            generate(pathlib.Path(folder), args.layers) * np.dtype(_dtype(args.dtype)).itemsize
        )
        floor(pathlib.Path(folder))
        results = {h: in_process(h, folder, args.dtype, args.devices) for h in ("peer", "ours")}
        floor_s = floor(pathlib.Path(folder))
    for how, result in results.items():
        beyond = result["beyond"] / largest
        print(
            f"{how}: {result['params'] / 1e6:.0f} MB of parameters in {result['seconds']:.2f} s, "
            f"beyond them {result['beyond'] / 1e6:.0f} MB = {beyond:.2f} of the largest tensor "
            f"({floor_s / result['seconds']:.0%} of the floor's speed)"
        )
    ours, peer = results["ours"], results["peer"]
    print(
        json.dumps(
            {
                "benchmark": "loading",
                "peer": "safetensors.numpy.load_file, stack, jax.device_put",
                "ours_s": ours["seconds"],
                "peer_s": peer["seconds"],
                "ratio": peer["seconds"] / ours["seconds"],
                "floor_s": floor_s,
                "ours_beyond_per_largest": ours["beyond"] / largest,
                "peer_beyond_per_largest": peer["beyond"] / largest,
                "bound": BOUND,
                "parameters_bytes": ours["params"],
                "devices": args.devices,
                "dtype": args.dtype,
            }
        )
    )
    return 0 if ours["beyond"] <= BOUND * largest else 1


def _dtype(name: str) -> Any:
    import ml_dtypes

    return ml_dtypes.bfloat16 if name == "bfloat16" else name


if __name__ == "__main__":
    sys.exit(main())
